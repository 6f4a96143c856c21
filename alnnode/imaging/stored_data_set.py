"""The data set in a Part 10 file of the node: read in bounded memory, deflated or not."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from pydicom import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from alnnode.imaging.header_reading import Encoding, Selection, read_attributes
from alnnode.imaging.inflating import InflatingStream

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from pydicom.dataset import FileMetaDataset
    from pydicom.tag import BaseTag

PIXEL_TAGS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
META = 128 + 4 + 12  # bytes: preamble, "DICM", the element with the length of the File Meta Information
BUFFER = 1 << 20  # bytes of an inflated data set to which a parser can go back


class StoredDataSet(NamedTuple):
    """A data set in an open file; the stream is at its beginning."""

    path: Path
    stream: BinaryIO
    meta: FileMetaDataset
    syntax: str

    @property
    def deflated(self) -> bool:
        """Whether the stream inflates what is in the file."""
        return self.syntax == DeflatedExplicitVRLittleEndian

    @property
    def encoding(self) -> Encoding:
        """The encoding of the stream."""
        return Encoding.of(self.syntax)


def open_data_set(path: Path) -> StoredDataSet:
    """Open a file; the caller closes the stream.

    Raises:
        OSError: the file is missing.
        ValueError: it is no Part 10 file.
        Exception: its File Meta Information is damaged, as pydicom raises it.
    """
    file = path.open("rb")
    try:
        meta = _file_meta(path)
        file.seek(data_set_offset(meta))
        syntax = str(meta.TransferSyntaxUID)
        return StoredDataSet(path, inflated(file, syntax), meta, syntax)
    except BaseException:
        file.close()
        raise


def _file_meta(path: Path) -> FileMetaDataset:
    try:
        return read_file_meta_info(path)
    except InvalidDicomError as error:
        raise ValueError("the file is no Part 10 file") from error


def data_set_offset(meta: FileMetaDataset) -> int:
    """Return where the data set of a file begins."""
    return META + int(meta.FileMetaInformationGroupLength)


def inflated(file: BinaryIO, syntax: str) -> BinaryIO:
    """Return a stream of the data set at the present position of a file."""
    return io.BufferedReader(InflatingStream(file), BUFFER) if syntax == DeflatedExplicitVRLittleEndian else file


def read_header(data_set: StoredDataSet, selection: Selection) -> FileDataset:
    """Read the attributes before the pixel data. The value of a deferred element is read from the file; of a deflated data set, it has none.

    Raises:
        Exception: the bytes are damaged, as `read_attributes` raises it.
    """
    found = read_attributes(data_set.stream, data_set.encoding, _is_pixels, selection)
    header = FileDataset(str(data_set.path), found, file_meta=data_set.meta)
    header.set_original_encoding(*data_set.encoding, found.original_character_set)
    if data_set.deflated:
        header.filename = None
    return header


def inflated_size(path: Path) -> int:
    """Return the bytes of a file; of a deflated data set, those of the inflated one.

    Raises:
        OSError: the file is missing, or cannot be inflated.
        Exception: it is no Part 10 file, as pydicom raises it.
    """
    data_set = open_data_set(path)
    with data_set.stream as stream:
        return stream.seek(0, io.SEEK_END)


def _is_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in PIXEL_TAGS
