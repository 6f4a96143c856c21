"""The database of `scale.py`: it fills PostgreSQL with many jobs, and measures its size and the time of queries."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import text

from alnnode.analyse.claims import ClaimTerms
from alnnode.analyse.jobs import Jobs
from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.deliver.deliveries import Deliveries
from alnnode.dicomweb.catalogue import Catalogue
from alnnode.receive.received_series import ReceivedSeries
from alnnode.settings import Completion
from alnnode.status.overview import Overview

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

# The last day has this many jobs in any size: a node works at one rate, and keeps the rows of more days or fewer. Their files are held.
A_DAY = 10_000
IMAGES = 10  # instances of each held series; their number depends on the retention of files, not on that of rows
# Ended jobs by number: one of 50 failed, one of 10 was skipped by routes.
FILL = """
CREATE TEMPORARY TABLE made AS SELECT n, md5('job' || n) AS job_id, '2.25.1' || n AS series_uid, '2.25.2' || n AS study_uid,
    CASE WHEN n % 50 = 0 THEN 'FAILED' WHEN n % 10 = 1 THEN 'SKIPPED' ELSE 'DELIVERED' END AS state,
    CAST(:now AS timestamp) - CASE WHEN n < :day THEN n * interval '8.64 seconds'
        ELSE interval '1 day' + (n - :day) * interval '30 seconds' END AS at
    FROM generate_series(0, :jobs - 1) n;
INSERT INTO series SELECT series_uid, study_uid, 'CT1', 'CT', 'CHEST', 'Thorax 1 mm', 'CT thorax', 'B31f', 1.0, 300, at, at FROM made;
INSERT INTO jobs (job_id, series_uid, study_uid, revision, state, reason, attempts, enqueues, input_digest, bundle_digest,
    settings_digest, created_at, content_at, claimed_at, finished_at, purged_at)
    SELECT job_id, series_uid, study_uid, 1, state, CASE state WHEN 'FAILED' THEN 'not enough memory' END, 1, 0, md5(job_id) || md5(job_id),
    repeat('b', 64), repeat('c', 64), at, at, at + interval '20 seconds', at + interval '60 seconds',
    CASE WHEN n >= :day THEN at + interval '1 day' END FROM made;
INSERT INTO results SELECT job_id, p, 'capture', '1.2.840.10008.5.1.4.1.1.7', series_uid || '.' || p, series_uid || '.9', study_uid,
    '1.2.840.10008.1.2.1', md5(job_id) || md5(job_id), 'results/' || job_id || '/' || p FROM made, generate_series(0, 2) p
    WHERE state = 'DELIVERED';
INSERT INTO deliveries (delivery_id, job_id, destination, roles, state, attempts, next_attempt_at, due_at, enqueues, sent_at, resends,
    unanswered, last_error) SELECT md5('delivery' || n), job_id, CASE n % 2 WHEN 0 THEN 'pacs' ELSE 'archive' END, 'sr capture', 'SENT', 1,
    at, at, 0, at + interval '60 seconds', 0, 0, CASE WHEN n % 100 = 3 THEN 'archive: no association' END FROM made WHERE state = 'DELIVERED';
INSERT INTO instances SELECT series_uid || '.1.' || i, series_uid, '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1',
    'objects/' || job_id || '/' || i, md5(job_id || i) || md5(job_id), 526336, 'CT1', at, 1 FROM made, generate_series(1, :images) i WHERE n < :day;
DROP TABLE made;
DELETE FROM row_counts;
INSERT INTO row_counts (kind, label, state, change) SELECT 'job', '', state, count(*) FROM jobs GROUP BY state;
INSERT INTO row_counts (kind, label, state, change) SELECT 'delivery', destination, state, count(*) FROM deliveries GROUP BY destination, state;
"""


def fill(engine: Engine, jobs: int) -> None:
    """Write rows as a node leaves them that has ended so many jobs."""
    values = {"now": datetime.now(UTC).replace(tzinfo=None), "day": A_DAY, "jobs": jobs, "images": IMAGES}
    with engine.begin() as connection:
        # Without the triggers and the checks of foreign keys, which would take most of the time; the numbers are written once.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in filter(None, map(str.strip, FILL.split(";"))):
            connection.execute(text(statement), {name: value for name, value in values.items() if f":{name}" in statement})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (FREEZE, ANALYZE)"))  # what autovacuum does in time


def size_mb(engine: Engine) -> float:
    """Return the size of the database in MB, its indexes included."""
    with engine.connect() as connection:
        return float(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()) / 1e6


def questions(engine: Engine) -> dict[str, Callable[[], object]]:
    """Return what the status page, searches, the sweep and a worker ask, by name."""
    overview, jobs, deliveries = Overview(engine), Jobs(engine), Deliveries(engine)
    received, catalogue = ReceivedSeries(engine), Catalogue(engine)
    with engine.connect() as connection:
        query = text("SELECT job_id, study_uid, series_uid FROM jobs ORDER BY job_id OFFSET 5000 LIMIT 1")
        job_id, study_uid, series_uid = connection.execute(query).one()

    def page() -> None:
        for part in (
            overview.states,
            overview.oldest,
            overview.stages,
            overview.hours,
            overview.ended,
            overview.destinations,
            overview.held,
        ):
            part()
        overview.commitment_requests()
        overview.series([job.series_uid for job in jobs.list(limit=200)])

    return {
        "status page, all its queries": page,
        "search by Study Instance UID": lambda: overview.find(study_uid, ()),
        "search by job id": lambda: overview.find(job_id[:12], ()),
        "one job": lambda: jobs.get(job_id),
        "QIDO-RS: instances of a series": lambda: catalogue.instances(series=[series_uid]),
        "sweep, one pass": lambda: (
            received.complete_due(Completion(), lambda _: None),
            jobs.lost(),
            deliveries.due(),
            jobs.reset_future_times(),
        ),
        "claim of a job that has ended": lambda: jobs.claim(job_id, ClaimTerms(timedelta(seconds=60), 3, "b" * 64, "c" * 64)),
    }


def compare(server: str, sizes: tuple[int, ...], repetitions: int) -> None:
    """Print sizes and query times of databases with so many jobs; the databases are asked alternately."""
    from sqlalchemy import create_engine, make_url

    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    engines_by_size = {}
    for jobs in sizes:
        name = f"scale{uuid4().hex[:8]}"
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
        schema.migrate(url)
        engine = engines_by_size[jobs] = engines.create(url)
        start = time.perf_counter()
        fill(engine, jobs)
        print(f"{jobs} jobs written in {time.perf_counter() - start:.0f} s; database: {size_mb(engine):.0f} MB", flush=True)
    times: dict[str, dict[int, list[float]]] = {}
    asked = {jobs: questions(engine) for jobs, engine in engines_by_size.items()}
    for number in range(repetitions + 2):
        for jobs in sizes if number % 2 else reversed(sizes):
            for name, ask in asked[jobs].items():
                start = time.perf_counter()
                ask()
                if number >= 2:  # the first two fill the caches
                    times.setdefault(name, {}).setdefault(jobs, []).append(time.perf_counter() - start)
    print(f"\n| question | {' | '.join(f'{jobs} jobs: ms' for jobs in sizes)} | ratio |\n|---|{'---|' * (len(sizes) + 1)}")
    for name, by_size in times.items():
        fastest = [min(by_size[jobs]) for jobs in sizes]  # other work on the machine only adds time
        print(f"| {name} | {' | '.join(f'{1000 * one:.2f}' for one in fastest)} | {fastest[-1] / fastest[0]:.2f} |", flush=True)
    for engine in engines_by_size.values():
        engine.dispose()
    admin.dispose()
