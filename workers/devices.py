"""One analysing process for each GPU: the worker counts the GPUs without torch, and each process sees one of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from billiard import current_process

if TYPE_CHECKING:
    from collections.abc import Sequence

NVIDIA = Path("/proc/driver/nvidia/gpus")  # one folder for each GPU; a container sees its own
VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible(driver: Path = NVIDIA) -> list[str]:
    """Return the names of the GPUs that this worker may use; empty without GPUs. `VARIABLE` limits them, as it does for CUDA."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return [one for part in named.split(",") if (one := part.strip()) and one != "-1"]
    try:
        return [str(number) for number, _ in enumerate(sorted(driver.iterdir()))]
    except OSError:
        return []


def use(gpus: Sequence[str]) -> None:
    """Let this process of the pool see its own GPU only; call it before torch is imported.

    The pool gives a process that replaces another one the index of that one.
    """
    if gpus:
        os.environ[VARIABLE] = gpus[getattr(current_process(), "index", 0) % len(gpus)]
