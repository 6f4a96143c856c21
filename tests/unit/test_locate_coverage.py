"""What a series shows of the axillae: cut at every side, above and below, in every position; what is lost is never called covered."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from alnnode import phantom
from alnnode.locate import candidates
from alnnode.locate.site import Site
from alnnode.phantom import Arms, PhantomSettings, Position
from alnnode.records import SliceRef, Volume


def volume_of(hu, affine, spacing) -> Volume:
    return Volume(hu, affine, tuple(SliceRef("", "", None, (0, 0, 0)) for _ in hu), Dataset(), spacing)


@pytest.fixture(scope="module")
def made():
    settings = PhantomSettings(
        size=256,
        slices=(70, 70),
        thickness_mm=(3.0, 3.0),
        spacing_mm=(1.6, 1.6),
        min_nodes_per_side=2,
        max_nodes_per_side=5,
        position=Position.HFS,
        arms=Arms.UP,
        padding=False,
    )
    return phantom.make_patient(8800, 0, settings)


def test_an_axilla_without_fat_has_no_candidates_and_is_no_error(made) -> None:
    hu = made.hu.copy()
    hu[(hu > -250) & (hu < 40)] = 40
    found, coverage = candidates.survey(Site(volume_of(hu, made.affine, made.spacing)))
    assert found == []
    assert len(coverage) == 2
