"""Comparison of a series with a prior report of the same patient: what the prior report says, and the result.

A report holds, in a private element, all that a later comparison needs (`alnnode.report.sr.prior_record`). So a comparison needs
neither the prior images nor objects of another manufacturer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date  # noqa: TC003 - pydantic evaluates it
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from alnnode.records.nodes import Side  # noqa: TC001 - pydantic evaluates it

# mm, of the change of a short axis: 95 % of the nodes of phantoms lie within it. `make follow-up` measures it and fails when it no longer holds.
SHORT_AXIS_CHANGE_ERROR_MM = 1.4
MAX_NODES = 200
MAX_SURFACE = 600

Millimetre = Annotated[float, Field(ge=-5000, le=5000, allow_inf_nan=False)]
Length = Annotated[float, Field(ge=0, le=500, allow_inf_nan=False)]
Point = tuple[Millimetre, Millimetre, Millimetre]
UID = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]


class _ArchivedRecord(BaseModel):
    """Base of records that are read from archives, which anybody can write to: all values are bounded, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PriorNode(_ArchivedRecord):
    """One node of a prior report; ``centre`` in the patient coordinates of the prior series (mm, LPS), ``probability`` 0 to 1."""

    tracking_uid: UID
    number: Annotated[int, Field(ge=1, le=1000)]
    side: Side
    centre: Point
    long_axis_mm: Length
    short_axis_mm: Length
    probability: Annotated[float, Field(ge=0, le=1)]


class ComparisonRecord(_ArchivedRecord):
    """What a report stores of itself for later comparisons.

    Attributes:
        model_digest: sha256 (hex) of the bundle; probabilities of different models are not compared.
        slice_mm: distance between slices.
        surface: points on the surface of the chest cavity, mm, LPS: a later series is registered to them.
        covered: the axillae that the series covered.
        more_found: whether the search found more nodes than the report lists.
    """

    version: Annotated[int, Field(ge=1, le=1)] = 1
    model_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    slice_mm: Length
    surface: Annotated[tuple[Point, ...], Field(max_length=MAX_SURFACE)]
    covered: tuple[Side, ...]
    more_found: bool = False
    nodes: Annotated[tuple[PriorNode, ...], Field(max_length=MAX_NODES)]


class PriorReport(_ArchivedRecord):
    """A prior report of the same patient.

    Attributes:
        made: content date and time, "YYYYMMDDhhmmss", in UTC if the report has an offset from UTC; orders the reports of one series.
        supersedes: SOP Instance UIDs of the reports that it replaces.
    """

    sop_class_uid: UID
    sop_instance_uid: UID
    series_instance_uid: UID
    study_instance_uid: UID
    study_date: date
    record: ComparisonRecord
    made: Annotated[str, Field(pattern=r"^([0-9]{14})?$")] = ""
    supersedes: Annotated[tuple[UID, ...], Field(max_length=MAX_NODES)] = ()

    @property
    def digest(self) -> str:
        """sha256 (hex) over all values that a comparison reads."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PriorLookup:
    """Result of the search for a prior report.

    Attributes:
        report: the report to compare with; None when none was found.
        trouble: why a report, or a more recent one, may be missing; None when all sources answered.
    """

    report: PriorReport | None = None
    trouble: str | None = None

    def digest_with(self, input_digest: str) -> str:
        """Return the digest (sha256, hex) of the input together with the prior report: another prior report gives another result."""
        if self.report is None and self.trouble is None:
            return input_digest
        parts = (None if self.report is None else self.report.digest, self.trouble)
        compared_with = "\n".join(part for part in parts if part is not None)
        return hashlib.sha256(f"{input_digest}\n{compared_with}".encode()).hexdigest()


class Change(StrEnum):
    """Whether the prior report lists a node."""

    SEEN = "seen before"
    NEW = "new"
    UNCERTAIN = "not determined"


class Growth(StrEnum):
    """How a short axis changed since the prior report."""

    LARGER = "larger"
    SMALLER = "smaller"
    WITHIN_ERROR = "within measurement error"


@dataclass(frozen=True, slots=True)
class NodeChange:
    """One node of the series, and the node of the prior report that it matches; None where it matches none."""

    change: Change
    prior_node: PriorNode | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One series compared with a prior report.

    Attributes:
        prior: None when there is none; ``trouble`` then says why one may be missing.
        days: from the prior study to this one.
        same_model: whether probabilities can be compared.
        nodes: the change of each node of this series, by its number; empty when ``trouble`` says why nothing could be compared.
        no_longer_found: nodes of the prior report that were not found although the series shows their place and all found nodes are reported.
        not_compared: nodes of the prior report whose place the series does not show, that match several nodes, or that may be among
            the nodes that are not reported.
        trouble: why nothing was compared; None when nodes were compared.
        incomplete: why a more recent report than ``prior`` may be missing; None when all sources answered.
    """

    prior: PriorReport | None
    days: int
    same_model: bool
    nodes: dict[int, NodeChange]
    no_longer_found: tuple[PriorNode, ...] = ()
    not_compared: tuple[PriorNode, ...] = ()
    trouble: str | None = None
    incomplete: str | None = None
