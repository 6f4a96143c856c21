"""Commands that run the node or a part of it, and prepare its database: serve, listen, sweep, work, web, migrate, token."""

from __future__ import annotations

import hashlib
import secrets
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.cli.shared import Config, config_path, load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.settings import Settings


def _settings(config: Path | None) -> Settings:
    """Load the settings of a node that starts.

    A reload that is asked for meanwhile (SIGHUP) waits until the supervisor can do it; without a handler, the signal would end the process.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    return load_settings(config)


def serve(config: Config = None) -> None:
    """Run the whole node until it is stopped.

    Listeners, sweep, workers, HTTP service and, by default, a private Redis.
    """
    from alnnode.process.quick_imports import uncollected  # noqa: PLC0415

    settings = _settings(config)
    with uncollected():
        from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.serve(settings, config_path(config)))


def listen(config: Config = None) -> None:
    """Run the listeners, the sweep and the HTTP service.

    The workers run elsewhere, with the same database, broker and data_dir.
    """
    settings = _settings(config)
    from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.listen(settings, config_path(config)))


def sweep(config: Config = None) -> None:
    """Run only the sweep.

    It completes series, enqueues tasks, and deletes old files. Of all sweeps one leads; another takes over when the leader is lost.
    """
    settings = _settings(config)
    from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.sweep(settings, config_path(config)))


def work(config: Config = None) -> None:
    """Run the workers: analysis and delivery."""
    settings = _settings(config)
    from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.work(settings, config_path(config)))


def web(config: Config = None) -> None:
    """Run only the HTTP service.

    DICOMweb, status page, health and metrics.
    """
    settings = _settings(config)
    from alnnode.node import supervisor  # noqa: PLC0415

    raise typer.Exit(supervisor.web(settings, config_path(config)))


def migrate(
    config: Config = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Label the database with an earlier schema, so that processes of that version start beside those of this one; "
            '"none" removes the label.'
        ),
    ] = None,
) -> None:
    """Upgrade the database to the schema of this version.

    Running it again changes nothing. A label stays.
    """
    from alnnode.db.schema import head, schema_state  # noqa: PLC0415
    from alnnode.db.schema import migrate as upgrade  # noqa: PLC0415
    from alnnode.node.data_dir import make_data_dir  # noqa: PLC0415

    settings = load_settings(config)
    if not settings.database.url:
        make_data_dir(settings.node.data_dir)
    upgrade(settings.database_url, label)
    present = schema_state(settings.database_url).removeprefix("schema ")
    labelled = f" It is labelled {present}; `alnnode migrate --label none` removes the label." if present < head() else ""
    typer.echo(f"The database has the schema of this version.{labelled}")


def token() -> None:
    """Make a token for the HTTP service.

    It prints a secret for the user, and the sha256 of it for [[web.tokens]].
    """
    secret = secrets.token_urlsafe(32)
    typer.echo(f"Secret for the user (it is stored nowhere): {secret}")
    typer.echo(f'For config.toml: sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"')
