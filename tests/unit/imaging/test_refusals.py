"""Every series that cannot be analysed ends with a reason that a radiographer understands."""

import re
import tracemalloc
import zlib

import numpy as np
import pytest
from ct_series import ROOT, changed, ct_slice, enhanced, pixels, write
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, MRImageStorage

from alnnode.errors import NotAnalysable
from alnnode.imaging import part10
from alnnode.imaging.series import read_volume


def series(n=8, **changes):
    return [ct_slice(k, **changes) for k in range(n)]


def one(index=3, **changes):
    slices = series()
    changed(slices[index], **changes)
    return slices


def without(*lost, spacing=2.0):
    return [ct_slice(k, spacing) for k in range(12) if k not in lost]


def twice(**changes):
    again = [ct_slice(k, SOPInstanceUID=f"{ROOT}.7.{k + 1}", PixelData=(pixels(k) + 50).tobytes(), **changes) for k in range(8)]
    return series() + again


CASES = {
    "gap": (without(5, 6), r"Slices are missing between z = -92\.0 and -86\.0 mm, 2 of 12"),
    "two gaps": (without(2, 7), r"missing between z = -98\.0 and -84\.0 mm, 2 of 12"),
    "uneven": ([*series(), *(ct_slice(0, ImagePositionPatient=[-25, -25, -85 + v]) for v in (0.0, 3.1))], "not evenly spaced"),
    "thick": (series(spacing=8.0), "slices are 8 mm apart; the analysis needs 5 mm or less.*thin reconstruction"),
    "few": (series(4), "only 4 axial slices; the analysis needs at least 5"),
    "perfusion": ([ct_slice(0, SOPInstanceUID=f"{ROOT}.6.{v}") for v in range(1, 9)], "8 images show only 1 place"),
    "magnetic resonance": (series(Modality="MR", SOPClassUID=MRImageStorage), "series is MR, not CT"),
    "modality as free text": (series(Modality="Secret^Name"), "unknown modality"),
    "two series": (one(SeriesInstanceUID=f"{ROOT}.44"), "several series"),
    "localizers": (series(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "only localizer images"),
    "projection": (series(ImageType=["DERIVED", "SECONDARY", "MIP"]), "projections"),
    "coronal": (series(orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0)), "not axial"),
    "two orientations": (one(ImageOrientationPatient=[1, 0, 0, 0, 0.97, 0.2431]), "different orientations"),
    "two matrices": (one(Rows=128, Columns=128), "different size"),
    "two pixel spacings": (one(PixelSpacing=[0.7, 0.7]), "different pixel spacings"),
    "two frames of reference": (one(FrameOfReferenceUID=f"{ROOT}.55"), "frames of reference"),
    "shifted": ([ct_slice(k, ImagePositionPatient=[-25 + 20 * (k > 3), -25, 2.0 * k]) for k in range(8)], "shifted"),
    "strong tilt": (
        [ct_slice(k, orientation=(1, 0, 0, 0, 0.9, 0.43589), ImagePositionPatient=[0, 2.0 * k, 2.0 * k]) for k in range(8)],
        "gantry was tilted",
    ),
    "no position": (one(ImagePositionPatient=None), "lacks a usable image position"),
    "no orientation": (one(ImageOrientationPatient=None), "lacks a usable image orientation"),
    "bent orientation": (one(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "orientation in the header is not valid"),
    "no pixel spacing": (one(PixelSpacing=None), "lacks a usable pixel spacing"),
    "zero pixel spacing": (one(PixelSpacing=[0, 0]), "not plausible"),
    "no slope": (one(RescaleSlope=None), "lacks a usable rescale slope"),
    "zero slope": (one(RescaleSlope=0), "slope is zero"),
    "iodine map": (series(RescaleType="MGML"), "not Hounsfield units"),
    "no pixels": (one(PixelData=None), "holds no pixel data"),
    "short pixels": (one(PixelData=pixels(3).tobytes()[:-100]), "incomplete or damaged"),
    "absurd size": (one(Rows=65535, Columns=65535), "claims 65535 x 65535 pixels"),
    "no rows": (one(Rows=None), "lacks the description of its pixels"),
    "colour": (one(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "colour"),
    "32 bits": (one(BitsAllocated=32), "in a form that CT images do not use"),
    "many frames": ([enhanced(6, NumberOfFrames=2000000000)], "claims 2000000000 frames"),
    "more frames than pixels": ([enhanced(6, PixelData=b"\0" * 1000)], "incomplete or damaged"),
    "no functional groups": ([enhanced(6, PerFrameFunctionalGroupsSequence=None)], "lacks the geometry"),
    "dual energy": (twice(KVP="140"), "same places twice.*tube voltages"),
    "phases": (twice(AcquisitionNumber="2"), "same places twice.*contrast phases"),
    "two kernels": (twice(ConvolutionKernel="B70"), "convolution kernels"),
    "same UIDs, other pixels": (
        [*series(), ct_slice(3, PixelData=pixels(9).tobytes())],
        "same places twice with different images",
    ),
    "two fields of view": ([*series(), ct_slice(3, ImagePositionPatient=[-99, -99, -94])], "different centres"),
}


@pytest.mark.parametrize(("slices", "reason"), CASES.values(), ids=CASES)
def test_reason(tmp_path, slices, reason):
    paths = write(slices, tmp_path)
    with pytest.raises(NotAnalysable) as caught:
        read_volume(paths)
    message = str(caught.value)
    assert re.search(reason, message), message
    assert message.endswith(".")
    assert "secret" not in message.lower()
    assert len(re.findall(r"\. |\.$", message)) <= 2, "one or two sentences"


def test_truncated_file(tmp_path):
    paths = write(series(), tmp_path)
    whole = paths[3].read_bytes()
    for length in (0, 100, 140, 300, 700, len(whole) // 2, len(whole) - 1):
        paths[3].write_bytes(whole[:length])
        with pytest.raises(NotAnalysable):
            read_volume(paths)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_truncated_codestream(tmp_path, syntax):
    slices = series()
    for dataset in slices:
        dataset.compress(syntax, generate_instance_uid=False)
    paths = write(slices, tmp_path)
    assert read_volume(paths).voxels.shape[0] == 8
    whole = paths[3].read_bytes()
    for cut in (30, 100, 150):
        paths[3].write_bytes(whole[:-cut])
        with pytest.raises(NotAnalysable, match=r"incomplete or damaged|holds no pixel data"):
            read_volume(paths)


def test_codestream_that_claims_another_size(tmp_path):
    """Decoders allocate what the codestream says, not what the header says."""
    slices = series()
    for dataset in slices:
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    frame_header = slices[3].PixelData.index(b"\xff\xf7")
    data = bytearray(slices[3].PixelData)
    data[frame_header + 5 : frame_header + 9] = b"\xff\xff\xff\xff"
    slices[3].PixelData = bytes(data)
    slices[3]["PixelData"].is_undefined_length = True
    with pytest.raises(NotAnalysable, match="do not have the size"):
        read_volume(write(slices, tmp_path))


def test_wrong_value_representation(tmp_path):
    paths = write(series(), tmp_path)
    content = paths[3].read_bytes()
    broken = content.replace(b"\x20\x00\x32\x00DS", b"\x20\x00\x32\x00FD").replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00SQ")
    assert broken != content
    paths[3].write_bytes(broken)
    with pytest.raises(NotAnalysable):
        read_volume(paths)


def test_deflate_bomb_is_refused_before_it_unpacks(tmp_path, monkeypatch):
    monkeypatch.setattr(part10, "MAX_INFLATED", 1 << 24)
    slices = series()
    slices[3].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    paths = write(slices, tmp_path)
    assert read_volume(paths).voxels.shape[0] == 8
    content = paths[3].read_bytes()
    start = 128 + 4 + 12 + dcmread(paths[3]).file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    element = b"\xe1\x7f\x10\x00OB\0\0" + (64 << 20).to_bytes(4, "little")
    bomb = packer.compress(element + b"\0" * (64 << 20)) + packer.flush()
    paths[3].write_bytes(content[:start] + bomb)
    tracemalloc.start()
    with pytest.raises(NotAnalysable, match="unpacks to more"):
        read_volume(paths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 25


def test_too_many_voxels_are_refused_before_they_are_allocated(tmp_path, monkeypatch):
    monkeypatch.setattr("alnnode.imaging.series.MAX_VOXELS", 8 * 64 * 64 - 1)
    monkeypatch.setattr(np, "empty", None)
    with pytest.raises(NotAnalysable, match="too large: 8 slices of 64 x 64"):
        read_volume(write(series(), tmp_path))


def test_unknown_compression(tmp_path):
    slices = series()
    for dataset in slices:
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG-2
    with pytest.raises(NotAnalysable, match="cannot read"):
        read_volume(write(slices, tmp_path))


# Each was seen to raise something else than a reason.
MALFORMED = {
    "modality of odd length": (b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00FD"),
    "unknown representation": (b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00C\x02"),
    "series UID as numbers": (b"\x20\x00\x0e\x00UI", b"\x20\x00\x0e\x00FD"),
    "rows as text": (b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00PN"),
    "orientation as numbers": (b"\x20\x00\x37\x00DS", b"\x20\x00\x37\x00AT"),
    "transfer syntax as a name": (b"\x02\x00\x10\x00UI", b"\x02\x00\x10\x00PN"),
}


@pytest.mark.parametrize(("good", "bad"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_element(tmp_path, good, bad):
    paths = write(series(), tmp_path)
    content = paths[3].read_bytes()
    assert content.count(good) == 1
    paths[3].write_bytes(content.replace(good, bad))
    with pytest.raises(NotAnalysable):
        read_volume(paths)
