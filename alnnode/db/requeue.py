"""When a task that no worker has claimed is enqueued again, because the broker may have lost its message.

Jobs and deliveries have a due time (``due_at``) and count how often they were enqueued for it (``enqueues``). Whoever writes a new due
time sets ``enqueues`` to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Queued = Callable[[], Collection[str]]  # returns the ids that are on the broker's queue

# The queue is searched for a task that no worker claimed after this time. It is longer than an idle worker needs to claim a task, and
# longer than `alnnode.task_queue.QUEUE_CACHE_SECONDS`, so that every answer of the broker that is used contains what was enqueued.
REQUEUE_AFTER = timedelta(seconds=15)
_BATCH = 1000  # ids in one statement: databases limit the parameters of a statement


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the ids in batches that fit into one statement."""
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
