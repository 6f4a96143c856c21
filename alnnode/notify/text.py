"""The content of a message: JSON for a webhook, plain text for a mail. Both follow from the message alone, so that each attempt has the same."""

from __future__ import annotations

import json
from collections import Counter
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alnnode.notify.outbox import Message, Notice
    from alnnode.settings import Mail

WORDS = {
    "destination_fails": "destination accepts no results",
    "destination_works": "destination works again",
    "disk_full": "disk is full",
    "disk_free": "disk has space again",
    "worker_missing": "worker is missing",
    "worker_back": "worker is back",
    "drift": "probabilities have changed",
    "drift_ended": "probabilities are as before",
    "job_failed": "job failed",
    "test": "test message",
}
ADVICE = '`alnnode jobs` lists the jobs; docs/operations.md explains each fault ("Notifications", "Failed jobs").'


def webhook_body(message: Message, node: str) -> bytes:
    """Return the body of a webhook: JSON in UTF-8.

    Args:
        message: to send.
        node: AE title of this node.
    """
    events = [
        {"id": one.event_id, "kind": one.kind, "subject": one.subject, "at": one.at.isoformat(), "text": one.text}
        for one in message.notices
    ]
    content = {"type": "alnnode.notification", "timestamp": message.created_at.isoformat(), "node": node, "events": events}
    return json.dumps(content, ensure_ascii=False).encode()


def mail(message: Message, node: str, settings: Mail) -> EmailMessage:
    """Return a message as a mail, with a Message-ID that is the same in each attempt."""
    found = EmailMessage()
    found["From"], found["To"] = settings.sender, ", ".join(settings.recipients)
    found["Subject"] = f"[{node}] {_subject(message.notices)}"
    found["Date"] = format_datetime(message.created_at)
    found["Message-ID"] = f"<{message.message_id}@{settings.sender.rpartition('@')[2]}>"
    found["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office reply is sent
    lines = [f"{one.at:%Y-%m-%d %H:%M:%S} UTC  {one.text}" for one in message.notices]
    found.set_content("\n\n".join([*lines, ADVICE]) + "\n")
    return found


def _subject(notices: tuple[Notice, ...]) -> str:
    counts = Counter(one.kind for one in notices)
    return "; ".join(f"{WORDS.get(kind, kind)}" + (f" ({count})" if count > 1 else "") for kind, count in counts.items())
