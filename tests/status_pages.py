"""A node for tests of the status page: jobs of several states, two destinations, and users."""

import re
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from random import Random

from analyses import CONTEXT, analysis
from dicom_objects import STUDY, ct
from held import analysed, ready, received
from sources import ct_files
from sqlalchemy import insert
from web_service import part10, service

from alnnode import report
from alnnode.db.engine import for_writing
from alnnode.db.pauses import destination_target
from alnnode.db.tables import Job
from alnnode.deliver.deliveries import Deliveries
from alnnode.process.job_logs import JobLogs
from alnnode.receive.rejected_associations import RejectedAssociations
from alnnode.receive.rejections import Rejection, RejectionKind
from alnnode.records import JobState, ObjectRole
from alnnode.records.priority import Priority
from alnnode.settings import DestinationCStore, DestinationStow, Web, WebToken

TOKENS = tuple(
    WebToken(name=name, roles=(name,), sha256=sha256(f"{name}-secret".encode()).hexdigest()) for name in ("admin", "read")
)
PACS = DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=1)
ARCHIVE = DestinationStow(name="archive", url="http://reader:hunter2@127.0.0.1:1/dicom-web?key=hunter3")
REASON = "cannot be reached: no association with PACS at 127.0.0.1, port 1 (connection refused); check that it runs"
ROLES = frozenset({ObjectRole.SR, ObjectRole.CAPTURE})


def fill(opened, client):
    """Fill a node with a job that waits for a destination, a failed job, and a job that is being received."""
    of = analysis(2)
    files = list(ct_files(of.volume))
    job = received(opened, client, files)
    analysed(opened, job, report.build(of, CONTEXT), {"pacs": ROLES, "archive": ROLES})
    for delivery in opened.jobs.get(job).deliveries:
        if delivery.destination == "archive":
            Deliveries(opened.engine).delivered(delivery.delivery_id)
    failed = received(opened, client, [part10(ct(n, series=f"{STUDY}.7", AccessionNumber="ACC-77")) for n in (1, 2)])
    opened.jobs.fail(ready(opened, failed), "The slices are 12.0 mm apart; at most 5.0 mm can be analysed.")
    waiting = received(opened, client, [part10(ct(1, series=f"{STUDY}.8"))])
    return job, failed, waiting


@contextmanager
def filled(folder):
    """Fill a node, and yield the folder of its data and the ids of its jobs: `copied` gives each test its own copy."""
    with service(folder, web=Web(tokens=TOKENS, port=8124), destinations=(PACS, ARCHIVE)) as (client, opened):
        client.headers["Authorization"] = "Bearer admin-secret"
        jobs = fill(opened, client)
    yield folder, jobs


@contextmanager
def copied(template, folder, **sections):
    """Yield a client, the services and the job ids of a copy of a filled node."""
    source, jobs = template
    shutil.copytree(source, folder, dirs_exist_ok=True)
    with service(folder, web=Web(tokens=TOKENS, port=8124), destinations=(PACS, ARCHIVE), **sections) as (client, opened):
        yield client, opened, jobs


def history(opened, series_uid):
    """Add the jobs of one day, most of them in the evening and in the morning."""
    random, now = Random(1), datetime.now(UTC)
    with for_writing(opened.engine).begin() as connection:
        for number in range(90):
            begun = now - timedelta(hours=random.triangular(1, 24, 6))
            claimed = begun + timedelta(seconds=random.uniform(12, 90))
            row = Job(
                job_id=f"{number:032x}", series_uid=series_uid, study_uid="1.2.3", revision=100 + number, state=JobState.DELIVERED,
                attempts=1, enqueues=0, priority=Priority.MEDIUM, created_at=begun, content_at=begun, claimed_at=claimed,
                finished_at=claimed + timedelta(seconds=random.uniform(8, 40)),
            )  # fmt: skip
            values = {c.name: getattr(row, c.name) for c in Job.__table__.columns}
            connection.execute(insert(Job).values(values))


def disturb(opened, job) -> None:
    """Let a destination fail, pause the other one, reject associations, and write the log of a job."""
    (delivery,) = [one for one in opened.jobs.get(job).deliveries if one.destination == "pacs"]
    tables = Deliveries(opened.engine)
    tables.claim(delivery.delivery_id, timedelta(minutes=1))
    tables.deferred(delivery.delivery_id, REASON, datetime.now(UTC) + timedelta(minutes=3))
    opened.services.status.pauses.pause(destination_target("archive"), "admin")
    table = RejectedAssociations(opened.engine, interval=0.01)
    for kind, called, calling, address, detail in (
        (RejectionKind.CALLED, "ALNODE", "CT_SCANNER_2", "192.0.2.17", ""),
        (RejectionKind.CALLING, "ALNNODE", "WORKSTATION", "192.0.2.40", ""),
        (RejectionKind.CONTEXTS, "ALNNODE", "US_ROOM_1", "192.0.2.23", "proposed: Ultrasound Multi-frame Image Storage"),
    ):
        table.note(Rejection(kind, called, calling, address, detail))
    table.close()
    logs = JobLogs(opened.settings.node.data_dir)
    for event, values in (
        ("job_ready", {}),
        ("job_claimed", {"attempt": 1, "images": 40, "marks": 0}),
        ("job_analysed", {"objects": 2}),
        ("delivery_deferred", {"destination": "pacs", "attempt": 1, "wait": 180.0, "error": REASON}),
    ):
        moment = datetime.now(UTC).isoformat()
        logs.write(None, "", {"event": event, "job": job, "level": "info", "timestamp": moment, **values})


def log_in(client, name="admin"):
    answer = client.post("/login?next=/", data={"token": f"{name}-secret"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    page = client.get("/")
    return re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)[1]
