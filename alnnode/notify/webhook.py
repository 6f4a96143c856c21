"""Send messages to a webhook, signed by the rules of Standard Webhooks (standardwebhooks.com): HMAC-SHA256 over id, timestamp and body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from alnnode.errors import ServiceError
from alnnode.notify.text import webhook_body
from alnnode.tls import client_context

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.notify.outbox import Message
    from alnnode.settings import Webhook

LEAST_SECRET = 16  # bytes
PREFIX = "whsec_"  # of a secret in base64


class WebhookChannel:
    """Sends to one URL. Errors name the host, not the URL, which may hold a token."""

    def __init__(self, settings: Webhook, node: str) -> None:
        self._settings, self._node = settings, node

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            ServiceError: the receiver did not accept it; the text says why and what to do.
        """
        settings, body = self._settings, webhook_body(message, self._node)
        host = urlsplit(settings.url).hostname
        secret, timestamp = read_secret(settings.secret_file), int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "alnnode",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, message.message_id, timestamp, body),
        }
        verify = client_context(settings.tls) if settings.tls else True
        try:
            with httpx.Client(timeout=settings.timeout, verify=verify, trust_env=False) as client:
                status = client.post(settings.url, content=body, headers=headers).status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # their texts can hold the URL
            words = "no connection" if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else "no response"
            raise ServiceError(
                f"webhook: {words} from {host} ({type(error).__name__}): check [notify] webhook, the network and the receiver"
            ) from None
        if not 200 <= status < 300:
            raise ServiceError(f"webhook: {host} answers HTTP {status}: check the receiver, and that it knows the same secret")


def read_secret(file: Path) -> bytes:
    """Return the bytes of the secret: decoded from base64 after "whsec_", otherwise the text itself.

    Raises:
        ServiceError: the file cannot be read, or the secret is too short.
    """
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(
            f"webhook: cannot read secret_file {file} ({type(error).__name__}): check its path and owner"
        ) from error
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else text.encode()
    except ValueError as error:
        raise ServiceError(f'webhook: the secret in {file} is not base64 after "{PREFIX}"') from error
    if len(secret) < LEAST_SECRET:
        raise ServiceError(
            f"webhook: the secret in {file} has less than {LEAST_SECRET} bytes: make one with `openssl rand -hex 32`"
        )
    return secret


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header webhook-signature."""
    signed = hmac.digest(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"
