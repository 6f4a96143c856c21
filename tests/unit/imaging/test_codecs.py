"""JPEG codecs: their choice, and damaged codestreams that end the process of a codec."""

import numpy as np
import pytest
from ct_series import SIDE, changed, ct_slice, pixels, write
from jpeg import lossless, twelve_bits
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders import (
    JPEGBaseline8BitDecoder,
    JPEGExtended12BitDecoder,
    JPEGLosslessDecoder,
    JPEGLosslessSV1Decoder,
)
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from alnnode.errors import NotAnalysable
from alnnode.imaging import codecs, stored_image
from alnnode.imaging.pixel_identity import same
from alnnode.imaging.series import read_volume

OF_LIBJPEG = (JPEGBaseline8BitDecoder, JPEGExtended12BitDecoder, JPEGLosslessDecoder, JPEGLosslessSV1Decoder)


@pytest.fixture
def without_libjpeg():
    """An installation without the extra."""
    removed = [decoder for decoder in OF_LIBJPEG if "pylibjpeg" in decoder.available_plugins]
    for decoder in removed:
        decoder.remove_plugin("pylibjpeg")
    yield
    for decoder in removed:
        decoder.add_plugin("pylibjpeg", ("pydicom.pixels.decoders.pylibjpeg", "_decode_frame"))


def compressed(folder, syntax, frame, **changes):
    """The paths of six slices with the codestreams ``frame(k)``."""
    slices = [changed(ct_slice(k, PixelData=encapsulate([frame(k)])), **changes) for k in range(6)]
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].is_undefined_length = True
    return write(slices, folder)


def hu(k):
    return pixels(k).astype(np.int16) - 1024


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_lossless_jpeg(tmp_path, syntax) -> None:
    np.testing.assert_array_equal(
        read_volume(compressed(tmp_path, syntax, lambda k: lossless(pixels(k)))).voxels, [hu(k) for k in range(6)]
    )


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_lossless_jpeg_without_the_extra(tmp_path, syntax, without_libjpeg) -> None:
    pytest.importorskip("gdcm")
    assert codecs.installed(syntax) == ("gdcm",)
    np.testing.assert_array_equal(
        read_volume(compressed(tmp_path, syntax, lambda k: lossless(pixels(k)))).voxels, [hu(k) for k in range(6)]
    )


def test_a_codestream_that_ends_its_codec_is_damaged_and_nothing_else_ends(tmp_path, without_libjpeg) -> None:
    """Bytes between two segments make GDCM 3.2.6 call ``abort``."""
    pytest.importorskip("gdcm")
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        folder.mkdir()
    sound = compressed(good, JPEGLosslessSV1, lambda k: lossless(pixels(k)))
    damaged = compressed(bad, JPEGLosslessSV1, lambda k: lossless(pixels(k), before_scan=bytes(13) if k == 2 else b""))
    for _ in range(2):
        with pytest.raises(NotAnalysable, match="incomplete or damaged"):
            read_volume(damaged)
        with pytest.raises(stored_image.DamagedImageError):
            stored_image.open_image(damaged[2]).pixels(1)
        assert not same(sound[2], damaged[2])
    np.testing.assert_array_equal(read_volume(sound).voxels[2], hu(2))


def test_an_installed_extra_is_used(tmp_path) -> None:
    pytest.importorskip("libjpeg")
    assert codecs.installed(JPEGLosslessSV1) == ("pylibjpeg",)
    paths = compressed(tmp_path, JPEGExtended12Bit, lambda _: twelve_bits(SIDE), BitsStored=12, HighBit=11)
    assert (read_volume(paths).voxels == 1024).all()


def test_12_bit_lossy_jpeg_without_the_extra_is_refused_in_words(tmp_path, without_libjpeg) -> None:
    paths = compressed(tmp_path, JPEGExtended12Bit, lambda _: twelve_bits(SIDE), BitsStored=12, HighBit=11)
    with pytest.raises(NotAnalysable, match=r"12-bit lossy JPEG.*alnnode\[libjpeg\]"):
        read_volume(paths)


def test_the_extra_of_the_words_exists() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    assert [name.partition(">")[0] for name in project["optional-dependencies"][codecs.EXTRA]] == ["pylibjpeg-libjpeg"]
    assert not any("libjpeg" in name.partition(">")[0].removeprefix("pylibjpeg") for name in project["dependencies"])
