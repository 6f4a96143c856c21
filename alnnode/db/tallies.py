"""Counters that only grow, for monitoring; several processes may add to one at the same time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.dialects import postgresql, sqlite

from alnnode.db.progress_tables import TallyRow

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

SET_ASIDE = "set_aside"  # kind: objects that a person must check, by reason


@dataclass(frozen=True, slots=True)
class Tally:
    """One counter. For probabilities, ``label`` is the digest of the bundle and ``bin`` the tenth of the probability."""

    label: str
    bin: int
    count: int
    total: float


def add_to_tally(connection: Connection, kind: str, added: Tally) -> None:
    """Add to a counter inside a transaction that writes; the first 64 characters of its label count."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(
        dialect.insert(TallyRow)
        .values(kind=kind, label=added.label[:64], bin=added.bin, count=added.count, total=added.total)
        .on_conflict_do_update(
            index_elements=["kind", "label", "bin"],
            set_={"count": TallyRow.count + added.count, "total": TallyRow.total + added.total},
        )
    )
