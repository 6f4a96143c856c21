"""The task queue: the producer of Celery tasks, and the Celery options that producer and workers share.

Tasks are sent by name; the node never imports the workers. A message holds one job or delivery id and nothing else: no patient data, and
nothing that is not in the database too.

Celery and Redis are imported at the first use: supervisor and HTTP service need the names of the queues at their start, and the libraries,
whose import takes a fifth of a second, only later.
"""

from __future__ import annotations

import base64
import builtins
import json
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kombu.entity import Queue

    from alnnode.settings import Settings

ANALYSE, DELIVER = "analyse", "deliver"
ANALYSE_TASK, DELIVER_TASK = "alnnode.analyse", "alnnode.deliver"
SOFT_SHARE = 0.9  # of the hard time limit
VISIBILITY_MARGIN = 300.0  # seconds; Redis must not give a task to a second worker while the first may still run it
CONNECT_TIMEOUT = 5.0  # seconds
# A producer waits so many seconds for an answer. A server that is no Redis, or has no TLS, may answer nothing, and TCP notices nothing.
ANSWER_TIMEOUT = 20.0
# A silent broker is given up after about 25 s. A worker waits for tasks without sending: if the broker is replaced while the worker is cut
# off, it would otherwise wait for the old one for two hours.
LOST_BROKER = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3, socket.TCP_USER_TIMEOUT: 20_000}
QUEUE_CACHE_SECONDS = 5.0  # that the ids on a queue are cached: five thousand messages are megabytes
# A producer fails at once when the broker does not answer; the waits of kombu would delay the sweep.
SINGLE_TRY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


def celery_options(settings: Settings) -> dict[str, object]:
    """Return the Celery configuration of producers and workers.

    A task is acknowledged when it ends and rejected when its worker is lost, so that a killed worker loses no job. A worker reserves one
    message at a time, so that no job waits behind a long one. Messages are JSON only, so that whoever can write to the broker cannot run
    code.
    """
    before, hard = settings.prior_seconds, settings.analysis.time_limit  # the search for earlier reports has its own time limit
    transport = _transport(settings)
    return {
        "broker_url": settings.broker_url,
        "broker_transport_options": transport,
        "result_backend_transport_options": transport,
        "visibility_timeout": before + hard + VISIBILITY_MARGIN,
        "broker_connection_timeout": CONNECT_TIMEOUT,
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # without limit: the supervisor or systemd restarts a broker that ended
        "task_queues": [_queue(ANALYSE), _queue(DELIVER)],
        "task_default_queue": ANALYSE,
        "task_create_missing_queues": False,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_time_limit": before + hard,
        "task_soft_time_limit": before + SOFT_SHARE * hard,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # the result is written even if the message is lost
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def _queue(name: str) -> Queue:
    """Return a queue on the default exchange, whose routing needs no key in Redis that could be lost."""
    from kombu.entity import Exchange, Queue  # noqa: PLC0415 - see the module

    return Queue(name, Exchange(""), routing_key=name)  # type: ignore[no-untyped-call]


def _transport(settings: Settings) -> dict[str, object]:
    return {
        "visibility_timeout": settings.prior_seconds + settings.analysis.time_limit + VISIBILITY_MARGIN,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_keepalive": True,
        "socket_keepalive_options": LOST_BROKER,
    }


class Producer:
    """Enqueues ids. Safe to share between threads.

    Enqueue only committed rows: a worker may read the row before the call returns.
    """

    def __init__(self, settings: Settings) -> None:
        from celery import Celery  # noqa: PLC0415 - see the module

        self._app = Celery("alnnode", set_as_current=False)
        options = celery_options(settings)
        self._queued: dict[str, tuple[float, frozenset[str]]] = {}  # by queue: monotonic time of the query, ids
        transport = {**_transport(settings), **SINGLE_TRY, "socket_timeout": ANSWER_TIMEOUT}
        self._app.conf.update({**options, "broker_transport_options": transport})

    def enqueue_analysis(self, job_id: str) -> None:
        """Ask a worker to run a job.

        Raises:
            ServiceError: the broker does not answer; the sweep enqueues the id later.
        """
        self._send(ANALYSE_TASK, ANALYSE, job_id)

    def enqueue_delivery(self, delivery_id: str) -> None:
        """Ask a worker to make all deliveries that are due at the destination of this delivery.

        Raises:
            ServiceError: the broker does not answer; the sweep enqueues the id later.
        """
        self._send(DELIVER_TASK, DELIVER, delivery_id)

    def queued(self, queue: str) -> frozenset[str]:
        """Return the ids that were on a queue at most `QUEUE_CACHE_SECONDS` ago, without those that a worker has reserved.

        Raises:
            ServiceError: the broker does not answer.
        """
        at, ids = self._queued.get(queue, (0.0, frozenset[str]()))
        if not at or time.monotonic() - at > QUEUE_CACHE_SECONDS:
            ids = frozenset(_identifiers(self._messages(queue)))
            self._queued[queue] = (time.monotonic(), ids)
        return ids

    def _messages(self, queue: str) -> list[bytes]:
        with _broker_answers(), self._app.connection_for_write() as connection:
            found: list[bytes] = connection.default_channel.client.lrange(queue, 0, -1)
        return found

    def close(self) -> None:
        """Close the connections."""
        self._app.close()

    def _send(self, task: str, queue: str, identifier: str) -> None:
        with _broker_answers():
            self._app.send_task(task, args=[identifier], queue=queue, retry=False)


def _identifiers(messages: Iterable[bytes]) -> Iterator[str]:
    """Yield the first argument of each message (Celery protocol 2 in kombu's envelope for Redis); skip malformed messages."""
    for message in messages:
        with suppress(ValueError, KeyError, IndexError, TypeError):
            yield str(json.loads(base64.b64decode(json.loads(message)["body"]))[0][0])


def ping(broker_url: str) -> str:
    """Connect to the broker once; return a text that names its kind.

    Raises:
        ServiceError: the broker does not answer.
    """
    from kombu.connection import Connection  # noqa: PLC0415 - see the module

    limits = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": CONNECT_TIMEOUT}
    with _broker_answers(), Connection(broker_url, transport_options=limits) as connection:  # type: ignore[no-untyped-call]
        connection.ensure_connection(**SINGLE_TRY, timeout=CONNECT_TIMEOUT)
        kind: str = connection.transport.driver_type
    return f"{kind} answers"


@contextmanager
def _broker_answers() -> Iterator[None]:
    """Raise a `ServiceError` for each way in which the broker does not answer inside the ``with`` block."""
    from kombu.exceptions import KombuError, OperationalError  # noqa: PLC0415 - see the module
    from redis.exceptions import RedisError  # noqa: PLC0415

    try:
        yield
    except (OperationalError, KombuError, OSError, RedisError) as error:
        raise ServiceError(_broker_words(error)) from error


def _broker_words(error: BaseException) -> str:
    """Return what an error of the broker means, as "fault: advice". It quotes no library, whose texts may hold the URL with its password."""
    from redis.exceptions import AuthenticationError, ResponseError, TimeoutError  # noqa: A004, PLC0415 - see the module

    key, fault = "[broker] url", f"the broker does not answer ({type(error).__name__})"
    advice = f"check that {key} names a Redis, with rediss:// if it uses TLS, and the firewalls"
    for one in _with_causes(error):
        match one:
            case AuthenticationError():
                return f"the broker does not accept the user and the password: correct {key}"
            case ResponseError() if "DB index" in str(one):
                return f"the broker has no database of this number: correct the number at the end of {key}"
            case ssl.SSLError():
                return f"no TLS connection with the broker: check rediss:// and the certificates in {key}"
            case socket.gaierror():
                return f"cannot resolve the host of the broker: check the host in {key}, and the DNS server"
            case ConnectionRefusedError():
                return f"nothing listens at the address of the broker: check that Redis runs, and host and port in {key}"
            case FileNotFoundError():  # a Unix socket: the node's own Redis
                fault, advice = "the Redis of this node does not run", f"start `alnnode serve`, or give {key}"
            case builtins.TimeoutError() | TimeoutError():
                fault = "the broker does not answer in time"
    return f"{fault}: {advice}"


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes, the first cause first."""
    if error is not None:
        yield from _with_causes(error.__cause__ or error.__context__)
        yield error
