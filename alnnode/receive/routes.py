"""Choose the series that are analysed: those for which every condition of a route holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode import RESULTS
from alnnode.records.priority import Priority
from alnnode.settings.patterns import is_found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.db.rows import SeriesFacts
    from alnnode.settings import Route


def unwanted(routes: Sequence[Route], facts: SeriesFacts) -> str | None:
    """Return why no route selects the series, without its descriptions, which can hold patient data; None when a route selects it.

    No route selects results of this software: archives send them back, and they must not be analysed.
    """
    if facts.series_description.startswith(RESULTS):
        return "holds results of this software"
    reasons = []
    for route in routes:
        reason = mismatch(route, facts)
        if reason is None:
            return None
        reasons.append(f"{route.name}: {reason}")
    return "no route asks for this series (" + "; ".join(reasons or ["there are no routes"]) + ")"


def priority(routes: Sequence[Route], facts: SeriesFacts) -> Priority:
    """Return the priority of the first route that selects the series; MEDIUM when none does."""
    return next((Priority.named(route.priority) for route in routes if mismatch(route, facts) is None), Priority.MEDIUM)


def mismatch(route: Route, facts: SeriesFacts) -> str | None:
    """Return the condition of a route that does not hold for a series; None when all hold.

    A route whose expressions take too long does not select the series, whose sender would otherwise stop the sweep.
    """
    try:
        return _mismatch(route, facts)
    except TimeoutError:
        return "an expression takes too long; simplify description, exclude_description or kernel"


def _mismatch(route: Route, facts: SeriesFacts) -> str | None:
    thickness = facts.slice_thickness
    descriptions = (facts.series_description, facts.study_description)
    checks = (
        (_listed(route.modalities, facts.modality), f"modality is {facts.modality or 'not given'}"),
        (_listed(route.calling_ae_titles, facts.calling_ae), "sent by another AE"),
        (_listed(route.body_parts, facts.body_part), f"body part is {facts.body_part or 'not given'}"),
        (not route.description or _found(route.description, descriptions), "the description does not match"),
        (not route.exclude_description or not _found(route.exclude_description, descriptions), "the description is excluded"),
        (not route.kernel or _found(route.kernel, (facts.kernel,)), "the convolution kernel does not match"),
        (
            thickness is None or route.slice_thickness[0] <= thickness <= route.slice_thickness[1],
            f"slices are {thickness} mm thick",
        ),
    )
    return next((reason for holds, reason in checks if not holds), None)


def _listed(allowed: Sequence[str], value: str) -> bool:
    return not allowed or value.upper() in {item.upper() for item in allowed}


def _found(pattern: str, texts: Sequence[str]) -> bool:
    return any(is_found(pattern, text) for text in texts)
