"""A real analysing worker whose analysis is simulated: a fixed time, and one report that depends on nothing but the input.

``python -m hosts.simulated_worker``; ``ALNNODE_CONFIG`` names the settings, ``SIMULATED_SECONDS`` the time of one analysis, ``SIMULATED_LEASE`` its lease. Claims, leases,
reading of all images, outbox and deliveries are the node's own.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian

from alnnode import logs
from alnnode.records import ObjectRole, ResultObject
from alnnode.settings import load
from alnnode.task_queue import ANALYSE
from workers.app import create, run
from workers.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alnnode.records import ReportContext


class SimulatedAnalyst:
    """Reads every image, waits, and returns one structured report."""

    digest = "0" * 64
    arithmetic = "none"

    def analyse(
        self, paths: Sequence[Path], context: ReportContext, progress: Callable[[str], None], marks: Sequence[Path] = ()
    ) -> tuple[list[ResultObject], None]:
        """See `workers.analyst.Analyst`."""
        progress("read")
        studies = {str(dcmread(path).StudyInstanceUID) for path in (*paths, *marks)}
        deadline = time.monotonic() + float(os.environ["SIMULATED_SECONDS"])
        while time.monotonic() < deadline:
            time.sleep(0.05)
            progress("wait")
        (study,) = studies
        return [_report(study, context.input_digest)], None


def _report(study: str, digest: str) -> ResultObject:
    uid = f"2.25.{int(hashlib.sha256(digest.encode()).hexdigest()[:30], 16)}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = BasicTextSRStorage, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = BasicTextSRStorage, uid, "SR"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, f"{uid}.1"
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return ResultObject(ObjectRole.SR, BasicTextSRStorage, uid, f"{uid}.1", study, ExplicitVRLittleEndian, buffer.getvalue())


def main() -> None:
    """Run the worker."""
    settings = load(Path(os.environ["ALNNODE_CONFIG"]))
    logs.configure(settings.logging)
    lease = timedelta(seconds=float(os.environ["SIMULATED_LEASE"]))
    run(create(Runtime(settings, SimulatedAnalyst(), lease=lease)), ANALYSE, settings)


if __name__ == "__main__":
    main()
