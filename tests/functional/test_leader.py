"""One leader of several candidates, by a lease in the database, on SQLite and on PostgreSQL."""

from datetime import timedelta

import pytest
from listening import wait_for
from sqlalchemy import update

from alnnode.db import clock
from alnnode.db.engine import for_writing
from alnnode.db.leader import Leader, LeaseRow

SHORT = timedelta(seconds=0.6)


@pytest.fixture
def candidates(engine):
    return [Leader(engine, "sweep", SHORT) for _ in range(3)]


def test_one_of_three_leads_and_keeps_the_lease(candidates) -> None:
    first, *others = candidates
    assert first.leads()
    assert not any(other.leads() for other in others)
    assert first.leads()


def test_the_lead_moves_when_the_leader_is_silent(candidates) -> None:
    first, second, _ = candidates
    assert first.leads()
    wait_for(second.leads)  # the first renews nothing: it was killed, or cut off
    first._next_renewal = 0.0
    assert not first.leads(), "a leader that comes back follows"


def test_a_leader_that_resigns_is_replaced_at_once(engine) -> None:
    first, second = (Leader(engine, "sweep", timedelta(hours=1)) for _ in range(2))
    assert first.leads()
    first.resign()
    assert second.leads()
    second_again = Leader(engine, "sweep", timedelta(hours=1))
    assert not second_again.leads()


def test_each_kind_of_work_has_its_own_leader(engine) -> None:
    assert Leader(engine, "sweep").leads()
    assert Leader(engine, "notifications").leads()


def test_a_lease_from_before_the_clock_was_set_back_is_free(engine) -> None:
    assert Leader(engine, "sweep").leads()
    with for_writing(engine).begin() as connection:
        connection.execute(update(LeaseRow).values(until=clock.now(connection) + timedelta(hours=1)))
    assert Leader(engine, "sweep").leads()
