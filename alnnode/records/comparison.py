"""What travels when a series is compared with an earlier one of the same patient: the earlier report's own figures, and the outcome.

An earlier report says of itself, in a private element, all that a comparison needs (`alnnode.report.sr.prior_record`), so that neither its images nor
anything of another vendor has to be at hand.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alnnode.records import Side  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset

    from alnnode.records import Node, Volume

# Of the change of a short axis, mm: 95 % of the nodes of phantoms lie within it. `make follow-up` measures it, and fails where it no longer holds.
SHORT_AXIS_CHANGE_ERROR_MM = 1.4
MAX_NODES = 200
MAX_SURFACE = 600

Millimetre = Annotated[float, Field(ge=-5000, le=5000, allow_inf_nan=False)]
Length = Annotated[float, Field(ge=0, le=500, allow_inf_nan=False)]
Point = tuple[Millimetre, Millimetre, Millimetre]
UID = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]


class _Frozen(BaseModel):
    """Read from archives that anybody writes to: bounded, and nothing else in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EarlierNode(_Frozen):
    """One node as an earlier report gave it; ``centre`` in its patient coordinates (mm, LPS), ``probability`` 0 to 1."""

    tracking_uid: UID
    number: Annotated[int, Field(ge=1, le=1000)]
    side: Side
    centre: Point
    long_axis_mm: Length
    short_axis_mm: Length
    probability: Annotated[float, Field(ge=0, le=1)]


class Record(_Frozen):
    """What a report says of itself for later comparisons.

    Attributes:
        model_digest: sha256 (hex) of the bundle: probabilities of another model are not compared.
        slice_mm: distance of the slices.
        surface: points on the surface of the chest cavity, mm, LPS: what a later series is registered to.
        covered: the axillae that the series showed in full.
        more_found: whether the search found more nodes than the report holds.
    """

    version: Annotated[int, Field(ge=1, le=1)] = 1
    model_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    slice_mm: Length
    surface: Annotated[tuple[Point, ...], Field(max_length=MAX_SURFACE)]
    covered: tuple[Side, ...]
    more_found: bool = False
    nodes: Annotated[tuple[EarlierNode, ...], Field(max_length=MAX_NODES)]


class Prior(_Frozen):
    """An earlier report of the same patient.

    Attributes:
        made: its content date and time, "YYYYMMDDhhmmss", in UTC as far as it tells its offset: which of two reports is the newer.
        supersedes: SOP Instance UIDs of the reports that it replaces.
    """

    sop_class_uid: UID
    sop_instance_uid: UID
    series_instance_uid: UID
    study_instance_uid: UID
    study_date: date
    record: Record
    made: Annotated[str, Field(pattern=r"^([0-9]{14})?$")] = ""
    supersedes: Annotated[tuple[UID, ...], Field(max_length=MAX_NODES)] = ()

    @property
    def digest(self) -> str:
        """sha256 (hex) over everything that a comparison reads."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def place(volume: Volume, node: Node) -> Point:
    """Return the centre of a node in patient coordinates, mm LPS: of its mask, or of its box where there is none."""
    if node.mask is None:
        return volume.patient_point(*node.box.centre)
    k, j, i = (float(low + mean) for low, mean in zip(node.box.low, np.argwhere(node.mask).mean(axis=0), strict=True))
    return volume.patient_point(k, j, i)


def study_date(header: Dataset) -> date | None:
    """Return the Study Date; None where it is missing or no date."""
    try:
        return datetime.strptime(str(header.get("StudyDate") or ""), "%Y%m%d").date()  # noqa: DTZ007 - a DA has no zone
    except ValueError:
        return None


def thickness(header: Dataset) -> float:
    """Return the Slice Thickness, mm; 0 where it is missing, no number, or none of a slice."""
    try:
        value = float(header.get("SliceThickness") or 0)
    except (ArithmeticError, TypeError, ValueError):
        return 0.0
    return value if 0 < value < 1000 else 0.0


def choose(known: Iterable[Prior], study_uid: str, today: date, slice_mm: float) -> Prior | None:
    """Return the report to compare with: of the newest earlier study, the series whose slices lie about as far apart, its newest report.

    Later studies never count, so that a series that is analysed again gives what it gave before; nor does what another report of its study replaced.
    """
    before = [prior for prior in known if prior.study_date < today and prior.study_instance_uid != study_uid]
    superseded = {(prior.study_instance_uid, uid) for prior in before for uid in prior.supersedes}
    return max(
        (prior for prior in before if (prior.study_instance_uid, prior.sop_instance_uid) not in superseded),
        key=lambda prior: (prior.study_date, -abs(prior.record.slice_mm - slice_mm), prior.made, prior.sop_instance_uid),
        default=None,
    )


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was found of earlier results: the report to compare with, or None; ``trouble`` says why one may be missing."""

    prior: Prior | None = None
    trouble: str | None = None

    def joined(self, input_digest: str) -> str:
        """Return the digest of the input together with what it is compared with: another prior gives another report."""
        if self.prior is None and self.trouble is None:
            return input_digest
        told = self.trouble if self.prior is None else self.prior.digest
        return hashlib.sha256(f"{input_digest}\n{told}".encode()).hexdigest()


class Change(StrEnum):
    """How a node stands to the earlier report."""

    SEEN = "seen before"
    NEW = "new"
    UNCERTAIN = "not determined"


class Growth(StrEnum):
    """How a short axis stands to the earlier one."""

    LARGER = "larger"
    SMALLER = "smaller"
    WITHIN_ERROR = "within measurement error"


def growth_mm(short_axis_mm: float, earlier: EarlierNode) -> float:
    """Return by how much a short axis grew, mm, between the figures that both reports give."""
    return round(round(short_axis_mm, 1) - earlier.short_axis_mm, 1)


def growth(short_axis_mm: float, earlier: EarlierNode) -> Growth:
    """Return whether a short axis changed by more than the measurement error."""
    change = growth_mm(short_axis_mm, earlier)
    if abs(change) <= SHORT_AXIS_CHANGE_ERROR_MM:
        return Growth.WITHIN_ERROR
    return Growth.LARGER if change > 0 else Growth.SMALLER


@dataclass(frozen=True, slots=True)
class NodeChange:
    """One node of now, and the node of the earlier report that it is."""

    change: Change
    earlier: EarlierNode | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One series compared with an earlier report.

    Attributes:
        prior: None when there is none, and ``trouble`` says that one may be missing.
        days: from the earlier study to this one.
        same_model: whether probabilities can be compared.
        nodes: what became of each node of now, by its number; empty when ``trouble`` says why nothing could be compared.
        gone: nodes of the earlier report that are no longer found although the place is shown, and all that was found is reported.
        unseen: those whose place is not shown now, that may be one of several nodes, or that may be among those that are not reported.
    """

    prior: Prior | None
    days: int
    same_model: bool
    nodes: dict[int, NodeChange]
    gone: tuple[EarlierNode, ...] = ()
    unseen: tuple[EarlierNode, ...] = ()
    trouble: str | None = None
