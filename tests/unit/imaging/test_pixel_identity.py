"""The same image in another encoding, and what only looks like it."""

from pathlib import Path

import dicom_objects
import numpy as np
import pytest
from analyses import CONTEXT, analysis
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from alnnode import report
from alnnode.imaging import pixel_identity as sameness
from alnnode.imaging.pixel_identity import same

COMPRESSED = (JPEG2000Lossless, JPEGLSLossless, RLELossless)


def image(**changes: object) -> Dataset:
    made = dicom_objects.ct(side=64, **{"PixelPaddingValue": -2000, "PatientBirthDate": "19600102"} | changes)
    made["PixelPaddingValue"].VR = "SS"
    made.add_new(0x00091001, "UN", b"private")
    return made


def written(folder: Path, name: str, dataset: Dataset, syntax: str | None = None) -> Path:
    """Write it in a transfer syntax, its pixels re-encoded."""
    path = folder / f"{name}.dcm"
    if syntax in COMPRESSED or syntax == JPEGLSNearLossless:
        options = {"jls_error": 3} if syntax == JPEGLSNearLossless else {}
        dataset.compress(syntax, generate_instance_uid=False, **options)
    elif syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
            dataset["PixelData"].VR = "OW"
    plain = Dataset(dataset)  # without the encoding that it was read in
    plain.file_meta = dataset.file_meta
    plain.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, *COMPRESSED], ids=lambda s: s.name
)
def test_a_lossless_encoding_is_the_same_image(tmp_path: Path, syntax: str) -> None:
    first = written(tmp_path, "first", image())
    # What a PACS corrects on the way, and the character set in which it spells it.
    second = image(
        SeriesDescription="corrected", PatientName="SECRET^NAME^^ ", SpecificCharacterSet="ISO_IR 192", RescaleSlope="1.0"
    )
    second = written(tmp_path, "second", second, syntax)
    assert same(first, second)
    assert same(second, first)


def enhanced(spacing: float = 0.7) -> Dataset:
    """Return an Enhanced CT with private elements in its functional groups, as scanners write them."""
    inner, shared, frame = Dataset(), Dataset(), Dataset()
    inner.private_block(0x0021, "MAKER", create=True).add_new(1, "DS", "1.5")
    measures = Dataset()
    measures.PixelSpacing = [spacing, spacing]
    shared.PixelMeasuresSequence = [measures]
    shared.private_block(0x0021, "MAKER", create=True).add_new(2, "SQ", [inner])
    frame.private_block(0x0021, "MAKER", create=True).add_new(3, "FD", 2.5)
    return image(NumberOfFrames=1, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=[frame])


def test_private_elements_in_functional_groups_lose_their_vr_in_implicit_vr(tmp_path: Path) -> None:
    first = written(tmp_path, "first", enhanced())
    second = written(tmp_path, "second", enhanced(), ImplicitVRLittleEndian)
    assert same(first, second)
    assert same(second, first)
    assert not same(first, written(tmp_path, "third", enhanced(spacing=0.8), ImplicitVRLittleEndian))


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientID": "ANOTHER-ID"},
        {"PatientName": "ANOTHER^NAME"},
        {"PatientBirthDate": "19600103"},
        {"StudyInstanceUID": "1.2.3"},
        {"ImagePositionPatient": [0, 0, 2]},
        {"RescaleIntercept": -1000},
        {"Rows": 32, "Columns": 128},
        {"PixelData": np.zeros((64, 64), np.int16).tobytes()},
        {"PixelData": b"\0" * 100},
        {"Rows": 60000, "Columns": 60000},
    ],
    ids="-".join,
)
def test_a_real_difference_is_another_image(tmp_path: Path, changes: dict[str, object]) -> None:
    first = written(tmp_path, "first", image())
    second = written(tmp_path, "second", image(**changes), ImplicitVRLittleEndian)
    assert not same(first, second)
    assert not same(second, first)


def test_a_lossy_encoding_is_another_image_and_so_is_what_nobody_can_read(tmp_path: Path) -> None:
    first = written(tmp_path, "first", image())
    lossy = written(tmp_path, "lossy", image(), JPEGLSNearLossless)
    assert not np.array_equal(dcmread(lossy).pixel_array, dcmread(first).pixel_array)
    assert not same(first, lossy)
    (tmp_path / "broken.dcm").write_bytes(first.read_bytes()[:200])
    assert not same(first, tmp_path / "broken.dcm")
    with pytest.raises(FileNotFoundError):
        same(first, tmp_path / "absent.dcm")


def test_what_is_too_large_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [written(tmp_path, name, image()) for name in ("first", "second")]
    assert same(*paths)
    monkeypatch.setattr(sameness, "MAX_BYTES", 1000)
    assert not same(*paths)


def test_a_document_is_the_same_when_all_that_is_public_in_it_is(tmp_path: Path) -> None:
    first = tmp_path / "first.dcm"
    first.write_bytes(report.build(analysis(0), CONTEXT)[0].data)
    second = dcmread(first)
    second.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    second.save_as(tmp_path / "second.dcm", enforce_file_format=True)
    assert same(first, tmp_path / "second.dcm")
    second.ContentSequence[-1].ContentSequence[0].TextValue = "something else"
    second.save_as(tmp_path / "third.dcm", enforce_file_format=True)
    assert not same(first, tmp_path / "third.dcm")
