"""Routes select series: each condition can exclude one, and a reason contains no patient data."""

import re

import pytest
from pydantic import ValidationError

from alnnode import RESULTS
from alnnode.db.rows import SeriesFacts
from alnnode.receive.routes import priority, unwanted
from alnnode.records.priority import Priority
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


@pytest.mark.parametrize("pattern", ["(a|a)*$", "(ch|c|h)+$"])
def test_an_expression_that_takes_exponential_time_is_refused_with_advice(pattern) -> None:
    with pytest.raises(ValidationError, match="takes too long"):
        Route(name="r", description=pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "chest|thorax", "^(?!.*lung).*chest", ".*.*.*chest", "(soft|lung)+ 1\\.0", ""])
def test_an_expression_that_ends_in_time_is_accepted(pattern) -> None:
    assert Route(name="r", description=pattern).description == pattern


@pytest.mark.parametrize("pattern", ["chest{e<=1}", "(chest|lung){e}", "[a-z]{1i+1d<=2}", "\\d{s<=1:[0-9]}", "{e}", "[]{]{e}"])
def test_an_approximate_match_is_refused_with_advice(pattern) -> None:
    """The package regex searches for similar texts here, and re for the text as it stands."""
    with pytest.raises(ValidationError, match=r"is not a number of repetitions; to find this text, write \\\{"):
        Route(name="r", description=pattern)


ALIKE = [
    "a{2}",
    "a{,2}b",
    "a{2,}",
    "\\{e<=1}",
    "[{e<=1}]",
    "[]{e}]",
    "{LUNG}",
    "a{ 2}",
    "^(?!.*lung).*chest",
    "(?i:lung)",
    "[[a]b]",
    "x*+y",
    "(?s:a.b)",
]
TEXTS = [
    "a",
    "aa",
    "aab",
    "ab]",
    "lung",
    "{lung}",
    "a{ 2}",
    "{e<=1}",
    "{",
    "e",
    "1",
    "hires chest",
    "lung chest",
    "xxy",
    "a\nb",
    "a]",
    "",
]


@pytest.mark.parametrize("pattern", ALIKE)
def test_an_accepted_expression_finds_what_re_finds(pattern) -> None:
    route = Route(name="r", description=pattern)
    for text in TEXTS:
        selected = unwanted([route], SeriesFacts(modality="CT", series_description=text)) is None
        assert selected == bool(re.search(pattern, text, re.IGNORECASE) or re.search(pattern, "", re.IGNORECASE)), text


def test_a_posix_class_has_its_usual_meaning() -> None:
    route = Route(name="r", description="^[[:alpha:]]+ [[:digit:]]$")
    assert unwanted([route], SeriesFacts(modality="CT", series_description="Thörax 1")) is None
    assert unwanted([route], SeriesFacts(modality="CT", series_description="Thorax a")) is not None


@pytest.mark.parametrize("key", ["description", "exclude_description", "kernel"])
def test_a_series_for_which_an_expression_takes_too_long_is_skipped_with_a_reason(key) -> None:
    """The check of the settings cannot know every text that a sender writes."""
    slow = Route(name="slow").model_copy(update={key: "(q|q)*$"})
    facts = SeriesFacts(modality="CT", series_description="q" * 60 + "!", kernel="q" * 60 + "!")
    assert "slow: an expression takes too long" in unwanted([slow], facts)
    assert unwanted([slow, Route(name="fast")], facts) is None
    assert priority([slow, Route(name="fast", priority="high")], facts) is Priority.HIGH
