"""Tries of the fuzzer for the listener: damaged PDUs, commands and objects to a real listener."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import dicom_objects
from hostile import damage, draw
from hostile_pdus import pdu, request, store_request, talk
from listening import Listener, wait_for

from alnnode.db import schema


def listener(seconds: float, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Send damaged PDUs to a real listener; afterwards it must store an object, with no more threads than before."""
    chance, outcomes, findings = random.Random(seed), Counter(), []
    whole = dicom_objects.data_set(dicom_objects.ct(1, side=16))
    message, release = store_request(whole), pdu(5, bytes(4))
    with tempfile.TemporaryDirectory(prefix="alnnode-fuzz-") as folder:
        url = f"sqlite:///{folder}/alnnode.db"
        schema.migrate(url)
        node = Listener(Path(folder), url, "timeout = 2\nmax_associations = 1000\n", internal="connection_rate = 10000")
        process = node.start()
        threads = Path(f"/proc/{process.pid}/task")
        # The thread that writes rejections starts with the first one, and stays.
        before = len(list(threads.iterdir())) + 1
        node.associate(called="WRONG")
        wait_for(lambda: len(list(threads.iterdir())) == before)
        until = time.monotonic() + seconds
        while time.monotonic() < until and process.poll() is None:
            kind = chance.choice(["request", "message", "object", "both"])
            first, then = request(), message + release
            if kind == "request":
                first = damage(first, draw(chance))
            elif kind == "message":
                then = damage(then, draw(chance), head=chance.choice([200, None]))
            elif kind == "object":
                then = store_request(damage(whole, draw(chance), head=chance.choice([200, None]))) + release
            else:
                first, then = damage(first + then, draw(chance)), b""
            talk(node.port, first, then)
            outcomes["PDUs to a listener", f"sent, {kind}"] += 1
        if process.poll() is not None:
            findings.append(f"the listener ended with {process.returncode}")
        else:
            findings += _unharmed(node, threads, before)
        node.stop()
        log = node.log.read_text()
        findings += [f"the log says {word}" for word in ("Traceback", "uncaught") if word in log]
    return outcomes, findings


def _unharmed(node: Listener, threads: Path, before: int) -> list[str]:
    deadline = time.monotonic() + 20
    while len(list(threads.iterdir())) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    findings = [] if len(list(threads.iterdir())) <= before else ["threads of the listener hang"]
    association = node.associate()
    if not association.is_established or association.send_c_store(dicom_objects.ct(7)).get("Status") != 0:
        findings.append("the listener does not store any more")
    association.release()
    return findings
