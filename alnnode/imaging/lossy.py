"""Whether an image was compressed with loss (PS3.3 C.7.6.1.1.5): its header says so, or its transfer syntax is always lossy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from alnnode.imaging.attribute_values import text

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

LOSSY, RATIO, METHOD = "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"
# The method of each syntax that is always lossy. JPEG 2000 and HTJ2K have one syntax for both: only the header tells.
# The last two are JPEG processes that the standard retired (PS3.5 of 1998).
METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    "1.2.840.10008.1.2.4.53": "ISO_10918_1",
    "1.2.840.10008.1.2.4.55": "ISO_10918_1",
}


def is_lossy(dataset: Dataset) -> bool:
    """Return whether an image was ever compressed with loss."""
    return text(dataset, LOSSY) == "01" or _syntax(dataset) in METHODS


def complete(header: Dataset, image: Dataset, path: Path) -> None:
    """Add the lossy compression of an image to the header of its series.

    Args:
        header: changed in place; what it has already stays.
        image: an image for which `is_lossy` is true.
        path: of its file. When the image does not state the ratio, the size of the file gives it.
    """
    header.LossyImageCompression = "01"
    for keyword in (RATIO, METHOD):
        if not text(header, keyword) and text(image, keyword):
            header.add(image[keyword])
    method = METHODS.get(_syntax(image))
    if method is None:
        return
    if not text(header, METHOD):
        header.LossyImageCompressionMethod = method
    if not text(header, RATIO):
        stored = int(image.Rows) * int(image.Columns) * int(image.BitsAllocated) // 8 * int(text(image, "NumberOfFrames") or 1)
        header.LossyImageCompressionRatio = round(stored / path.stat().st_size, 1)


def _syntax(dataset: Dataset) -> str:
    meta = getattr(dataset, "file_meta", None)
    return "" if meta is None else str(meta.get("TransferSyntaxUID", ""))
