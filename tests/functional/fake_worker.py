"""A real worker process whose analyst follows orders: files in a folder.

``python fake_worker.py analyse|deliver``; ``ALNNODE_CONFIG`` names the settings, ``FAKE_ORDERS`` the folder. While ``hold`` exists, the
analysis waits. ``die`` kills the process with SIGKILL. ``starve`` raises `MemoryError`, and then `ImportError` in every later analysis of
the process, like torch after an interrupted import. Each run writes ``run-N`` with its process id.
"""

import hashlib
import io
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from alnnode import logs
from alnnode.records import ObjectRole, ResultObject
from alnnode.settings import load
from workers import analysing
from workers.app import create, run
from workers.runtime import Runtime

LEASE = timedelta(seconds=2)
DELIVERY_LEASE = timedelta(seconds=8)  # longer: after it ends, another worker would send the objects again


class FakeAnalyst:
    """Returns small objects whose UIDs and bytes depend only on the input."""

    digest = "0" * 64
    arithmetic = "none"

    def __init__(self, orders: Path) -> None:
        self._orders = orders
        self._spoilt = False

    def analyse(self, paths, context, progress, marks=()):
        number = len(list(self._orders.glob("run-*")))
        (self._orders / f"run-{number}").write_text(str(os.getpid()), encoding="ascii")
        progress("read")
        if (self._orders / "die").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if self._spoilt:
            raise ImportError
        if (self._orders / "starve").exists():
            self._spoilt = True
            raise MemoryError
        while (self._orders / "hold").exists():
            time.sleep(0.02)
            progress("hold")
        return [_result(context.input_digest, number) for number in range(3)], None


def _result(digest: str, number: int) -> ResultObject:
    uid = f"2.25.{int(hashlib.sha256(f'{digest}/{number}'.encode()).hexdigest()[:30], 16)}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID, data.StudyInstanceUID = (
        SecondaryCaptureImageStorage,
        uid,
        "1.2",
        "1.3",
    )
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return ResultObject(
        ObjectRole.CAPTURE, SecondaryCaptureImageStorage, uid, "1.2", "1.3", ExplicitVRLittleEndian, buffer.getvalue()
    )


def main() -> None:
    analysing.POSTPONE = LEASE
    settings = load(Path(os.environ["ALNNODE_CONFIG"]))
    logs.configure(settings.logging)
    runtime = Runtime(settings, FakeAnalyst(Path(os.environ["FAKE_ORDERS"])), lease=LEASE, delivery_lease=DELIVERY_LEASE)
    run(create(runtime), sys.argv[1], settings)


if __name__ == "__main__":
    main()
