"""Invariants that hold after any faults, checked against the senders' records, the spool, the job list and the objects at the PACS."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import select

from alnnode.db import engine as engines
from alnnode.db.tables import Delivery, DeliveryState, Job, Result
from alnnode.receive.file_meta import data_set_offset
from alnnode.records import JobState
from chaos.rig import COMMITS
from chaos.studies import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chaos.peers import Pacs
    from chaos.rig import Rig
    from chaos.studies import Study

ENDS = {JobState.DELIVERED, JobState.NOT_ANALYSED, JobState.FAILED, JobState.SKIPPED}


def violations(rig: Rig, studies: Sequence[Study], peers: Sequence[Pacs]) -> Iterator[str]:
    """Yield a line for each violated invariant."""
    with engines.create(rig.database, 1).connect() as connection:
        columns = (Job.job_id, Job.study_uid, Job.state, Job.reason, Job.input_digest, Job.purged_at)
        jobs = defaultdict(list)
        for row in connection.execute(select(*columns).order_by(Job.revision)):
            jobs[row.study_uid].append(row)
        results = defaultdict(set)
        for uid, study in connection.execute(select(Result.sop_instance_uid, Result.study_instance_uid)):
            results[study].add(uid)
        query = select(Delivery.job_id).where(Delivery.state == DeliveryState.SENT, Delivery.destination == COMMITS)
        for job_id in connection.execute(query.where(Delivery.committed_at.is_(None))).scalars():
            yield f"NOT COMMITTED: {job_id}"
    yield from _lost(rig, studies, jobs)
    for study in studies:
        yield from _ended(study, jobs[study.uid])
        for pacs in peers:
            yield from _duplicated(study, jobs[study.uid], results[study.uid], pacs)
    yield from _altered(peers)
    yield from _names(rig)


def _lost(rig: Rig, studies: Sequence[Study], jobs: dict) -> Iterator[str]:
    stored = set(_digests(rig.disk.folder / "spool"))
    for study in studies:
        delivered = any(job.state in {JobState.DELIVERED, JobState.NOT_ANALYSED} for job in jobs[study.uid])  # and deleted
        missing = [uid for uid in study.acknowledged if study.digests[uid] not in stored]
        if missing and not delivered:
            yield f"LOST: {len(missing)} of {len(study.acknowledged)} acknowledged images of {study.uid}"


def _digests(spool: Path) -> Iterator[str]:
    for folder in ("objects", "pending", "conflicts"):
        for path in (spool / folder).rglob("*.dcm"):
            data = memoryview(path.read_bytes())
            yield hashlib.sha256(data[data_set_offset(data) :]).hexdigest()


def _ended(study: Study, jobs: Sequence) -> Iterator[str]:
    if study.complete_at is None:
        yield f"NEVER RECEIVED: {study.uid}"
    if not jobs:
        yield f"STUCK: {study.uid} has no job"
    for job in jobs:
        if job.state not in ENDS:
            yield f"STUCK: a job of {study.uid} is {job.state}"
        elif job.state != JobState.DELIVERED and not job.reason:
            yield f"NO REASON: a job of {study.uid} is {job.state}"
    if jobs and not study.poison and study.axillae and jobs[-1].state != JobState.DELIVERED:
        yield f"NOT DELIVERED: {study.uid} is {jobs[-1].state}: {jobs[-1].reason}"


def _duplicated(study: Study, jobs: Sequence, results: set[str], pacs: Pacs) -> Iterator[str]:
    revisions = {job.input_digest for job in jobs if job.input_digest is not None}
    there = {uid for uid, study_uid in pacs.studies.items() if study_uid == study.uid}
    reports = [uid for uid in pacs.reports if uid in there]
    if len(reports) > len(revisions):
        yield f"DUPLICATED: {len(reports)} reports for {len(revisions)} revisions of {study.uid}"
    if not study.poison and not reports:
        yield f"NO REPORT: {study.uid}"
    if there - results:
        yield f"UNKNOWN OBJECTS: {len(there - results)} objects of {study.uid} are not results of a job"


def _altered(peers: Sequence[Pacs]) -> Iterator[str]:
    for uid, digests in ((uid, digests) for pacs in peers for uid, digests in pacs.received.items()):
        if len(digests) > 1:
            yield f"ALTERED: {len(digests)} different objects were received as {uid}"


def _names(rig: Rig) -> Iterator[str]:
    """Yield a line if a patient's name is anywhere but in the objects and results of the spool."""
    planted = NAME.encode()
    spool = rig.disk.folder / "spool"
    hits = Counter(
        path.name
        for path in rig.folder.rglob("*")
        if path.is_file() and not path.is_relative_to(spool) and planted in path.read_bytes()
    )
    hits.update(str(path) for path in spool.rglob("*") if NAME in path.name)
    if hits:
        yield f"NAMES: in {dict(hits)}"
