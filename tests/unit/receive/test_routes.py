"""Routes select series: each condition can exclude one, and a reason contains no patient data."""

import pytest

from alnnode import RESULTS
from alnnode.db.rows import SeriesFacts
from alnnode.receive.routes import unwanted
from alnnode.settings import Route

SERIES = SeriesFacts(
    calling_ae="CT1",
    modality="CT",
    body_part="CHEST",
    series_description="Thorax DOE^JANE",
    study_description="Breast",
    kernel="Br40",
    slice_thickness=1.0,
)
# For each key of a route: a value that selects the series, one that excludes it, and the reason.
CONDITIONS = {
    "modalities": (["CT"], ["MR"], "modality is CT"),
    "calling_ae_titles": (["ct1"], ["CT2"], "sent by another AE"),
    "body_parts": (["CHEST"], ["BREAST"], "body part is CHEST"),
    "description": ("breast", "abdomen", "the description does not match"),
    "exclude_description": ("lung", "doe", "the description is excluded"),
    "kernel": ("^Br", "^Bl", "the convolution kernel does not match"),
    "slice_thickness": ((0.5, 2), (2, 5), "slices are 1.0 mm thick"),
}


def test_every_condition_has_an_example() -> None:
    assert set(CONDITIONS) == set(Route.model_fields) - {"name", "priority"}


@pytest.mark.parametrize("key", CONDITIONS)
def test_each_condition_selects_and_excludes(key) -> None:
    selecting, excluding, reason = CONDITIONS[key]
    assert unwanted([Route(name="r", **{key: selecting})], SERIES) is None
    assert unwanted([Route(name="r", **{key: excluding})], SERIES) == f"no route asks for this series (r: {reason})"


def test_one_route_that_selects_the_series_is_enough() -> None:
    assert unwanted([Route(name="a", modalities=["MR"]), Route(name="b")], SERIES) is None
    assert unwanted([], SERIES) == "no route asks for this series (there are no routes)"


def test_results_of_this_software_are_never_selected() -> None:
    assert unwanted([Route(name="r")], SeriesFacts(modality="CT", series_description=f"{RESULTS[0]} 4")) is not None
