"""Phantoms with realistic surroundings: strands as in CT, touching nodes, metal with streaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from alnnode.cli.app import app
from alnnode.phantom import Phantom, PhantomSettings, Surroundings, make_patient
from alnnode.phantom.axilla import Terrain, draw_terrain
from alnnode.phantom.canvas import Canvas
from alnnode.phantom.devices import draw_devices
from alnnode.phantom.settings import draw_habit
from alnnode.records import Side
from training.data.cohort import as_volume
from training.data.surroundings import strand_shares

if TYPE_CHECKING:
    from pathlib import Path

SMALL = PhantomSettings(
    size=256, slices=(50, 50), thickness_mm=(2.0, 2.0), spacing_mm=(1.4, 1.5), surroundings=Surroundings.AXILLA
)


@pytest.fixture(scope="module")
def crowded() -> Phantom:
    return make_patient(21, 3, PhantomSettings(**{**_as_dict(SMALL), "min_nodes_per_side": 8}))


def _as_dict(settings: PhantomSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


def test_the_share_of_strands_is_that_of_patients() -> None:
    # Nine patients have 0.10 to 0.22 on the two sides (docs/phantom.md); plain surroundings have less.
    shares = {
        kind: strand_shares(
            as_volume(make_patient(5001, 2, PhantomSettings(slices=(50, 50), thickness_mm=(3.0, 3.0), surroundings=kind)))
        )
        for kind in Surroundings
    }
    assert all(0.12 <= share <= 0.27 for share in shares[Surroundings.AXILLA])
    assert max(shares[Surroundings.PLAIN]) < min(shares[Surroundings.AXILLA]) - 0.03


def test_the_same_seed_gives_the_same_axillae(crowded: Phantom) -> None:
    again = make_patient(21, 3, PhantomSettings(**{**_as_dict(SMALL), "min_nodes_per_side": 8}))
    np.testing.assert_array_equal(again.hu, crowded.hu)
    np.testing.assert_array_equal(again.labels, crowded.labels)
    assert again.nodes == crowded.nodes


def test_every_node_has_its_label_and_its_side(crowded: Phantom) -> None:
    assert len(crowded.nodes) >= 10
    assert set(np.unique(crowded.labels)) == set(range(len(crowded.nodes) + 1))
    assert all((node.centre_mm[0] > crowded.habit.shift[0]) == (node.side is Side.LEFT) for node in crowded.nodes)


def test_nodes_touch_each_other_and_what_they_lie_on(crowded: Phantom) -> None:
    pairs, leaning = set(), 0
    for node in crowded.nodes:
        mask = crowded.labels == node.number
        shell = ndimage.binary_dilation(mask, np.ones((3, 3, 3))) & ~mask
        pairs |= {frozenset((node.number, int(other))) for other in np.unique(crowded.labels[shell]) if other}
        around = crowded.hu[shell & (crowded.labels == 0)]
        leaning += np.mean(around > 20) > 0.08
    assert len(pairs) >= 2
    assert leaning >= 1


def test_fatty_nodes_are_among_the_benign(crowded: Phantom) -> None:
    made = [crowded, make_patient(21, 4, SMALL), make_patient(21, 5, SMALL)]
    nodes = [node for phantom in made for node in phantom.nodes]
    thin = [node for node in nodes if node.hilum and node.cortex_mm <= 2 and node.mean_hu < -30]
    assert thin
    assert not any(node.malignant for node in thin if node.mean_hu < -50)


def test_a_port_and_clips_cast_streaks_in_their_own_slices() -> None:
    rng = np.random.default_rng(3)
    habit = draw_habit(rng, PhantomSettings(spacing_mm=(0.8, 0.8)))
    terrain = draw_terrain(rng, habit)
    chest = np.full((60, 512, 512), -100, np.float32)
    canvas = Canvas(chest, (-204.4, -204.4, -90.0), 0.8, 3.0)
    with_metal = Terrain(**{**{n: getattr(terrain, n) for n in terrain.__slots__}, "port": Side.LEFT, "clips": Side.RIGHT})
    draw_devices(canvas, habit, with_metal, rng)
    metal = chest > 1000
    # The port lies on the left (+x: high columns), the clips on the right.
    assert metal[:, :, 256:].any()
    assert metal[:, :, :256].any()
    dark = chest < -140
    bright = (chest > -60) & ~ndimage.binary_dilation(metal, iterations=4)
    slices = np.array(metal.any(axis=(1, 2)), ndmin=1)
    assert dark.any()
    assert bright.any()
    near = np.array(ndimage.binary_dilation(slices, iterations=2), ndmin=1)
    assert not dark[~near].any()
    assert not slices.all()


def test_the_command_draws_them_when_asked(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["phantom", str(tmp_path / "out"), "--seed", "21", "--axilla", "--nodes", "1", "2"])
    assert made.exit_code == 0, made.output
    (patient,) = json.loads((tmp_path / "out" / "truth.json").read_text())["patients"]
    settings = PhantomSettings(min_nodes_per_side=1, max_nodes_per_side=2, surroundings=Surroundings.AXILLA)
    drawn = make_patient(21, 0, settings)
    assert [node["centre_mm"] for node in patient["nodes"]] == [list(node.centre_mm) for node in drawn.nodes]
