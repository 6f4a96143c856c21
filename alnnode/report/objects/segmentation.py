"""Segmentation (PS3.3 A.51): the voxels of every node, one binary segment each, in the raster of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.sr.coding import Code

from alnnode import __version__
from alnnode.records import ObjectRole
from alnnode.report import codes, modules, wording
from alnnode.report.ascii_text import ascii_words
from alnnode.report.capture import canvas
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.objects.frames_on_slices import SliceFrames
from alnnode.report.series_naming import series_number
from alnnode.report.sr import measurements
from alnnode.report.uids import result_uid, tracking_identifier, tracking_uid

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import Analysis, Finding, Node, ReportContext, ResultObject, Volume

KIND = ObjectKind(
    ObjectRole.SEGMENTATION, "masks", 3, ObjectNature.IMAGE, Code("RESULT-SEG", codes.SCHEME, "Segmentation of nodes")
)


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return one object with a segment per node, numbered as in the report; nothing where no node was found."""
    volume = analysis.volume
    if volume is None or not analysis.findings:
        return []
    nodes = [finding.node for finding in analysis.findings]
    planes = SliceFrames(analysis, volume, sorted({k for node in nodes for k in _slices(node)}))
    series = result_uid(analysis, context, "seg", "series")
    dataset = Segmentation(
        source_images=planes.sources,
        pixel_array=_pixels(nodes, planes.slices, volume),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, f, analysis) for number, f in enumerate(analysis.findings, start=1)],
        series_instance_uid=series,
        series_number=series_number(analysis, KIND),
        sop_instance_uid=result_uid(analysis, context, "seg", "instance"),
        instance_number=1,
        manufacturer=modules.MANUFACTURER,
        manufacturer_model_name=modules.MODEL_NAME,
        software_versions=__version__,
        device_serial_number=analysis.model.digest[:16],
        content_label="AXILLARY_NODES",
        content_description="Axillary lymph nodes, numbered as in the report",
        content_creator_name=modules.CREATOR,
        pixel_measures=planes.measures,
        plane_orientation=planes.orientation,
        plane_positions=planes.positions,
    )
    planes.refer(dataset, series, codes.SEGMENTATION_DERIVATION)
    return [finish(dataset, analysis, context, KIND)]


def _slices(node: Node) -> range:
    """Slices with voxels of the node; only the measured one where nothing but its outline is known."""
    return range(node.box.k0, node.box.k1) if node.mask is not None else range(node.slice_index, node.slice_index + 1)


def _pixels(nodes: list[Node], slices: tuple[int, ...], volume: Volume) -> npt.NDArray[np.bool_]:
    """Return the masks as highdicom takes overlapping segments: (frames, rows, columns, segments)."""
    place = {k: n for n, k in enumerate(slices)}
    pixels = np.zeros((len(slices), *volume.voxels.shape[1:], len(nodes)), bool)
    for segment, node in enumerate(nodes):
        box = node.box
        if node.mask is None:
            pixels[place[node.slice_index], :, :, segment] = measurements.planar_mask(node, volume)
            continue
        for n, k in enumerate(range(box.k0, box.k1)):
            pixels[place[k], box.j0 : box.j1, box.i0 : box.i1, segment] = node.mask[n]
    return pixels


def _segment(number: int, finding: Finding, analysis: Analysis) -> SegmentDescription:
    node, model = finding.node, analysis.model
    suspicious = finding.suspicious(model.operating_point)
    types = SegmentAlgorithmTypeValues
    description = SegmentDescription(
        segment_number=number,
        segment_label=wording.title(finding),
        segmented_property_category=codes.ANATOMICAL_STRUCTURE,
        segmented_property_type=codes.LYMPH_NODE,
        algorithm_type=types.SEMIAUTOMATIC if node.source.by_person else types.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model.name, family=codes.ARTIFICIAL_INTELLIGENCE, version=model.version
        ),
        tracking_uid=tracking_uid(analysis, node),
        tracking_id=tracking_identifier(tracking_uid(analysis, node)),
        anatomic_regions=[codes.AXILLARY_LYMPH_NODE],
        display_color=CIELabColor.from_rgb(*(canvas.SUSPICIOUS if suspicious else canvas.NOT_SUSPICIOUS)),
    )
    description.SegmentDescription = ascii_words(wording.verdict(finding, analysis))[:64]
    side = CodedConcept.from_code(codes.LATERALITY[node.side])
    description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [side]
    return description
