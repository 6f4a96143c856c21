"""The frames of CT images: their geometry and rescaling from the header, checked before any pixel is decoded.

Covers CT Image Storage (PS3.3 A.3) and the multi-frame Enhanced and Legacy Converted Enhanced CT Image Storage
(PS3.3 A.38, A.70), whose geometry lies in functional groups (PS3.3 C.7.6.16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from alnnode.counted import counted
from alnnode.errors import NotAnalysable
from alnnode.imaging.attribute_values import BAD_VALUE, text, value_of
from alnnode.imaging.lossy import is_lossy

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

CT_STORAGE = frozenset({CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
MIN_MATRIX, MAX_MATRIX = 64, 2048  # Rows and Columns of a CT slice
MAX_FRAMES = 5000
PROJECTIONS = frozenset({"MIP", "MINIP", "MINMIP", "PROJECTION IMAGE", "VOLUME RENDERING", "VRT", "SSD"})

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice image as its header describes it.

    Attributes:
        number: 1-based frame number; None in a single-frame instance.
        image_number: Instance Number, or ``number``: shown to readers, never used for sorting.
        position: Image Position (Patient), mm.
        orientation: Image Orientation (Patient), direction cosines of a row, then of a column.
        pixel_spacing: (row, column) distances, mm.
        thickness: nominal, mm.
        frame_of_reference: its UID; empty when absent.
        lossy: whether it was ever compressed with loss (PS3.3 C.7.6.1.1.5).
        acquisition: attributes that differ between phases, energies and reconstructions, by keyword.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    number: int | None
    image_number: int | None
    position: Vector
    orientation: Vector
    pixel_spacing: Vector
    rows: int
    columns: int
    slope: float
    intercept: float
    thickness: float | None
    frame_of_reference: str
    lossy: bool
    acquisition: tuple[tuple[str, str], ...]


def image_type(groups: tuple[Dataset, ...]) -> tuple[str, ...]:
    """Return the values of Image Type or Frame Type, upper case; empty when there is none."""
    for group in groups:
        for keyword in ("FrameType", "ImageType"):
            value = value_of(group, keyword)
            if value:
                values = value if isinstance(value, (MultiValue, list, tuple)) else [value]
                return tuple(str(v).strip().upper() for v in values)
    return ()


def read_frames(dataset: Dataset, path: Path) -> tuple[list[Frame], int]:
    """Return the frames of one instance.

    Args:
        dataset: an instance of a SOP class in `CT_STORAGE`, pixel data not needed.
        path: of its file.

    Returns:
        The frames, and the number of localizers that were left out.

    Raises:
        NotAnalysable: an attribute that the analysis needs is missing or out of range.
    """
    _check_pixel_module(dataset)
    if text(dataset, "SOPClassUID") == CTImageStorage:
        if text(dataset, "NumberOfFrames") not in {"", "1"}:
            raise NotAnalysable(
                "A single-frame CT image claims to hold several frames. Please send the series again from the scanner."
            )
        groups_of_frames: list[tuple[Dataset, ...]] = [(dataset,)]
        multi_frame = False
    else:
        groups_of_frames = _functional_groups(dataset)
        multi_frame = True
    frames = []
    for number, groups in enumerate(groups_of_frames, start=1):
        kind = image_type(groups)
        if "LOCALIZER" in kind:
            continue
        if PROJECTIONS.intersection(kind):
            raise NotAnalysable(
                "The images are projections or renderings (MIP, VRT), not slices. Please send the original axial slices."
            )
        frames.append(_frame(dataset, groups, path, number if multi_frame else None))
    return frames, len(groups_of_frames) - len(frames)


def _frame(dataset: Dataset, groups: tuple[Dataset, ...], path: Path, number: int | None) -> Frame:
    spacing = _numbers(groups, "PixelSpacing", 2)
    if not all(0.05 <= value <= 5 for value in spacing):
        raise NotAnalysable("The pixel spacing in the image header is not plausible for a CT. Please send the original images.")
    if _text(groups, "RescaleType").upper() not in {"", "HU", "US"}:
        raise NotAnalysable(
            "The pixel values are not Hounsfield units (a spectral map?). Please send the conventional CT images."
        )
    slope, intercept = _numbers(groups, "RescaleSlope", 1)[0], _numbers(groups, "RescaleIntercept", 1)[0]
    if slope == 0:
        raise NotAnalysable("The rescale slope is zero, so that pixel values cannot be turned into Hounsfield units.")
    orientation = _numbers(groups, "ImageOrientationPatient", 6)
    _check_orthonormal(orientation)
    return Frame(
        path=path,
        sop_class_uid=text(dataset, "SOPClassUID"),
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        number=number,
        image_number=number or _integer(text(dataset, "InstanceNumber")),
        position=_numbers(groups, "ImagePositionPatient", 3),
        orientation=orientation,
        pixel_spacing=spacing,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        slope=slope,
        intercept=intercept,
        thickness=_thickness(groups),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        lossy=is_lossy(dataset),
        acquisition=tuple((keyword, _text(groups, keyword)) for keyword in _ACQUISITION),
    )


def _integer(value: str) -> int | None:
    try:
        return int(value)
    except ValueError:
        return None


# Attributes that may differ between two images of one position, the most telling first, and how reasons name the difference.
_ACQUISITION = {
    "KVP": "tube voltages (dual energy)",
    "NominalPercentageOfCardiacPhase": "cardiac phases",
    "TemporalPositionIndex": "time points",
    "TemporalPositionIdentifier": "time points",
    "ContrastBolusAgent": "contrast phases",
    "AcquisitionNumber": "acquisitions (such as contrast phases)",
    "AcquisitionDateTime": "acquisitions (such as contrast phases)",
    "AcquisitionTime": "acquisitions (such as contrast phases)",
    "ConvolutionKernel": "convolution kernels",
    "SliceThickness": "slice thicknesses",
    "ImageType": "image types (such as energies)",
}


def difference(one: Frame, other: Frame) -> str:
    """Return how two images of one position differ, for the reason in a report; empty when no attribute differs."""
    for (keyword, a), (_, b) in zip(one.acquisition, other.acquisition, strict=True):
        if a != b:
            return _ACQUISITION[keyword]
    return ""


def _check_pixel_module(dataset: Dataset) -> None:
    """Reject images that the decoder could not hold in memory or would misread (PS3.3 C.7.6.3).

    Raises:
        NotAnalysable: rows, columns, samples or bits are missing or out of range.
    """
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    try:
        rows, columns, allocated, stored, high, _ = (int(dataset[name].value) for name in names)
        samples = int(dataset["SamplesPerPixel"].value)
    except BAD_VALUE:
        raise NotAnalysable(
            "An image header lacks the description of its pixels, or it cannot be read. Please send the series again."
        ) from None
    if not (MIN_MATRIX <= rows <= MAX_MATRIX and MIN_MATRIX <= columns <= MAX_MATRIX):
        raise NotAnalysable(
            f"An image claims {rows} x {columns} pixels; CT slices of {MIN_MATRIX} to {MAX_MATRIX} pixels a side can be analysed."
        )
    if samples != 1:
        raise NotAnalysable("The images are in colour, so they hold no Hounsfield units. Please send the original CT slices.")
    if allocated not in {8, 16} or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise NotAnalysable("The pixels are stored in a form that CT images do not use. Please send the original CT slices.")


_NO_FRAME_GEOMETRY = "A multi-frame image lacks the geometry of its frames. Please send the original series."


def _functional_groups(dataset: Dataset) -> list[tuple[Dataset, ...]]:
    """Return, for each frame, the data sets that may hold its attributes, in order: per-frame, shared, top level (PS3.3 C.7.6.16)."""
    try:
        count = int(dataset.NumberOfFrames)
        per_frame = list(dataset.PerFrameFunctionalGroupsSequence)
        shared_items = list(dataset.get("SharedFunctionalGroupsSequence") or [])
        shared = _flat(shared_items[0]) if shared_items else ()
    except BAD_VALUE:
        raise NotAnalysable(_NO_FRAME_GEOMETRY) from None
    if not 1 <= count <= MAX_FRAMES or len(per_frame) != count:
        raise NotAnalysable(
            f"A multi-frame image claims {counted(count, 'frame')} but describes {len(per_frame)} (at most {MAX_FRAMES} can be analysed)."
        )
    try:
        return [(*_flat(item), *shared, dataset) for item in per_frame]
    except BAD_VALUE:
        raise NotAnalysable(_NO_FRAME_GEOMETRY) from None


def _flat(item: Dataset) -> tuple[Dataset, ...]:
    """Return the functional group macros of one frame: the first item of each sequence in it."""
    return tuple(element.value[0] for element in item if element.VR == "SQ" and element.value)


def _text(groups: tuple[Dataset, ...], keyword: str) -> str:
    if keyword == "ImageType":
        return "\\".join(image_type(groups))
    for group in groups:
        value = value_of(group, keyword)
        if value not in (None, ""):
            return str(value)
    return ""


def _numbers(groups: tuple[Dataset, ...], keyword: str, count: int) -> Vector:
    for group in groups:
        try:
            if keyword not in group:
                continue
            value = group[keyword].value
            values = tuple(float(v) for v in (value if count > 1 else [value]))
        except BAD_VALUE:
            break
        if len(values) == count and all(math.isfinite(v) and abs(v) < 1e5 for v in values):
            return values
        break
    raise NotAnalysable(f"An image header lacks a usable {_NAMES[keyword]}. Please send the original images from the scanner.")


_NAMES = {
    "PixelSpacing": "pixel spacing",
    "RescaleSlope": "rescale slope (needed for Hounsfield units)",
    "RescaleIntercept": "rescale intercept (needed for Hounsfield units)",
    "ImageOrientationPatient": "image orientation",
    "ImagePositionPatient": "image position",
}


def _thickness(groups: tuple[Dataset, ...]) -> float | None:
    try:
        value = float(_text(groups, "SliceThickness"))
    except ValueError:
        return None
    return value if 0 < value < 1000 else None


def _check_orthonormal(orientation: Vector) -> None:
    row, column = orientation[:3], orientation[3:]
    lengths = (math.hypot(*row), math.hypot(*column))
    across = sum(a * b for a, b in zip(row, column, strict=True))
    if not (all(abs(length - 1) < 0.01 for length in lengths) and abs(across) < 0.01):
        raise NotAnalysable(
            "The image orientation in the header is not valid. Please send the original images from the scanner."
        )
