"""The supervisor of ``alnnode serve``, ``listen``, ``sweep``, ``web`` and ``work``: it starts the processes of a node, restarts those that die, and stops all.

The functions follow the order of events: start, main loop, stop. The sweep is a thread of this process. When this process is killed, the
kernel ends its children (`alnnode.process.child`).
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from alnnode import logs
from alnnode.db import schema
from alnnode.errors import ServiceError, SettingsError
from alnnode.node import ports, private_redis
from alnnode.node.background import Background
from alnnode.node.data_dir import open_lock
from alnnode.node.listening_sockets import listening_sockets
from alnnode.node.process_set import STOP_LIMIT, ProcessSet, start, wait
from alnnode.node.reload import SupervisorFile, announced, changed_settings
from alnnode.process import child, heartbeat
from alnnode.process.inherited_socket import LISTENER_FD, WEB_FD
from alnnode.process.job_logs import JobLogs
from alnnode.process.supervised import ListeningProcess, SupervisedProcess
from alnnode.task_queue import ANALYSE, DELIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from alnnode.audit.trail import Trail
    from alnnode.node.listening_sockets import Sockets
    from alnnode.settings import Settings

BROKER_STOP_LIMIT = 2.0  # seconds
POLL = 0.2  # seconds
RETIREMENT = 600.0  # seconds that associations and requests have to end after a reload; an analysis has its own time limit

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Command:
    """A command of ``alnnode`` that runs processes.

    Attributes:
        name: of the command.
        config: the settings file, which a reload reads once more.
        make: returns the processes for settings; they are not started yet.
        analyses: whether an analysing worker is among them.
    """

    name: str
    config: Path | None
    make: Callable[[Settings], list[SupervisedProcess]]
    analyses: bool = False


@dataclass(slots=True)
class _Node:
    """What a reload replaces, and the command that started it."""

    command: Command
    settings: Settings
    processes: ProcessSet
    background: Background


def serve(settings: Settings, config: Path | None) -> int:
    """Run the whole node until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: another node uses this data directory or a port, or a process does not start.
    """
    child.protect_memory_and_files()
    with ExitStack() as stack:
        stack.enter_context(_lock(settings.node.data_dir.resolve()))
        stack.enter_context(ports.claimed(settings.node.data_dir, ports.ports_of(settings)))
        schema.migrate(settings.database_url)
        redis = None if settings.broker.url else _redis(settings)
        sockets = stack.enter_context(listening_sockets(settings))

        def make(present: Settings) -> list[SupervisedProcess]:
            return [*_listeners(present, config, sockets), *_web(config, sockets), *_workers(config)]

        return _run(settings, redis, Command("serve", config, make, analyses=True), sweeps=True)


def listen(settings: Settings, config: Path | None) -> int:
    """Run listeners, sweep and HTTP service until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database does not have the schema of this version, another node uses a port, or a process does not start.
    """
    child.protect_memory_and_files()
    schema.schema_state(settings.database_url)
    _check_broker(settings)
    claim = ports.claimed(settings.node.data_dir, ports.ports_of(settings))
    with claim, listening_sockets(settings) as sockets:

        def make(present: Settings) -> list[SupervisedProcess]:
            return [*_listeners(present, config, sockets), *_web(config, sockets)]

        return _run(settings, None, Command("listen", config, make), sweeps=True)


def sweep(settings: Settings, config: Path | None) -> int:
    """Run the sweep alone until SIGTERM or SIGINT; return the exit code. Of several sweeps, one leads and the others wait.

    Raises:
        ServiceError: the database does not have the schema of this version, or no broker is configured.
    """
    child.protect_memory_and_files()
    schema.schema_state(settings.database_url)
    _check_broker(settings)
    return _run(settings, None, Command("sweep", config, lambda _: []), sweeps=True)


def web(settings: Settings, config: Path | None) -> int:
    """Run the HTTP service alone until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database does not have the schema of this version, another program uses the port, or the process does not start.
    """
    child.protect_memory_and_files()
    schema.schema_state(settings.database_url)
    claim = ports.claimed(settings.node.data_dir, [ports.web_port(settings)])
    with claim, listening_sockets(settings, receives=False) as sockets:
        return _run(settings, None, Command("web", config, lambda _: _web(config, sockets)), sweeps=False)


def work(settings: Settings, config: Path | None) -> int:
    """Run both workers until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database does not have the schema of this version, or a process does not start.
    """
    child.protect_memory_and_files()
    schema.schema_state(settings.database_url)
    _check_broker(settings)
    return _run(settings, None, Command("work", config, lambda _: _workers(config), analyses=True), sweeps=False)


def _check_broker(settings: Settings) -> None:
    if not settings.broker.url and not private_redis.answers(settings.redis_socket):
        raise ServiceError(
            "no broker is configured: set [broker] url to a Redis that listeners and workers share, or run `alnnode serve`"
        )


def _environment(config: Path | None) -> dict[str, str]:
    return {**os.environ, **({"ALNNODE_CONFIG": str(config.resolve())} if config else {})}


def _redis(settings: Settings) -> SupervisedProcess:
    socket = settings.redis_socket
    return SupervisedProcess(
        "redis", lambda: private_redis.prepare(socket), os.environ, ready=lambda: private_redis.answers(socket)
    )


def _listeners(settings: Settings, config: Path | None, sockets: Sockets) -> list[SupervisedProcess]:
    environment, arguments = _environment(config), [sys.executable, "-m", "alnnode.receive"]
    own = {LISTENER_FD: sockets[LISTENER_FD]}
    numbers = range(1, settings.listener.processes + 1)
    return [ListeningProcess(f"listener-{number}", arguments, environment, own) for number in numbers]


def _web(config: Path | None, sockets: Sockets) -> list[SupervisedProcess]:
    if WEB_FD not in sockets:
        return []
    own = {WEB_FD: sockets[WEB_FD]}
    return [ListeningProcess("web", [sys.executable, "-m", "alnnode.web"], _environment(config), own)]


def _workers(config: Path | None) -> list[SupervisedProcess]:
    environment = _environment(config)
    # A damaged model bundle must stop the analysis only: the node still receives and delivers.
    return [
        SupervisedProcess(f"worker-{queue}", [sys.executable, "-m", "workers", queue], environment, needed=queue != ANALYSE)
        for queue in (ANALYSE, DELIVER)
    ]


def _run(settings: Settings, redis: SupervisedProcess | None, command: Command, *, sweeps: bool) -> int:
    """Start Redis, the other processes and the sweep; supervise them until a signal comes; then stop Redis last. Return the exit code.

    SIGHUP reloads the configuration.
    """
    stop, hangup = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: hangup.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # `alnnode.cli.run_commands` holds it back until here
    logs.configure(settings.logging, JobLogs(settings.node.data_dir).write)
    processes = ProcessSet(command.make(settings), partial(heartbeat.write_starting, settings.node.data_dir))
    node = _Node(command, settings, processes, Background(settings, _sweep_in_thread if sweeps else None))
    brokers = ProcessSet([redis] if redis else [])
    try:
        if redis is not None:
            log.info("private_redis", server=private_redis.newest_program().description)
            redis.start()
        ready = node.processes.start(stop)  # they need no broker: Redis reads its file meanwhile
        if redis is not None:
            _wait_for_redis(redis, settings.redis_socket, stop)
        if not stop.is_set():
            log.info("node_ready", parts=[*(["redis"] if redis else []), *ready])
            node.background.start()
            node.processes.start_workers()
            node.background.trail.put(node.background.trail.events.application(started=True))
            with announced(settings.node.data_dir, command.name) as file:
                _supervise(node, brokers, stop, lambda: _reload_if_asked(node, hangup, file, stop))
    finally:
        stop.set()
        node.processes.stop(STOP_LIMIT)
        node.background.stop_sweep()
        brokers.stop(BROKER_STOP_LIMIT)
        node.background.trail.put(node.background.trail.events.application(started=False))
        node.background.close()
    log.info("stopped")
    return 0


def _supervise(node: _Node, brokers: ProcessSet, stop: threading.Event, also: Callable[[], None]) -> None:
    """Restart what dies until ``stop`` is set."""
    while not stop.wait(POLL):
        node.background.check()
        brokers.supervise()
        node.processes.supervise()
        also()


def _sweep_in_thread(settings: Settings, trail: Trail, stop: threading.Event) -> None:
    from alnnode.node.sweep_loop import run_sweep  # noqa: PLC0415 - it is imported while the node already receives

    run_sweep(settings, trail, stop)


def _reload_if_asked(node: _Node, hangup: threading.Event, file: SupervisorFile, stop: threading.Event) -> None:
    if hangup.is_set():
        hangup.clear()
        _reload(node, file, stop)


def _reload(node: _Node, file: SupervisorFile, stop: threading.Event) -> None:
    """Replace everything by processes with the configuration in the file; keep the old one if anything is wrong with it."""
    command = node.command
    try:
        settings = changed_settings(node.settings, command.config, analyses=command.analyses)
        limit = max(RETIREMENT, settings.prior_seconds + settings.analysis.time_limit + RETIREMENT)
        node.processes.replace(command.make(settings), limit, stop)
    except (SettingsError, ServiceError) as error:
        log.error("configuration_not_reloaded", error=str(error))  # noqa: TRY400 - the message is complete
        file.reloaded(str(error))
        return
    node.settings = settings
    logs.configure(settings.logging, JobLogs(settings.node.data_dir).write)
    node.background.restart(settings)
    node.background.trail.put(node.background.trail.events.acted("supervisor", "", "reload of the configuration"))
    file.reloaded()
    log.info("configuration_reloaded", routes=len(settings.routes), destinations=len(settings.destinations))


def _wait_for_redis(redis: SupervisedProcess, path: Path, stop: threading.Event) -> None:
    """Wait for Redis. If it cannot read its append-only file, start it without: the sweep enqueues the lost messages once more."""
    try:
        wait([redis], stop)
    except ServiceError:
        aside = private_redis.set_aside_file(path)
        if aside is None:
            raise
        log.warning("redis_file_set_aside", file=str(aside))
        start([redis], stop)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock the data directory: a second supervisor would delete the socket of the first one's Redis."""
    with open_lock(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServiceError(
                f"another `alnnode serve` uses the data directory {folder}; stop it, or choose another [node] data_dir"
            ) from error
        yield
