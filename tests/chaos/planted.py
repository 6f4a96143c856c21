"""Run a module of the node with one planted bug: ``python -m chaos.planted BUG MODULE ARGUMENT…``.

The tests of the harness use it: the harness must find each bug. Child processes get the same bug.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
import uuid
from typing import Any

DELAY = 0.5  # seconds
VARIABLE = "ALNNODE_PLANTED"  # environment variable with the name of the bug in this process


def acknowledge_before_fsync() -> None:
    """Answer success before the bytes are on disk."""
    from alnnode.receive.acceptor import Acceptor

    store = Acceptor._store

    def later(self: Any, row: Any, content: Any) -> None:
        data = bytes(content)
        timer = threading.Timer(4 * DELAY, lambda: store(self, row, data))
        timer.daemon = True
        timer.start()

    Acceptor._store = later


def enqueue_before_commit() -> None:
    """Enqueue the task of a job inside the transaction that makes the job READY."""
    from pathlib import Path

    from alnnode.receive import received_series
    from alnnode.records import JobState
    from alnnode.settings import load
    from alnnode.task_queue import Producer

    change_state = received_series.change_state

    def early(connection: Any, job_id: str, expected: JobState, state: JobState, *guards: Any, **values: Any) -> bool:
        changed = change_state(connection, job_id, expected, state, *guards, **values)
        if not changed or (expected, state) != (JobState.RECEIVING, JobState.READY):
            return changed
        config = os.environ.get("ALNNODE_CONFIG") or sys.argv[sys.argv.index("--config") + 1]
        Producer(load(Path(config))).enqueue_analysis(job_id)
        time.sleep(DELAY)  # a commit can take this long
        return False

    received_series.change_state = early


def random_uids() -> None:
    """Give result objects a new UID in each analysis."""
    from alnnode.report import uids

    uids.uid = lambda *parts: f"2.25.{uuid.uuid4().int}"


def quote_a_name() -> None:
    """Write the name of the patient into the log."""
    import structlog

    from alnnode.receive.association_events import AssociationEvents

    store = AssociationEvents._store

    def telling(self: Any, event: Any) -> Any:
        structlog.get_logger("alnnode").debug("stored", patient=str(event.dataset.get("PatientName")))
        return store(self, event)

    AssociationEvents._store = telling


def raise_a_name() -> None:
    """Raise unexpected exceptions with patient data: when a marked object is received, and in every analysis."""
    from alnnode.receive import header
    from workers.analyst import ModelAnalyst

    read = header.read

    def failing(data: Any, *arguments: Any) -> Any:
        if b"RAISE" in bytes(data):
            raise KeyError(bytes(data).decode("latin-1"))
        return read(data, *arguments)

    def analyse(self: Any, paths: Any, context: Any, progress: Any, marks: Any = ()) -> Any:
        raise RuntimeError(paths[0].read_bytes().decode("latin-1"))

    header.read = failing
    ModelAnalyst.analyse = analyse


def endless_heads() -> None:
    """Limit neither the size of a request head nor the framing of a body."""
    from alnnode.http import http_connection

    http_connection.MAX_LINE = http_connection.MAX_HEAD = http_connection.MAX_LINES = http_connection.MAX_PIPELINE = 1 << 40


class UnguardedError(Exception):
    """An error that no reader expects."""


def deep_json() -> None:
    """Convert sequences of any depth to JSON, and let the error of the serialiser pass the guards."""
    from alnnode.dicomweb import dicom_json

    dumps = dicom_json.dumps

    def unguarded(document: object) -> bytes:
        try:
            return dumps(document)
        except ValueError as error:
            raise UnguardedError(str(error)) from error

    dicom_json.MAX_DEPTH, dicom_json.dumps = 1 << 40, unguarded


def numbers_that_are_none() -> None:
    """Write NaN and Infinity into JSON."""
    import json

    from alnnode.dicomweb import dicom_json

    dicom_json._finite = lambda written: written
    dicom_json.dumps = lambda document: json.dumps(document).encode()


BUGS = {
    "acknowledge-before-fsync": acknowledge_before_fsync,
    "enqueue-before-commit": enqueue_before_commit,
    "random-uids": random_uids,
    "quote-a-name": quote_a_name,
    "raise-a-name": raise_a_name,
    "endless-heads": endless_heads,
    "deep-json": deep_json,
    "numbers-that-are-none": numbers_that_are_none,
}


def main() -> None:
    """Plant the bug in this process and its child processes, and run the module."""
    bug, module, *arguments = sys.argv[1:]
    from alnnode.process import child

    plain = child.command

    def command(signum: Any, *words: str) -> list[str]:
        if words[:2] == (sys.executable, "-m"):
            words = (sys.executable, "-m", "chaos.planted", bug, *words[2:])
        return plain(signum, *words)

    child.command = command
    os.environ[VARIABLE] = bug
    BUGS[bug]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
