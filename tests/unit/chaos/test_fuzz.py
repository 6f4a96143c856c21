"""Bytes that no honest peer writes: every reader either reads them or refuses with its own exception."""

import pickle
import tracemalloc
import zlib
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import ct_series
import dicom_objects
import pytest
from bundles import write_bundle
from hostile import damage, edits
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence

from alnnode.errors import AlnnodeError, BundleError, NotAnalysable, RejectedObject
from alnnode.imaging import series
from alnnode.model import bundle as bundles
from alnnode.model.weights import load_tensors
from alnnode.receive import header
from alnnode.receive.header import Header

BOUNDED = settings(
    max_examples=200, deadline=timedelta(seconds=5), suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
SYNTAXES = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.90",
]
WHOLE = dicom_objects.data_set(dicom_objects.ct(1))


@BOUNDED
@given(edits, st.sampled_from(SYNTAXES), st.sampled_from([400, None]))
def test_headers_of_damaged_data_sets(changes, syntax, head) -> None:
    with suppress(RejectedObject):
        found = header.read(damage(WHOLE, changes, head=head), syntax, "AE")
        assert isinstance(found, Header)
        assert header.valid_uid(found.sop_instance_uid)


@BOUNDED
@given(st.binary(max_size=3000), st.sampled_from(SYNTAXES))
@example(b"", SYNTAXES[0])
def test_headers_of_any_bytes(data, syntax) -> None:
    with pytest.raises(RejectedObject):
        header.read(data, syntax, "AE")


@pytest.mark.parametrize("depth", [10, 2000])
def test_deep_nesting_is_read_or_refused(depth) -> None:
    opening = bytes.fromhex("08001511 53510000 ffffffff feff00e0 ffffffff".replace(" ", ""))
    data = WHOLE[:200] + opening * depth + WHOLE[200:]
    with pytest.raises(RejectedObject):
        header.read(data, SYNTAXES[0], "AE")


def test_a_deflated_bomb_costs_what_a_header_costs() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(WHOLE[:-100]) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    with suppress(RejectedObject):
        header.read(bomb, SYNTAXES[3], "AE")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("charset", [b"ISO 2022 IR 87", b"GB18030", b"no character set", b"\\\\\\\\", b"ISO_IR 192"])
def test_wrong_character_sets_give_text_or_nothing(charset) -> None:
    plain = dicom_objects.ct(1, SpecificCharacterSet="ISO_IR 100", SeriesDescription="ab\xe4 Thorax")
    value = charset.ljust(16)
    data = dicom_objects.data_set(plain).replace(b"CS\x0a\0ISO_IR 100", b"CS\x10\0" + value)
    assert value in data
    assert header.read(data, SYNTAXES[0], "AE").facts.series_description.isprintable()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ct_series.write([ct_series.ct_slice(k) for k in range(6)], tmp_path_factory.mktemp("series"))


@settings(BOUNDED, max_examples=120)
@given(edits, st.sampled_from([1200, None]))
def test_a_series_with_a_damaged_file_is_read_or_not_analysable(files, tmp_path_factory, changes, head) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    paths = [folder / path.name for path in files]
    for number, (source, path) in enumerate(zip(files, paths, strict=True)):
        data = source.read_bytes()
        path.write_bytes(damage(data, changes, head=head) if number == 1 else data)
    with suppress(NotAnalysable):
        series.read_volume(paths)
    with suppress(NotAnalysable):
        series.read_header(paths)


@pytest.fixture(scope="module")
def good_bundle(tmp_path_factory):
    pytest.importorskip("torch")
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@settings(BOUNDED, max_examples=150)
@given(st.data())
def test_damaged_bundles_are_refused(good_bundle, data) -> None:
    name = data.draw(st.sampled_from(sorted(path.name for path in good_bundle.iterdir())))
    original = (good_bundle / name).read_bytes()
    changed = damage(original, data.draw(edits), head=2000)
    # Weights are 14 MB: the folder of one example is removed before the next.
    with TemporaryDirectory() as at, suppress(BundleError):
        folder = Path(at)
        for path in good_bundle.iterdir():
            (folder / path.name).symlink_to(path)
        (folder / name).unlink()
        (folder / name).write_bytes(changed)
        loaded = bundles.load(folder)
        assert name == "manifest.json" or changed == original, "an altered file must not pass"
        for member in ("fsc", "asc"):
            load_tensors(loaded, member)


def test_weights_that_are_a_pickle_are_not_loaded(good_bundle, tmp_path) -> None:
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (type(ran).touch, (ran,))

    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in good_bundle.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "fsc.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(AlnnodeError):
        load_tensors(bundles.load(folder), "fsc")
    (folder / "weights.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(AlnnodeError):
        bundles.load(folder)
    assert not ran.exists()


def test_sequences_within_sequences_of_a_whole_object_are_refused_or_kept() -> None:
    inner = Dataset()
    inner.CodeValue = "1"
    for _ in range(60):
        outer = Dataset()
        outer.ConceptCodeSequence = Sequence([inner])
        inner = outer
    nested = dicom_objects.ct(1)
    nested.ReferencedImageSequence = Sequence([inner])
    found = header.read(dicom_objects.data_set(nested), SYNTAXES[0], "AE")
    assert found.sop_instance_uid == str(nested.SOPInstanceUID)
