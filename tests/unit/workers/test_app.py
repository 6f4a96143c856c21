"""What the parent process of a worker does beside its tasks."""

import os
import time
from types import SimpleNamespace

from alnnode.settings import Node, Settings
from alnnode.spool import copies
from workers import app


def test_a_worker_without_tasks_deletes_the_copies_that_nobody_uses(tmp_path) -> None:
    repeated = []
    consumer = SimpleNamespace(timer=SimpleNamespace(call_repeatedly=lambda seconds, work: repeated.append((seconds, work))))
    app._end_copies(consumer, Settings(node=Node(data_dir=tmp_path)))
    ((seconds, work),) = repeated
    unused, used = (tmp_path / "spool" / "copies" / "boot" / name for name in ("unused.1.dcm", "used.1.dcm"))
    used.parent.mkdir(parents=True)
    for path, age in ((unused, copies.UNUSED + 1), (used, 0)):
        path.touch()
        os.utime(path, (time.time() - age, 0))
    work()
    assert (unused.exists(), used.exists(), seconds) == (False, True, copies.INTERVAL)
