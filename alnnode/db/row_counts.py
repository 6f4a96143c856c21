"""Numbers of rows by state that need no scan: triggers of the database write each change, and the numbers are sums of the changes.

A counter that transactions update would make them wait for each other, and could deadlock. Rows are only added here; `compact` replaces
them by their sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Integer, String, delete, func, insert, select
from sqlalchemy.orm import Mapped, mapped_column

from alnnode.db.engine import for_writing
from alnnode.db.tables import Base

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

JOB, DELIVERY = "job", "delivery"


class RowCount(Base):
    """One change of a number of rows, or the sum of many changes."""

    __tablename__ = "row_counts"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    label: Mapped[str] = mapped_column(String(32))  # the destination of deliveries
    state: Mapped[str] = mapped_column(String(16))
    change: Mapped[int] = mapped_column(BigInteger)


def counts(connection: Connection, kind: str) -> dict[tuple[str, str], int]:
    """Return the number of rows by label and state; without those that have none."""
    query = select(RowCount.label, RowCount.state, func.sum(RowCount.change)).where(RowCount.kind == kind)
    rows = connection.execute(query.group_by(RowCount.label, RowCount.state)).all()
    return {(label, state): int(count) for label, state, count in rows if count}


def compact(engine: Engine) -> None:
    """Replace all changes by their sums. Several processes may do this at the same time: each takes the rows that no other has locked."""
    free = select(RowCount.id).with_for_update(skip_locked=True)
    taken = delete(RowCount).where(RowCount.id.in_(free))
    with for_writing(engine).begin() as connection:
        sums: dict[tuple[str, str, str], int] = {}
        changes = taken.returning(RowCount.kind, RowCount.label, RowCount.state, RowCount.change)
        for kind, label, state, change in connection.execute(changes):
            sums[kind, label, state] = sums.get((kind, label, state), 0) + change
        rows = [{"kind": kind, "label": label, "state": state, "change": total} for (kind, label, state), total in sums.items()]
        if rows:
            connection.execute(insert(RowCount), rows)
