"""Notifiers with a webhook and a mail server, and faults that they tell of."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from receivers import webhook

from alnnode.notify.notifier import Notifier
from alnnode.settings import DestinationCStore, Notify, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import Engine
    from stages import Stages

SECRET = "0123456789abcdef0123456789abcdef"


def fail_job(stages: Stages, series: str) -> str:
    """A job that fails now, with a reason."""
    return stages.fail(stages.ready_job(series))


def configure(folder, hook, mail) -> Path:
    (folder / "secret").write_text(SECRET)
    config = folder / "config.toml"
    config.write_text(
        f"""[node]
data_dir = "{folder}"
[retention]
min_free_mb = 0
[notify]
gather = 0.05
webhook = {{ url = "http://127.0.0.1:{hook.port}/alerts?token=hunter2", secret_file = "{folder / "secret"}", timeout = 30 }}
[notify.mail]
host = "127.0.0.1"
port = {mail.port}
security = "none"
sender = "alnnode@hospital.example"
recipients = ["pacs@hospital.example", "it@hospital.example"]
timeout = 30
"""
    )
    return config


def settings(tmp_path: Path, **changes: object) -> Settings:
    (tmp_path / "secret").write_text(SECRET)
    return Settings(node={"data_dir": tmp_path}, notify=Notify(**changes), retention={"min_free_mb": 0})


class Told:
    """What a notifier with a webhook sends; its time goes on by `ahead`."""

    def __init__(self, notifier: Notifier, hook: Any) -> None:
        self.notifier, self.hook, self.ahead = notifier, hook, timedelta()

    def now(self, _database: object) -> datetime:
        """Return the time of the notifier, which takes this object for the clock of the database."""
        return datetime.now(UTC) + self.ahead

    def events(self) -> list[tuple[str, str]]:
        """Return kind and subject of each event that was sent."""
        return [(one["kind"], one["subject"]) for _, body in self.hook.received for one in json.loads(body)["events"]]

    def after(self, seconds: float) -> list[tuple[str, str]]:
        """Let the notifier look after some seconds; return all events."""
        self.ahead += timedelta(seconds=seconds)
        self.notifier.once()
        return self.events()


@contextmanager
def telling(folder: Path, engine: Engine, **changes: object) -> Iterator[Told]:
    """Make a notifier for a node with the destination pacs, and a webhook that receives."""
    with webhook() as hook:
        there = {"url": f"http://127.0.0.1:{hook.port}/", "secret_file": folder / "secret"}
        pacs = DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
        found = settings(folder, webhook=there, after=300, gather=1, **changes).model_copy(update={"destinations": (pacs,)})
        told = Told(Notifier(found, engine), hook)
        with patch("alnnode.notify.notifier.clock", told):
            yield told
