"""The supervisor of ``alnnode serve``, ``listen`` and ``work``: starts the parts of a node, restarts what dies, stops all.

run -> start up -> main loop -> shut down, from top to bottom. The parts are processes of their own; the sweep is a thread here. When this
process is killed, the kernel ends its children (`alnnode.process.child`).
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.analyse.jobs import Jobs
from alnnode.audit.sender import Sender
from alnnode.audit.trail import Trail
from alnnode.db import engine, schema
from alnnode.errors import AlnnodeError, ServiceError
from alnnode.node import private_redis
from alnnode.process import child
from alnnode.process.supervised import Part
from alnnode.receive.commitment_requests import Requests
from alnnode.receive.sweep import Sweep
from alnnode.spool.spool import Spool
from alnnode.task_queue import ANALYSE, DELIVER, Producer, ping

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from alnnode.settings import Settings

START_LIMIT = 60.0  # seconds for all parts to be ready
STOP_LIMIT = 6.0  # seconds for a part to stop by itself; an analysis under way is resumed at the next start
BROKER_STOP_LIMIT = 2.0
POLL, START_POLL = 0.2, 0.05  # seconds
LOCK = "serve.lock"
REFUSED = 1  # exit code of a worker that refuses to start (`workers.__main__`); other codes are faults of the settings or of this program

log = structlog.get_logger()


def serve(settings: Settings, config: Path | None) -> int:
    """Run the whole node until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: another node uses this data directory, or a part does not start.
    """
    child.keep_private()
    with ExitStack() as stack:
        stack.enter_context(_only_one(settings.node.data_dir.resolve()))
        schema.migrate(settings.database_url)
        redis = None if settings.broker.url else _redis(settings)
        return _run(settings, redis, [*_listeners(settings, config), *_web(settings, config), *_workers(config)], sweeps=True)


def listen(settings: Settings, config: Path | None) -> int:
    """Run listeners and sweep until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database is not at this version's schema, or a part does not start.
    """
    child.keep_private()
    schema.schema_state(settings.database_url)
    _needs_broker(settings)
    return _run(settings, None, [*_listeners(settings, config), *_web(settings, config)], sweeps=True)


def web(settings: Settings, config: Path | None) -> int:
    """Run the HTTP service alone until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database is not at this version's schema, or the part does not start.
    """
    child.keep_private()
    schema.schema_state(settings.database_url)
    return _run(settings, None, _web(settings, config, always=True), sweeps=False)


def work(settings: Settings, config: Path | None) -> int:
    """Run both workers until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database is not at this version's schema, or a part does not start.
    """
    child.keep_private()
    schema.schema_state(settings.database_url)
    _needs_broker(settings)
    return _run(settings, None, _workers(config), sweeps=False)


def _needs_broker(settings: Settings) -> None:
    if not settings.broker.url and not private_redis.answers(settings.redis_socket):
        raise ServiceError("no broker: set [broker] url to a Redis that listeners and workers share, or run `alnnode serve`")


def _environment(config: Path | None) -> dict[str, str]:
    return {**os.environ, **({"ALNNODE_CONFIG": str(config.resolve())} if config else {})}


def _redis(settings: Settings) -> Part:
    socket = settings.redis_socket
    return Part("redis", lambda: private_redis.prepare(socket), os.environ, ready=lambda: private_redis.answers(socket))


def _listeners(settings: Settings, config: Path | None) -> list[Part]:
    environment = _environment(config)
    arguments = [sys.executable, "-m", "alnnode.receive"]
    return [Part(f"listener-{number}", arguments, environment) for number in range(1, settings.listener.processes + 1)]


def _web(settings: Settings, config: Path | None, *, always: bool = False) -> list[Part]:
    wanted = always or settings.web.enabled
    return [Part("web", [sys.executable, "-m", "alnnode.web"], _environment(config))] if wanted else []


def _workers(config: Path | None) -> list[Part]:
    environment = _environment(config)
    # A bundle that was altered stops the analysis, and neither receiving nor delivering.
    return [
        Part(f"worker-{queue}", [sys.executable, "-m", "workers", queue], environment, needed=queue != ANALYSE)
        for queue in (ANALYSE, DELIVER)
    ]


def _run(settings: Settings, redis: Part | None, parts: Sequence[Part], *, sweeps: bool) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    trail, sender = Trail(settings), Sender(settings)
    sweep = threading.Thread(target=_sweep, args=(settings, trail, stop), name="sweep", daemon=True)
    everything = [*([redis] if redis else []), *parts]
    try:
        if redis is not None:
            _start_redis(redis, settings.redis_socket, stop)
        _start(parts, stop)
        if sweeps and not stop.is_set():
            sweep.start()
        if not stop.is_set():
            log.info("node_ready", parts=[part.name for part in everything])
            trail.put(trail.events.application(started=True))
        while not stop.wait(POLL):
            if sweeps and not sweep.is_alive():
                raise ServiceError("the sweep ended, and without it no series is completed; the lines above say why")
            for part in everything:
                part.look_after()
    finally:
        stop.set()
        _stop(parts, STOP_LIMIT)
        if sweep.ident is not None:
            sweep.join(STOP_LIMIT)
        _stop(everything[:1] if redis else [], BROKER_STOP_LIMIT)
        trail.put(trail.events.application(started=False))
        trail.close()
        sender.close()
    log.info("stopped")
    return 0


def _start_redis(redis: Part, socket: Path, stop: threading.Event) -> None:
    """Start it before the others; when it cannot read its file, which holds nothing that is missed, without that file."""
    log.info("private_redis", server=private_redis.server().words)
    try:
        _start([redis], stop)
    except ServiceError:
        aside = private_redis.set_aside_file(socket)
        if aside is None:
            raise
        log.warning("redis_file_set_aside", file=str(aside))
        _start([redis], stop)


def _start(parts: Sequence[Part], stop: threading.Event) -> None:
    deadline = time.monotonic() + START_LIMIT
    for part in parts:
        part.start()
    waiting = list(parts)
    while waiting and not stop.wait(START_POLL):
        waiting = [part for part in waiting if not part.is_ready()]
        for part in waiting:
            code = part.ended_with()
            if code == REFUSED and not part.needed:
                log.error("part_not_started", part=part.name)
                waiting = [one for one in waiting if one is not part]
            elif code is not None:
                raise ServiceError(f"{part.name} ended at start with code {code}; the lines above say why")
        if waiting and time.monotonic() > deadline:
            raise ServiceError(f"{waiting[0].name} is not ready after {START_LIMIT:.0f} s; the lines above may say why")


def _stop(parts: Sequence[Part], limit: float) -> None:
    """Stop side by side within one limit."""
    deadline = time.monotonic() + limit
    for part in parts:
        part.terminate()
    for part in parts:
        part.wait(max(0.1, deadline - time.monotonic()))


def _sweep(settings: Settings, trail: Trail, stop: threading.Event) -> None:
    database = engine.create(settings.database_url)
    spool, producer = Spool(settings.node.data_dir / "spool"), Producer(settings)
    sweep = Sweep(settings, Jobs(database), Requests(database), spool, producer, trail)
    broker_away = False
    while not stop.wait(settings.internal.sweep_interval):
        try:
            if broker_away:  # each enqueueing that fails makes the next one later; so ask before
                ping(settings.broker_url)
            sweep.once()
            broker_away = False
        except (AlnnodeError, SQLAlchemyError, OSError) as error:
            broker_away = isinstance(error, ServiceError)
            words = str(error) if isinstance(error, AlnnodeError) else type(error).__name__
            log.warning("sweep_failed", error=words)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the data directory: a second supervisor would take the first one's Redis away."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServiceError(
                f"another `alnnode serve` runs with {folder}; stop it, or choose another [node] data_dir"
            ) from error
        yield
