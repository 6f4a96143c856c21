"""Grayscale Softcopy Presentation State (PS3.3 A.33.1): numbered boxes on the original images, in the window of the captures.

Coordinates are those of SCOORD: columns and rows from the top left corner of the image (PS3.3 C.10.5.1.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom import ModalityLUTTransformation
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom.sr.coding import Code

from alnnode import __version__
from alnnode.records import ObjectRole
from alnnode.report import codes, modules, wording
from alnnode.report.ascii_text import ascii_words
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.source_images import source_image
from alnnode.report.times import moment
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    from pydicom import Dataset

    from alnnode.records import Analysis, Finding, ReportContext, ResultObject, Volume

LAYER = "AXILLARY_NODES"
GAP = 3.0  # pixels between node and box

KIND = ObjectKind(
    ObjectRole.PRESENTATION_STATE,
    "boxes",
    7,
    ObjectNature.OTHER,
    Code("RESULT-PR", codes.SCHEME, "Boxes on the source images"),
    content_date=False,  # it has the Presentation Creation Date instead
)


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return the boxes on every slice on which a node was measured; nothing where no node was found.

    One state has one Modality LUT for all its images: slices that are rescaled differently get a state each.
    """
    volume = analysis.volume
    if volume is None or not analysis.findings:
        return []
    by_rescale: dict[tuple[float, float], list[Finding]] = {}
    for finding in analysis.findings:
        by_rescale.setdefault(volume.slices[finding.node.slice_index].rescale, []).append(finding)
    return [
        _state(number, rescale, findings, volume, analysis, context)
        for number, (rescale, findings) in enumerate(by_rescale.items(), start=1)
    ]


def _state(
    number: int,
    rescale: tuple[float, float],
    findings: list[Finding],
    volume: Volume,
    analysis: Analysis,
    context: ReportContext,
) -> ResultObject:
    layer = GraphicLayer(LAYER, order=1, description="Axillary lymph nodes")
    images: dict[str, Dataset] = {}
    annotations = []
    for finding in findings:
        reference = volume.slices[finding.node.slice_index]
        if reference.sop_instance_uid not in images:
            image = source_image(analysis, reference)
            image.SamplesPerPixel = 1
            if reference.frame_number is not None:
                image.NumberOfFrames = len(volume.slices)
            images[reference.sop_instance_uid] = image
        annotations.append(_annotation(finding, images[reference.sop_instance_uid], reference.frame_number, layer, analysis))
    centre, width = context.window
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=list(images.values()),
        series_instance_uid=result_uid(analysis, context, "pr", "series"),
        series_number=series_number(analysis, KIND),
        sop_instance_uid=result_uid(analysis, context, "pr", str(number)),
        instance_number=number,
        manufacturer=modules.MANUFACTURER,
        manufacturer_model_name=modules.MODEL_NAME,
        software_versions=__version__,
        device_serial_number=analysis.model.digest[:16],
        content_label=LAYER,
        content_description="Axillary lymph nodes: boxes, numbered as in the report"[:64],
        graphic_annotations=annotations,
        graphic_layers=[layer],
        modality_lut_transformation=ModalityLUTTransformation(
            rescale_slope=rescale[0], rescale_intercept=rescale[1], rescale_type="HU"
        ),
        voi_lut_transformations=[SoftcopyVOILUTTransformation(window_center=centre, window_width=width)],
    )
    modules.delete_contributing_equipment(state)
    state.PresentationCreationDate, state.PresentationCreationTime, _ = moment(analysis.header, context)
    state.BodyPartExamined = "CHEST"  # without it a validator asks for Laterality, which a chest has not
    return finish(state, analysis, context, KIND)


def _annotation(
    finding: Finding, image: Dataset, frame: int | None, layer: GraphicLayer, analysis: Analysis
) -> GraphicAnnotation:
    box = finding.node.box
    columns, rows = float(image.Columns), float(image.Rows)
    left, right = max(box.i0 - GAP, 0.0), min(box.i1 + GAP, columns)
    top, bottom = max(box.j0 - GAP, 0.0), min(box.j1 + GAP, rows)
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    return GraphicAnnotation(
        referenced_images=[image],
        graphic_layer=layer,
        referenced_frame_number=frame,
        graphic_objects=[GraphicObject(GraphicTypeValues.POLYLINE, corners, AnnotationUnitsValues.PIXEL)],
        text_objects=[
            TextObject(
                ascii_words(wording.verdict(finding, analysis)),
                AnnotationUnitsValues.PIXEL,
                anchor_point=(right, top),
                anchor_point_visible=False,
            )
        ],
    )
