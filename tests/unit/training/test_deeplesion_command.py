"""The command of the DeepLesion benchmark and the images that it reads, on data of that form made from phantoms."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from deeplesion_data import DataSet, patient
from PIL import Image
from typer.testing import CliRunner

from alnnode.locate.measure import node_from_mask
from alnnode.records import AxillaCoverage, Side
from training.__main__ import COMMANDS
from training.deeplesion import command, search
from training.deeplesion.errors import DeepLesionError
from training.deeplesion.images import images_folder, missing_images, read_slice, read_subvolume
from training.deeplesion.search import Searcher
from training.deeplesion.selection import SubVolume

# --- images


@pytest.fixture(scope="module")
def made():
    return patient(3)


@pytest.fixture(scope="module")
def images_of_two(tmp_path_factory, made):
    set_ = DataSet(tmp_path_factory.mktemp("images"))
    for series in ("000003_01_01", "000004_01_01"):
        set_.add_series(series, made, 4, 16)
    return set_.folder


@pytest.fixture
def data(tmp_path, made, images_of_two):
    """Two patients: the first with two lesions on one sub-volume, the second with one."""
    set_ = DataSet(shutil.copytree(images_of_two, tmp_path / "data"))
    set_.add_node("000003_01_01", made, 0, (4, 16))
    set_.add_node("000003_01_01", made, 2, (4, 16))
    set_.add_node("000004_01_01", made, 0, (4, 16))
    set_.write()
    return set_


SUB_OF_DATA = SubVolume("000003_01_01", 3, 4, 16, (5.0, 1.4, 1.4), ())


def test_a_subvolume_is_the_phantom_in_hounsfield_units_whichever_end_comes_first(tmp_path, made, data):
    images = images_folder(data.folder)
    assert images == data.folder / "Images_png"
    volume = read_subvolume(images, SUB_OF_DATA, head_first=True)
    assert np.array_equal(volume.voxels, made.hu[24:37])
    assert volume.voxels.dtype == np.int16
    assert volume.spacing == made.spacing
    assert np.allclose(volume.affine[:3, :3], made.affine[:3, :3])
    assert [ref.image_number for ref in volume.slices] == list(range(16, 3, -1))
    assert "supine assumed" in volume.notes[0]
    # The same patient, numbered from the feet.
    turned = tmp_path / "turned" / "000003_01_01"
    turned.mkdir(parents=True)
    for number in range(4, 17):
        (turned / f"{number:03d}.png").write_bytes((images / "000003_01_01" / f"{20 - number:03d}.png").read_bytes())
    assert images_folder(turned.parent) == turned.parent
    again = read_subvolume(turned.parent, SUB_OF_DATA, head_first=False)
    assert np.array_equal(again.voxels, volume.voxels)
    assert [ref.image_number for ref in again.slices] == list(range(4, 17))
    wrong = read_subvolume(turned.parent, SUB_OF_DATA, head_first=True)
    assert np.array_equal(wrong.voxels, volume.voxels[::-1])


def test_images_that_cannot_be_used_are_named(tmp_path, data):
    images = images_folder(data.folder)
    assert missing_images(images, [SUB_OF_DATA]) == {}
    (images / "000003_01_01" / "007.png").unlink()
    assert missing_images(images, [SUB_OF_DATA]) == {SUB_OF_DATA.name: ["007.png"]}
    with pytest.raises(DeepLesionError, match=r"Cannot read .*007\.png"):
        read_subvolume(images, SUB_OF_DATA, head_first=True)
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(images / "000003_01_01" / "007.png")
    with pytest.raises(DeepLesionError, match="images 4 to 16 have different sizes"):
        read_subvolume(images, SUB_OF_DATA, head_first=True)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(DeepLesionError, match="not a 16-bit greyscale PNG"):
        read_slice(tmp_path / "grey.png")
    (tmp_path / "cut.png").write_bytes((images / "000003_01_01" / "008.png").read_bytes()[:900])
    with pytest.raises(DeepLesionError, match=r"cut\.png"):
        read_slice(tmp_path / "cut.png")


# --- the command


@pytest.fixture
def truth(monkeypatch, made):
    """Let the search find the phantom's true nodes, and one false positive; return the list of calls."""
    calls = []

    def locate_nodes(anatomy, detector, limits):
        volume = anatomy.volume
        calls.append(volume.slices[0].image_number)
        labels = np.zeros(volume.voxels.shape, made.labels.dtype)
        for k, plane in enumerate(volume.voxels):
            # A slice in another position holds no node.
            if np.array_equal(plane, made.hu[24 + k]):
                labels[k] = made.labels[24 + k]
        masks = {n.number: labels == n.number for n in made.nodes}
        nodes = [
            replace(node_from_mask(volume, mask, (0, 0, 0), Side.RIGHT, 1), score=round(0.5 + number / 100, 4))
            for number, mask in masks.items()
            if mask.any()
        ]
        elsewhere = np.zeros(volume.voxels.shape, bool)
        elsewhere[4:7, 5:15, 5:15] = True
        nodes.append(replace(node_from_mask(volume, elsewhere, (0, 0, 0), Side.LEFT, 1), score=0.9))
        return nodes

    coverage = tuple(AxillaCoverage(side, covered=False) for side in (Side.RIGHT, Side.LEFT))
    monkeypatch.setattr(search, "ChestAnatomy", lambda volume: SimpleNamespace(volume=volume, coverage=coverage))
    monkeypatch.setattr(search, "locate_nodes", locate_nodes)
    monkeypatch.setattr(command, "Detector", SimpleNamespace(from_bundle=lambda bundle: None))
    return calls


def run(data, *options):
    app = typer.Typer()
    app.command()(command.deeplesion)
    work = data.folder.parent / "work"
    arguments = ["--data", data.folder, "--labels", data.labels, "--work", work, "--out", data.folder.parent / "out", *options]
    return CliRunner().invoke(app, [str(option) for option in arguments])


def figures_of(data):
    return json.loads((data.folder.parent / "out" / "deeplesion.json").read_text(encoding="utf-8"))


def test_the_command_is_registered():
    assert COMMANDS["deeplesion"].module == "training.deeplesion.command"


def test_the_command_prints_and_writes_recall(data, truth):
    result = run(data, "--misses")
    assert result.exit_code == 0, result.output
    # Every lesion is hit. Each sub-volume has one false positive, and true nodes without an annotation.
    figures = figures_of(data)
    assert (figures["lesions"], figures["subvolumes"], figures["patients"]) == (3, 2, 2)
    assert figures["measures"]["IoU"]["recall"]["8"] == [1.0, 1.0, 1.0]
    assert figures["measures"]["IoU"]["hit_at_any_score"] == 3
    assert figures["measures"]["IoU"]["false_positives_at_lowest_score"] >= 1
    assert figures["series_against_that_order"] == [0, 0]
    assert [(one["lesion"], one["IoU"]) for one in figures["best_scores"]] == [(0, 0.51), (1, 0.53), (2, 0.51)]
    page = (data.folder.parent / "out" / "deeplesion.md").read_text(encoding="utf-8")
    assert "| recall, IoU ≥ 0.5 | " in page
    assert "| recall, IoU ≥ 0.5 | " in result.output
    assert "Only lesions that a radiologist bookmarked are annotated" in page
    assert "With fewer than 10 patients" in page
    assert "0 missed lesions" in result.output
    assert not (data.folder.parent / "out" / "misses.png").exists()


def test_images_in_the_wrong_order_find_nothing_and_the_lesions_tell(data, truth, made):
    data.add_node("000003_01_01", made, 1, (4, 16), Normalized_lesion_location="0.3, 0.4, 0.9")
    data.rows[-1] |= {"Key_slice_index": "4", "File_name": "000003_01_01_004.png"}
    data.rows[0] |= {"Key_slice_index": "12", "File_name": "000003_01_01_012.png"}
    data.write()
    assert run(data, "--first-slice", "feet", "--misses").exit_code == 0
    figures = figures_of(data)
    # Slice 10 of 4 to 16 is the middle, and stays where it is.
    assert [one["IoU"] for one in figures["best_scores"]] == [0.0, 0.0, 0.0, 0.51]
    assert figures["first_slice"] == "feet"
    assert figures["series_against_that_order"] == [0, 1]
    assert (data.folder.parent / "out" / "misses.png").stat().st_size > 1000
    assert run(data).exit_code == 0
    assert figures_of(data)["series_against_that_order"] == [1, 1]


def test_a_second_run_uses_the_stored_results(data, truth):
    assert run(data, "--limit", "1").exit_code == 0
    assert len(truth) == 1
    assert figures_of(data)["limited"]
    assert run(data).exit_code == 0
    assert len(truth) == 2
    assert not figures_of(data)["limited"]
    first = figures_of(data)
    assert run(data).exit_code == 0
    assert len(truth) == 2
    assert figures_of(data) == first
    # A truncated result, and the result of other images, are computed again.
    stored = sorted((data.folder.parent / "work").iterdir())
    assert [path.name for path in stored] == ["000003_01_01_004-016.json", "000004_01_01_004-016.json"]
    stored[0].write_text(stored[0].read_text(encoding="utf-8")[:100], encoding="utf-8")
    image = data.folder / "Images_png" / "000004_01_01" / "016.png"
    Image.fromarray(np.full((256, 256), 32768, np.uint16)).save(image)
    assert run(data).exit_code == 0
    assert len(truth) == 4


def test_another_bundle_is_searched_again(data, truth):
    searcher = Searcher(data.folder / "Images_png", data.folder / "work", None, "a" * 64)
    assert searcher.search(SUB_OF_DATA) == searcher.search(SUB_OF_DATA)
    assert len(truth) == 1
    replace(searcher, bundle="b" * 64).search(SUB_OF_DATA)
    replace(searcher, head_first=False).search(SUB_OF_DATA)
    assert len(truth) == 3


def test_missing_images_stop_the_command_without_skip_missing(data, truth):
    (data.folder / "Images_png" / "000003_01_01" / "016.png").unlink()
    result = run(data)
    assert isinstance(result.exception, DeepLesionError)
    assert "1 of 2 sub-volumes are incomplete" in str(result.exception)
    assert "000003_01_01_004-016 lacks 1 image (016.png)" in str(result.exception)
    assert truth == []
    assert run(data, "--skip-missing").exit_code == 0
    figures = figures_of(data)
    assert (figures["subvolumes"], figures["incomplete_subvolumes"]) == (1, 1)
    (data.folder / "Images_png" / "000004_01_01" / "016.png").unlink()
    assert "2 of 2 sub-volumes" in str(run(data, "--skip-missing").exception)


def test_the_node_itself_searches_a_subvolume(data):
    # The shipped detector finds this node of this phantom. This is not a figure: it shows that search, slices and boxes fit together.
    assert run(data, "--limit", "1").exit_code == 0
    figures = figures_of(data)
    assert figures["subvolumes_without_lungs"] == 0
    assert figures["best_scores"][0]["IoU"] > 0.1
