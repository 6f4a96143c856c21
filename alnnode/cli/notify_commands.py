"""The command on notifications: notify."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from alnnode.cli.shared import EXIT_FAILED, Config, load_settings, open_database, stop
from alnnode.counted import counted

if TYPE_CHECKING:
    from alnnode.notify.notifier import Channel


def notify(
    config: Config = None,
    test: Annotated[bool, typer.Option("--test", help="Send a test message on each channel now.")] = False,
) -> None:
    """Show unsent notifications, or send a test message.

    The channels are webhook and mail, in the section [notify].
    """
    from alnnode.notify.notifier import channels  # noqa: PLC0415
    from alnnode.notify.outbox import NoticeOutbox  # noqa: PLC0415

    settings = load_settings(config)
    found = channels(settings)
    if not found:
        stop("No channel is configured: add webhook or mail to [notify] (config.example.toml shows how).", EXIT_FAILED)
    if test:
        accepted = [_sends(name, channel) for name, channel in found.items()]
        raise typer.Exit(0 if all(accepted) else EXIT_FAILED)
    troubles = NoticeOutbox(open_database(settings, config)).troubles()
    for name, error, count in troubles:
        typer.echo(f"{name}: {counted(count, 'message')} not sent; {error}")
    if troubles:
        raise typer.Exit(EXIT_FAILED)
    typer.echo(f"No message waits after a failure ({', '.join(found)}).")


def _sends(name: str, channel: Channel) -> bool:
    """Send a test message on one channel; print the result and return whether the receiver accepted it."""
    from alnnode.errors import ServiceError  # noqa: PLC0415
    from alnnode.notify.outbox import Message, Notice  # noqa: PLC0415

    now = datetime.now(UTC)
    text = "This is a test of the notifications. Nothing is wrong."
    message = Message(uuid4().hex, name, 1, now, (Notice(uuid4().hex, "test", "test", text, now),))
    try:
        channel.send(message)
    except ServiceError as error:
        typer.echo(str(error), err=True)
        return False
    typer.echo(f"{name}: the receiver accepted a test message")
    return True
