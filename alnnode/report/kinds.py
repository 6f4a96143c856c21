"""The kinds of result objects: the one table that a new kind is added to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.report.capture import secondary_capture
from alnnode.report.object_kind import ObjectNature
from alnnode.report.objects import (
    encapsulated_pdf,
    key_objects,
    parametric_map,
    presentation_state,
    rejection_note,
    segmentation,
    structure_set,
)
from alnnode.report.sr import basic_text, measurement_report, results_tree

if TYPE_CHECKING:
    from alnnode.records import ObjectRole
    from alnnode.report.object_kind import ObjectKind, ObjectModule

# Built when ``[report] kinds`` lists them, in this order. To add a kind, add its module here.
REQUESTED: tuple[ObjectModule, ...] = (
    segmentation,
    parametric_map,
    key_objects,
    presentation_state,
    basic_text,
    encapsulated_pdf,
    structure_set,
)


def by_role() -> dict[ObjectRole, ObjectKind]:
    """Return all kinds by their role: the report, the captures, the requested kinds, the results tree and the rejection note."""
    own = (measurement_report.KIND, secondary_capture.KIND, results_tree.KIND, rejection_note.KIND)
    return {kind.role: kind for kind in (*own, *(module.KIND for module in REQUESTED))}


def image_roles() -> frozenset[ObjectRole]:
    """Return the roles whose objects are images."""
    return frozenset(role for role, kind in by_role().items() if kind.nature is ObjectNature.IMAGE)
