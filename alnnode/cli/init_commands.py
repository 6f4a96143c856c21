"""``alnnode init``: write the settings of a new node, make its token, and test the PACS."""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.cli.inspect_commands import print_results
from alnnode.cli.shared import DEFAULT_CONFIG, EXIT_FAILED, stop
from alnnode.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alnnode.cli.check import Result
    from alnnode.settings import Settings

CONFIG = """\
# Written by `alnnode init`. config.example.toml explains every key.
[node]
ae_title = {ae_title}
data_dir = {data_dir}

[listener]
host = {host}
port = {port}
addresses = {addresses}             # who may send images

[web]
port = {web_port}                        # status page and DICOMweb, for this machine only

[[web.tokens]]
name = "admin"
roles = ["read", "send", "admin"]
sha256 = "{sha256}"
"""
DESTINATION = """
[[destinations]]
name = "pacs"
ae_title = {ae_title}
host = {host}
port = {port}
"""
LOOPBACK = "127.0.0.0/8"


def init(
    ae_title: Annotated[str | None, typer.Option(help="AE title of this node.")] = None,
    port: Annotated[int | None, typer.Option(help="Port on which this node receives images.")] = None,
    addresses: Annotated[
        str | None, typer.Option(help="Networks that may send, such as 10.1.0.0/16,10.2.3.4. Default: the PACS.")
    ] = None,
    pacs_ae_title: Annotated[str | None, typer.Option(help="AE title of the PACS.")] = None,
    pacs_host: Annotated[str | None, typer.Option(help="Host name or address of the PACS; empty: no PACS yet.")] = None,
    pacs_port: Annotated[int | None, typer.Option(help="DICOM port of the PACS.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for database, images and results.")] = None,
    web_port: Annotated[int, typer.Option(help="Port of the status page.")] = 8124,
    out: Annotated[Path, typer.Option("--out", "-o", help="Settings file to write.")] = DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing settings file.")] = False,
    test: Annotated[bool, typer.Option("--test/--no-test", help="Test the PACS with C-ECHO and a test study.")] = True,
) -> None:
    """Write the settings of a new node, and test the PACS.

    It asks for what no option gives; without a terminal it takes the defaults. It prints a token, and what to enter at the PACS.
    """
    if out.exists() and not force:
        stop(f"{out} exists and stays as it is: --force replaces it, and --out writes another file.", EXIT_FAILED)
    ae_title = _text(ae_title, "AE title of this node", "ALNNODE")
    port = _number(port, "Port on which this node receives images", 11112)
    pacs_host = _text(pacs_host, "Host name or address of the PACS (empty: no PACS yet)", "").strip()
    destination = ""
    if pacs_host:
        pacs_ae_title = _text(pacs_ae_title, "AE title of the PACS", "PACS")
        pacs_port = _number(pacs_port, "DICOM port of the PACS", 104)
        destination = DESTINATION.format(ae_title=_toml(pacs_ae_title), host=_toml(pacs_host), port=pacs_port)
    networks = _text(addresses, "Networks that may send", ",".join(_addresses(pacs_host)))
    allowed = [one.strip() for one in networks.split(",") if one.strip()]
    token = secrets.token_urlsafe(32)
    text = CONFIG.format(
        ae_title=_toml(ae_title),
        data_dir=_toml(str((data_dir or Path("alnnode-data")).absolute())),
        host=_toml("127.0.0.1" if all(map(_is_loopback, allowed)) else "0.0.0.0"),  # noqa: S104 - `addresses` limits who may connect
        port=port,
        addresses=_toml([LOOPBACK, *(one for one in allowed if not _is_loopback(one))]),
        web_port=web_port,
        sha256=hashlib.sha256(token.encode()).hexdigest(),
    )
    settings = _write(out, text + destination)
    typer.echo(f"Wrote {out}.\n")
    passed = not test or _test(settings)
    _print_next(settings, out, token, pacs_host)
    if not passed:
        raise typer.Exit(EXIT_FAILED)


def _text(given: str | None, question: str, default: str) -> str:
    """Return what the option gives, or what a person answers, or the default."""
    if given is not None:
        return given
    return str(typer.prompt(question, default=default, show_default=bool(default))) if sys.stdin.isatty() else default


def _number(given: int | None, question: str, default: int) -> int:
    """Return what the option gives, or the number that a person answers, or the default."""
    if given is not None:
        return given
    return int(typer.prompt(question, default=default, type=int)) if sys.stdin.isatty() else default


def _toml(value: object) -> str:
    """Return a text or a list of texts in TOML, whose strings have the escapes of JSON."""
    return json.dumps(value, ensure_ascii=False)


def _addresses(host: str) -> Iterator[str]:
    """Yield the addresses of the PACS, or loopback when it has none that DNS knows."""
    found: list[str] = []
    with suppress(OSError):
        found = (
            [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)] if host else []
        )
    yield from dict.fromkeys(found or [LOOPBACK])


def _is_loopback(network: str) -> bool:
    with suppress(ValueError):
        return ip_address(network.partition("/")[0]).is_loopback
    return False


def _write(out: Path, text: str) -> Settings:
    """Write the settings file if the node can use it; return the settings.

    Raises:
        SettingsError: an answer cannot be used; the file is not written.
    """
    from alnnode import logs  # noqa: PLC0415 - `alnnode --help` must be fast
    from alnnode.settings import load  # noqa: PLC0415

    new = out.with_name(f"{out.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        settings = load(new)
        new.replace(out)
    except SettingsError as error:
        reasons = str(error).removeprefix(f"{new} cannot be used:").strip("\n")
        raise SettingsError(f"The answers cannot be used, and {out} was not written:\n{reasons}") from error
    except OSError as error:
        stop(f"Cannot write {out} ({error.strerror}): choose another file with --out.", EXIT_FAILED)
    finally:
        new.unlink(missing_ok=True)
    logs.configure(settings.logging)
    return settings


def _test(settings: Settings) -> bool:
    """Print the checks of the disk, the ports and the PACS; return whether all passed."""
    from alnnode.cli import check  # noqa: PLC0415

    results: list[Result] = [check.disk(settings), *check.ports(settings), *check.destinations(settings)]
    if settings.destinations and results[-1].passed:
        results.append(check.send(settings, settings.destinations[0].name))
    print_results(results)
    typer.echo("")
    return all(one.passed for one in results)


def _print_next(settings: Settings, out: Path, token: str, pacs_host: str) -> None:
    config = "" if out == DEFAULT_CONFIG else f" --config {shlex.quote(str(out))}"
    if _is_loopback(settings.listener.host) and not _is_loopback(_own_address(pacs_host)):
        typer.echo(
            "Only this machine can send to the node: name the network of your PACS with --addresses, or in the settings.\n"
        )
    typer.echo(
        "Enter at the PACS, as a destination of its auto-routing for chest CT:\n"
        f"  AE title  {settings.node.ae_title}\n"
        f"  host      {_own_address(pacs_host)}\n"
        f"  port      {settings.listener.port}\n\n"
        f"Token for the status page http://127.0.0.1:{settings.web.port}/ (it is stored nowhere):\n  {token}\n\n"
        f"Next: `alnnode check{config}`, then `alnnode serve{config}`."
    )


def _own_address(peer: str) -> str:
    """Return the address of this machine on the way to the PACS; no packet is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer or "192.0.2.1", 104))
        return str(probe.getsockname()[0])
    return socket.gethostname()
