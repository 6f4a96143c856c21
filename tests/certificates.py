"""Certificates for tests, made anew: an authority, its stranger, and what they issue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import trustme

if TYPE_CHECKING:
    from pathlib import Path


class Pair(NamedTuple):
    """PEM files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority; ``pem`` is the file that trusts it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ca = trustme.CA()
        self.pem = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.pem)

    def issue(self, name: str, *, ended: bool = False, to: Pair | None = None) -> Pair:
        """Write a certificate for a DNS name or address with its key, over ``to`` when given."""
        times = {"not_after": datetime.now(UTC) - timedelta(days=1)} if ended else {}
        leaf = self._ca.issue_cert(name, common_name=name, **times)
        pair = to or Pair(self._folder / f"{name}{'-ended' * ended}.pem", self._folder / f"{name}{'-ended' * ended}.key")
        pair.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(pair.key)
        return pair
