"""``python -m chaos.fuzz``: give randomly damaged input to every reader of external data for some minutes.

Each batch of tries runs in its own process with a memory limit, and each try has a time limit: a crash of a decoder or a hang is a finding
and ends only its batch. A batch depends only on the seed and its number, so that a finding can be repeated. At the end, damaged requests and
request heads without end are sent to a real HTTP service, and damaged PDUs to a real listener.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import torch

from alnnode.receive.library_logging import silence_libraries
from chaos import floods, pdus
from chaos.readers import COSTLY, REFUSALS, TRIES, Tries
from chaos.seeds import Seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCH = 200  # tries
LIMIT = 20  # seconds for one try
MEMORY = 8 << 30  # bytes of address space
SHARE = 0.2  # of the minutes, for the listener, and again for the HTTP service


def batch(seeds: Seeds, seed: int, number: int, names: Sequence[str] = TRIES) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Make the tries of one batch in this process; return the outcomes, and the findings with what repeats them."""
    chance = random.Random(f"{seed}/{number}")
    tries, outcomes, findings = Tries(seeds, chance), Counter(), []
    weights = [COSTLY.get(name, 4) for name in names]
    for position in range(BATCH):
        name = chance.choices(names, weights)[0]
        signal.alarm(LIMIT)
        try:
            outcome = getattr(tries, name)() or "read"
        except REFUSALS:
            outcome = "refused"
        except Exception as error:  # noqa: BLE001 - the error is the finding
            outcome = "FOUND"
            where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)][-4:]
            findings.append(
                f"{name}: {type(error).__name__} at {' '.join(where)} (seed {seed}, batch {number}, try {position})"
            )
        outcomes[name, outcome] += 1
    signal.alarm(0)
    return outcomes, findings


def isolated(work: Callable[[], tuple[Counter[tuple[str, str]], list[str]]], number: int) -> tuple[Counter, list[str]]:
    """Run a batch in a child process; a child that dies is a finding."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        warnings.simplefilter("ignore")
        try:
            outcomes, findings = work()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(json.dumps([[[*key, count] for key, count in outcomes.items()], findings]).encode())
        except BaseException:  # noqa: BLE001 - the child must not continue as its parent
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if not said:
        return Counter(), [f"batch {number} ended with {status} (a signal is a crash, 14 a hang)"]
    lines, findings = json.loads(said)
    return Counter({(name, outcome): count for name, outcome, count in lines}), findings


def fuzz(seconds: float, seed: int, folder: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Fuzz the readers for ``seconds``."""
    torch.set_num_threads(1)  # the threads of OpenMP do not survive the fork of a batch, which would then wait for them
    seeds, outcomes, findings = Seeds(folder), Counter(), []
    silence_libraries()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        more, found = isolated(lambda number=number: batch(seeds, seed, number), number)
        outcomes.update(more)
        findings += found
        number += 1
    return outcomes, findings


def main() -> int:
    """Fuzz, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m chaos.fuzz")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seconds = options.minutes * 60
    with tempfile.TemporaryDirectory(prefix="alnnode-fuzz-") as folder:
        outcomes, findings = fuzz(seconds * (1 - 2 * SHARE), options.seed, Path(folder))
    for part in (floods.web, pdus.listener):
        more, found = part(seconds * SHARE, options.seed)
        outcomes.update(more)
        findings += found
    print("| what | outcome | tries |\n|---|---|---:|")
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"| {name} | {outcome} | {count} |")
    print(
        f"\n{sum(outcomes.values())} tries in {options.minutes:g} minutes, seed {options.seed}: {len(findings)} crashes, hangs or foreign exceptions"
    )
    for line in findings:
        print(line)
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
