"""The header of a data set, wherever the pixel data begin."""

import pytest
from dicom_objects import ct, data_set
from pydicom.uid import ExplicitVRLittleEndian

from alnnode.errors import RejectedObject
from alnnode.receive import header

BEGINNING = header._HEAD


@pytest.mark.parametrize("size", [0, 2, BEGINNING - 1200, BEGINNING - 600, BEGINNING, 3 * BEGINNING])
def test_elements_of_any_size_may_come_before_the_pixel_data(size: int) -> None:
    image = ct(1, side=256)
    image.private_block(0x6FF1, "TEST", create=True).add_new(1, "OB", bytes(size))
    encoded = data_set(image)
    found = header.read(memoryview(encoded), ExplicitVRLittleEndian, "A")
    assert (found.sop_instance_uid, found.series_uid) == (image.SOPInstanceUID, image.SeriesInstanceUID)
    for end in (-2, 2 * BEGINNING, BEGINNING, BEGINNING - 1):
        with pytest.raises(RejectedObject):
            header.read(memoryview(encoded[:end]), ExplicitVRLittleEndian, "A")


def test_a_data_set_without_pixel_data_is_read_to_its_end() -> None:
    image = ct(1, PixelData=None)
    image.private_block(0x7FF1, "TEST", create=True).add_new(1, "OB", bytes(2 * BEGINNING))
    encoded = data_set(image)
    assert header.read(memoryview(encoded), ExplicitVRLittleEndian, "A").series_uid == image.SeriesInstanceUID
    with pytest.raises(RejectedObject):
        header.read(memoryview(encoded[:-2]), ExplicitVRLittleEndian, "A")
