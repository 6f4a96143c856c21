"""Parametric Map (PS3.3 A.75): the Grad-CAM of each network as numbers in the raster of the source, one object per network.

32-bit floats, because a common viewer shows no other; each object in a series of its own, because viewers colour by series. OHIF 3.13
lays the frames on the source's slices by their order alone: it needs a frame for every slice (`map_frames = "all"`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import DerivedPixelContrastValues, ImageFlavorValues, ParametricMap, RealWorldValueMapping
from pydicom.sr.coding import Code
from scipy import ndimage

from alnnode import __version__
from alnnode.records import Crop, MapFrames, ObjectRole
from alnnode.report import codes, modules, wording
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.objects.frames_on_slices import SliceFrames
from alnnode.report.series_naming import series_number
from alnnode.report.uids import result_uid

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydicom import Dataset

    from alnnode.records import Analysis, Heatmap, ReportContext, ResultObject


FULL = 100.0  # per cent: OHIF 3.13 shows every map in the window 0 to 100, and so one from 0 to 1 as nothing

KIND = ObjectKind(
    ObjectRole.PARAMETRIC_MAP,
    "Grad-CAM",
    4,
    ObjectNature.IMAGE,
    Code("RESULT-PMAP", codes.SCHEME, "Grad-CAM as parametric map"),
)


def build(analysis: Analysis, context: ReportContext) -> list[ResultObject]:
    """Return one object per network, a frame for every slice on which a node was classified; nothing where there is none."""
    volume = analysis.volume
    if volume is None or not analysis.findings:
        return []
    made = []
    for crop in Crop:
        heatmaps = [heatmap for finding in analysis.findings for heatmap in finding.heatmaps if heatmap.crop is crop]
        if heatmaps:
            made.append(_object(crop, heatmaps, analysis, context))
    return made


def _object(crop: Crop, heatmaps: list[Heatmap], analysis: Analysis, context: ReportContext) -> ResultObject:
    volume = analysis.volume
    assert volume is not None  # `build` looks
    if context.options.map_frames is MapFrames.ALL:
        planes = SliceFrames(analysis, volume, range(len(volume.slices)))
    else:
        planes = SliceFrames(analysis, volume, sorted({heatmap.geometry.slice_index for heatmap in heatmaps}))
    raster = volume.voxels.shape[1:]
    pixels = np.zeros((len(planes.slices), *raster), np.float32)
    for heatmap in heatmaps:
        frame = pixels[planes.slices.index(heatmap.geometry.slice_index)]
        np.maximum(frame, FULL * on_raster(heatmap, (raster[0], raster[1])), out=frame)
    series = result_uid(analysis, context, "pmap", crop.value, "series")
    dataset = ParametricMap(
        source_images=planes.sources,
        pixel_array=pixels,
        series_instance_uid=series,
        series_number=series_number(analysis, KIND, crop),
        sop_instance_uid=result_uid(analysis, context, "pmap", crop.value, "instance"),
        instance_number=1,
        manufacturer=modules.MANUFACTURER,
        manufacturer_model_name=modules.MODEL_NAME,
        software_versions=__version__,
        device_serial_number=analysis.model.digest[:16],
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label=f"CAM_{crop.value.upper()}",
                lut_explanation=f"Grad-CAM of the {crop.value.upper()} network",
                unit=codes.PERCENT,
                value_range=(0.0, FULL),
                slope=1.0,
                intercept=0.0,
                quantity_definition=codes.GRAD_CAM,
            )
        ],
        voi_lut_transformations=[VOILUTTransformation(window_center=FULL / 2, window_width=FULL)],
        image_flavor=ImageFlavorValues.VOLUME,
        derived_pixel_contrast=DerivedPixelContrastValues.QUANTITY,
        content_label=f"GRADCAM_{crop.value.upper()}",
        content_description=f"Grad-CAM of the {crop.value.upper()} network",
        content_creator_name=modules.CREATOR,
        pixel_measures=planes.measures if planes.contiguous else planes.measures_of_a_slice,
        plane_orientation=planes.orientation,
        plane_positions=planes.positions,
        derivation=codes.GRAD_CAM,
    )
    planes.refer(dataset, series, codes.GRAD_CAM)
    _order_along_normal(dataset)
    dataset.ImageComments = _comments(crop, analysis)
    dataset.BodyPartExamined = "CHEST"  # without it a validator asks for Laterality, which a chest has not
    return finish(dataset, analysis, context, KIND, crop)


def _comments(crop: Crop, analysis: Analysis) -> str:
    """Return the notice, and the nodes whose map is empty: a frame of zeros does not say what it means."""
    empty = [
        wording.title(finding) for finding in analysis.findings if any(h.crop is crop and h.empty for h in finding.heatmaps)
    ]
    if not empty:
        return analysis.model.banner
    return (
        f"{analysis.model.banner}. Empty map of {', '.join(empty)}: {wording.EMPTY_MAP}; no error, and no sign of a benign node"
    )


def _order_along_normal(dataset: Dataset) -> None:
    """Put the frames in the order in which OHIF stacks the source's slices: along the cross product of row and column direction."""
    orientation = np.array(dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    places = [float(np.dot(normal, [float(p) for p in f.PlanePositionSequence[0].ImagePositionPatient])) for f in frames]
    order = np.argsort(places, kind="stable")
    dataset.PerFrameFunctionalGroupsSequence = [frames[n] for n in order]
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence, start=1):
        frame.FrameContentSequence[0].DimensionIndexValues = [number]
    pixels = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(len(frames), -1)
    dataset.FloatPixelData = pixels[order].tobytes()


def on_raster(heatmap: Heatmap, raster: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return the map on the rows and columns of its slice, shape ``raster``; 0 outside the crop."""
    g = heatmap.geometry
    rows, columns = np.meshgrid(
        (np.arange(raster[0]) - g.top) / g.step_row, (np.arange(raster[1]) - g.left) / g.step_column, indexing="ij"
    )
    inside = (rows >= -0.5) & (rows <= g.size - 0.5) & (columns >= -0.5) & (columns <= g.size - 0.5)
    values = ndimage.map_coordinates(heatmap.on_slice, (rows, columns), order=1, mode="nearest")
    clipped: npt.NDArray[np.float32] = np.where(inside, np.clip(values, 0.0, 1.0), 0.0).astype(np.float32)
    return clipped
