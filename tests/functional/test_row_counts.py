"""The numbers of jobs and deliveries by state agree with the rows, whatever happens to the rows."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from random import Random

from sqlalchemy import delete, insert, select, update

from alnnode.db import row_counts
from alnnode.db.engine import for_writing
from alnnode.db.tables import Delivery, DeliveryState, Job, Series
from alnnode.records import JobState
from alnnode.status.overview import Overview

NOW = datetime(2026, 1, 1, tzinfo=UTC)


STATES, IDS = list(JobState), [f"{number:032x}" for number in range(60)]


def fill(engine) -> None:
    rng = Random(3)
    facts = dict.fromkeys(("calling_ae", "modality", "body_part", "series_description", "study_description", "kernel"), "")
    series = {"study_uid": "1.2", "last_received_at": NOW, **facts}
    delivery = {
        "next_attempt_at": NOW,
        "due_at": NOW,
        "attempts": 0,
        "enqueues": 0,
        "resends": 0,
        "unanswered": 0,
        "roles": "sr",
    }
    job = {"study_uid": "1.2", "revision": 1, "attempts": 0, "enqueues": 0, "created_at": NOW, "content_at": NOW}
    with for_writing(engine).begin() as connection:
        connection.execute(insert(Series), [{"series_uid": one, **series} for one in IDS])
        connection.execute(insert(Job), [{"job_id": one, "series_uid": one, "state": rng.choice(STATES), **job} for one in IDS])
        rows = [{"delivery_id": one, "job_id": one, "destination": rng.choice(("a", "b")), "state": "PENDING"} for one in IDS]
        connection.execute(insert(Delivery), [row | delivery for row in rows])


def test_the_counts_follow_inserts_changes_and_deletes(engine) -> None:
    fill(engine)

    def work(part: int) -> None:
        own = Random(part)
        for _ in range(5):
            with for_writing(engine).begin() as connection:
                chosen = own.sample(IDS[part::4], 4)
                connection.execute(update(Job).where(Job.job_id == chosen[0]).values(state=own.choice(STATES)))
                connection.execute(update(Job).where(Job.job_id == chosen[1]).values(state=Job.state))
                sent = {"state": DeliveryState.SENT, "sent_at": NOW, "last_error": f"error {part}"}
                connection.execute(update(Delivery).where(Delivery.job_id == chosen[2]).values(**sent))
                connection.execute(delete(Delivery).where(Delivery.job_id == chosen[3]))
            row_counts.compact(engine)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    with engine.connect() as connection:
        jobs = Counter(connection.execute(select(Job.state)).scalars())
        deliveries = Counter(tuple(row) for row in connection.execute(select(Delivery.destination, Delivery.state)))
    overview = Overview(engine)
    assert overview.states() == jobs
    found = {
        (one.name, state): n for one in overview.destinations() for state, n in (("PENDING", one.pending), ("SENT", one.sent))
    }
    assert found == {(name, state): deliveries[name, state] for name in ("a", "b") for state in ("PENDING", "SENT")}
    assert {one.last_sent_at for one in overview.destinations()} == {NOW}


def test_a_job_is_found_by_the_beginning_of_its_id_and_by_the_uid_of_its_study(engine) -> None:
    fill(engine)
    overview = Overview(engine)
    assert overview.find(f"{7:032x}", ()) == (f"{7:032x}",)
    assert len(overview.find("1.2", ())) == 60
    assert overview.find("0000000", ()) != ()
    assert overview.find("7", ()) == ()
