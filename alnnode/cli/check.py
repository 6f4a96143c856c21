"""The checks of ``alnnode check``: each looks at one thing that the node needs, and says what to do when it is missing."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from alnnode.errors import AlnnodeError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from alnnode.settings import ArchiveDicom, AuditFile, AuditTls, AuditUdp, Destination, Settings


ADVICE = "check that it runs, that host, port and AE title are right, and that it knows the AE title of this node"
CERTIFICATE_DAYS = 30  # a certificate that expires sooner fails the check: renewing takes hospitals weeks


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check, a line of the table."""

    what: str
    passed: bool
    found: str
    advice: str = ""


def run(settings: Settings, config: Path | None) -> Iterator[Result]:
    """Yield the result of each check. What a check raises is its result."""
    yield Result("settings", True, f"{config}" if config else "defaults (no config.toml here)")
    yield disk(settings)
    yield from ports(settings)
    yield _reached("database", lambda: _database(settings), "run `alnnode migrate`, and check [database] url")
    if settings.spool.bucket:
        yield _guarded("object storage", lambda: _storage(settings), "check [spool], the bucket and the credentials")
    yield _reached("broker", lambda: _broker(settings), "start the broker, and check [broker] url")
    yield _guarded("model bundle", lambda: _bundle(settings), "check [analysis] bundle, or export the bundle once more")
    yield _guarded("device", lambda: _device(settings), 'install the [worker] extra, or set [analysis] device = "cpu"')
    for certificate, load, then in _certificates(settings):
        look = partial(_certificate, certificate, load)
        yield _guarded(f"certificate {certificate.name}", look, f"renew or correct the files; {then}")
    for what, file in _secret_files(settings):
        yield _guarded(f"secret of {what}", partial(_secret, file), f"correct the path, or let user {os.geteuid()} read it")
    if settings.audit.kind != "off":
        yield _guarded(
            "audit repository",
            partial(_audit, settings.audit, settings.node.ae_title),
            "check [audit]; the messages wait in data_dir until then",
        )
    yield from destinations(settings)
    for archive in settings.archives:
        if archive.kind == "dicom":
            yield _reached(f"archive {archive.name}", partial(_echo_archive, archive, settings.node.ae_title))
    yield from _hints(settings)


def destinations(settings: Settings) -> Iterator[Result]:
    """Check that each destination answers."""
    if not settings.destinations:
        yield Result("destinations", True, "none: results stay in data_dir", "add a [[destinations]] table to deliver them")
    for destination in settings.destinations:
        yield _reached(f"destination {destination.name}", partial(_echo, destination, settings.node.ae_title))


def send(settings: Settings, name: str) -> Result:
    """Send the test study to a destination of the settings."""
    from alnnode.cli.destination_test import send_test_study  # noqa: PLC0415

    destination = next(one for one in settings.destinations if one.name == name)
    return _reached(f"test study to {name}", lambda: send_test_study(destination, settings.node.ae_title))


def _hints(settings: Settings) -> Iterator[Result]:
    from alnnode.cli.hints import hints  # noqa: PLC0415

    return (Result(hint.what, True, hint.found, hint.advice) for hint in hints(settings))


def _guarded(what: str, look: Callable[[], str], advice: str) -> Result:
    try:
        return Result(what, True, look())
    except (AlnnodeError, OSError, ImportError) as error:
        return Result(what, False, str(error).splitlines()[0], advice)


def _reached(what: str, look: Callable[[], str], other_advice: str = ADVICE) -> Result:
    """Check a peer or service; the text of its error is "fault: advice" (`alnnode.clients.faults`, `alnnode.db.faults`)."""
    result = _guarded(what, look, other_advice)
    fault, _, advice = result.found.partition(": ")
    return Result(what, False, fault, advice) if advice and not result.passed else result


def disk(settings: Settings) -> Result:
    """Check that the data directory can be written, and has enough space."""
    folder = settings.node.data_dir.resolve()
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 - it does not raise
    try:
        with tempfile.TemporaryDirectory(prefix=".alnnode-check-", dir=existing):
            free = shutil.disk_usage(existing).free // 2**20
    except OSError as error:
        found = f"cannot write into {existing}" if existing == folder else f"cannot create {folder}"
        user = f"user {os.geteuid()}"
        return Result(
            "disk", False, f"{found} ({error.strerror})", f"correct [node] data_dir, or give {user} the right to write there"
        )
    if free < settings.retention.min_free_mb:
        advice = f"free {settings.retention.min_free_mb} MB or more: the listener refuses every image (0xA700) below that"
        return Result("disk", False, f"{free} MB free at {existing}", advice)
    later = "" if existing == folder else f"; `alnnode serve` creates {folder}"
    return Result("disk", True, f"{free} MB free at {existing}{later}")


def ports(settings: Settings) -> Iterator[Result]:
    """Check that the ports of the node are free, or that this node itself listens on them."""
    from alnnode.node import ports as node_ports  # noqa: PLC0415

    for port in node_ports.ports_of(settings):
        where = f"port {port.port} of {port.host}"
        if node_ports.held_by_this_node(settings.node.data_dir, port):
            yield Result(f"{port.section} port", True, f"this node listens on {where}")
            continue
        try:
            node_ports.check(port)
        except ServiceError as error:
            found, _, advice = str(error).partition(": ")
            yield Result(f"{port.section} port", False, found, advice)
        else:
            yield Result(f"{port.section} port", True, f"{where} is free")


def _database(settings: Settings) -> str:
    from alnnode.db.schema import has_no_database, schema_state  # noqa: PLC0415

    if has_no_database(settings.database_url):
        return "none yet: `alnnode serve` creates it"
    return schema_state(settings.database_url)


def _storage(settings: Settings) -> str:
    from alnnode.spool.opening import open_spool  # noqa: PLC0415

    open_spool(settings).time()  # writes, reads and deletes an object
    return f"the bucket {settings.spool.bucket} answers"


def _broker(settings: Settings) -> str:
    from alnnode.task_queue import ping  # noqa: PLC0415

    if settings.broker.url:
        return ping(settings.broker_url)

    from alnnode.node import private_redis  # noqa: PLC0415

    description = f"private {private_redis.newest_program().description}"
    if not settings.redis_socket.exists():
        return f"{description}, started by `alnnode serve`"
    return f"{description}: {ping(settings.broker_url)}"


def _bundle(settings: Settings) -> str:
    from alnnode.model import bundle  # noqa: PLC0415

    identity = bundle.load(bundle.resolve(settings.analysis.bundle)).identity
    return f"{identity.name} {identity.version}, digest {identity.digest[:12]}: {identity.banner}"


def _device(settings: Settings) -> str:
    from alnnode.model.ensemble import choose_device, describe_device  # noqa: PLC0415

    return describe_device(choose_device(settings.analysis.device))


def _certificates(settings: Settings) -> Iterator[tuple[Path, Callable[[], object], str]]:
    """Yield the certificates of the node, each with a function that loads it with its key and authority, and with how the node reads it."""
    from alnnode import tls  # noqa: PLC0415

    at_once = "the node reads them without a restart"
    if settings.listener.tls is not None:
        yield settings.listener.tls.certificate, partial(tls.server_context, settings.listener.tls), at_once
    if settings.web.enabled and settings.web.tls is not None:
        own = settings.web.tls
        yield own.certificate, partial(tls.check_pair, own.certificate, own.private_key), "then run `alnnode reload`"
    for peer in (*(one.tls for one in settings.destinations), *(one.tls for one in settings.archives)):
        if peer is not None and peer.certificate is not None:
            yield peer.certificate, partial(tls.client_context, peer), at_once


def _secret_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield the files of secrets that no other check reads, each with its owner in the settings."""
    found: list[tuple[str, Path | None]] = [
        (f"web token {one.name}", one.file) for one in settings.web.tokens if settings.web.enabled
    ]
    found += [(f"archive {one.name}", one.token_file) for one in settings.archives if one.kind == "dicomweb"]
    if settings.notify.webhook is not None:
        found.append(("webhook", settings.notify.webhook.secret_file))
    if settings.notify.mail is not None:
        found.append(("mail", settings.notify.mail.password_file))
    return ((what, file) for what, file in found if file is not None)


def _secret(file: Path) -> str:
    """Check that a secret can be read; it is not shown."""
    try:
        if file.read_text(encoding="utf-8").strip():
            return f"{file} can be read"
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        raise ServiceError(f"cannot read {file} ({reason})") from error
    raise ServiceError(f"{file} is empty")


def _certificate(certificate: Path, load: Callable[[], object]) -> str:
    from alnnode.tls import expiry  # noqa: PLC0415

    load()
    ends = expiry(certificate)
    days = (ends - datetime.now(UTC)).days
    if days < CERTIFICATE_DAYS:
        raise ServiceError(f"{'expired' if days < 0 else 'expires'} on {ends:%Y-%m-%d}")
    return f"valid until {ends:%Y-%m-%d}"


def _audit(audit: AuditFile | AuditTls | AuditUdp, app_name: str) -> str:
    from alnnode.audit.sinks import open_sink  # noqa: PLC0415

    return open_sink(audit, app_name).reach()


def _echo(destination: Destination, ae_title: str) -> str:
    from alnnode.deliver.destination_choice import connect  # noqa: PLC0415

    connect(destination, ae_title).echo()
    return f"{destination.kind} answers"


def _echo_archive(archive: ArchiveDicom, ae_title: str) -> str:
    from alnnode.clients.query_retrieve import Retriever  # noqa: PLC0415

    Retriever(archive, ae_title).echo()
    return "dicom answers"
