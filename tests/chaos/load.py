"""``python -m chaos.load``: many concurrent senders and probes; prints refused associations, memory and threads of the listener."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import dicom_objects
from listening import Listener
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from alnnode.db import schema

OBJECTS = 10  # of one association


class Load:
    """Senders that repeatedly associate, send and release; probes that connect and disconnect every second."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.ended = threading.Event()
        self.stored = self.associations = self.refused = self.failed = self.probes = 0
        self._lock = threading.Lock()

    def sender(self, number: int) -> None:
        """Send objects until the load test ends."""
        entity = AE(f"SENDER{number}")
        entity.add_requested_context(CTImageStorage, ["1.2.840.10008.1.2.1"])
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
        count = 0
        while not self.ended.is_set():
            association = entity.associate(
                "127.0.0.1", self._port, ae_title="ALNNODE", bind_address=(f"127.0.{1 + number // 250}.{1 + number % 250}", 0)
            )
            if not association.is_established:
                with self._lock:
                    self.refused += 1
                continue
            for _ in range(OBJECTS):
                count += 1
                series = f"{dicom_objects.STUDY}.{number}"
                status = association.send_c_store(dicom_objects.ct(count, series=series, side=128)).get("Status")
                with self._lock:
                    self.stored += status == 0x0000
                    self.failed += status != 0x0000
                time.sleep(0.2)
            association.release()
            with self._lock:
                self.associations += 1

    def prober(self, probes: int) -> None:
        """Open connections without sending; half of them stay open for a second."""
        while not self.ended.is_set():
            held = []
            for number in range(probes):
                with suppress(OSError):
                    probe = socket.create_connection(
                        ("127.0.0.1", self._port), source_address=(f"127.1.0.{1 + number % 250}", 0)
                    )
                    self.probes += 1
                    if number % 2:
                        held.append(probe)
                    else:
                        probe.close()
            self.ended.wait(1)
            for probe in held:
                probe.close()


def memory(pid: int) -> tuple[float, int]:
    """Return the resident memory in MiB and the number of threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])


def main() -> int:
    """Run the load test and print the result."""
    parser = argparse.ArgumentParser(prog="python -m chaos.load")
    parser.add_argument("--associations", type=int, default=50)
    parser.add_argument("--probes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="alnnode-load-") as folder:
        url = f"sqlite:///{folder}/alnnode.db"
        schema.migrate(url)
        # All come from one address, which may have half of them.
        bounds = f"max_associations = {2 * options.associations}\n"
        listener = Listener(Path(folder), url, bounds, internal="connection_rate = 10000")
        pid = listener.start().pid
        load = Load(listener.port)
        before = memory(pid)
        threads = [threading.Thread(target=load.sender, args=(number,)) for number in range(options.associations)]
        threads.append(threading.Thread(target=load.prober, args=(options.probes,)))
        for thread in threads:
            thread.start()
        start = time.monotonic()
        seen = []
        while (elapsed := time.monotonic() - start) < options.seconds:
            time.sleep(options.seconds / 8)
            seen.append(memory(pid))
            print(f"{elapsed:5.0f} s  {seen[-1][0]:6.1f} MiB  {seen[-1][1]} threads  {load.stored} objects", flush=True)
        load.ended.set()
        for thread in threads:
            thread.join()
        time.sleep(2)
        after = memory(pid)
        listener.stop()
        recorded = listener.recorded()
    print(
        f"before {before[0]:.1f} MiB, {before[1]} threads; after {after[0]:.1f} MiB, {after[1]} threads; "
        f"{load.associations} associations, {load.stored} objects stored, {recorded} recorded, {load.probes} probes; "
        f"refused associations {load.refused}, failed objects {load.failed}"
    )
    growth = seen[-1][0] - seen[1][0]
    bad = load.refused or load.failed or recorded != load.stored or growth > 20
    print(f"memory growth from the second measurement to the last: {growth:+.1f} MiB: {'FAILED' if bad else 'passed'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
