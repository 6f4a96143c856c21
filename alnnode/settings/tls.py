"""TLS: the certificate files of the node's own servers, and of its connections to peers. `alnnode.tls` makes contexts of them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from alnnode.settings.section import Section


class Tls(Section):
    """PEM files of the node: its certificate with the chain, and the private key without a password."""

    certificate: Path | None = None
    private_key: Path | None = None

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together; give both or none")
        return self


class ServerTls(Tls):
    """A server of the node, which always shows a certificate."""

    certificate: Path
    private_key: Path


class ListenerTls(ServerTls):
    """The DICOM listener, which can ask senders for a certificate (mutual TLS)."""

    ca: Path | None = None  # signs the certificates of senders
    mutual: bool = True
    peer_names: tuple[str, ...] = ()  # empty: every certificate that the CA signed

    @model_validator(mode="after")
    def _mutual_needs_a_ca(self) -> Self:
        if self.mutual and self.ca is None:
            raise ValueError("mutual TLS needs ca, the file that signs your senders' certificates; or set mutual = false")
        if self.peer_names and not self.mutual:
            raise ValueError("peer_names needs mutual = true: without it no sender shows a certificate")
        return self


class ClientTls(Tls):
    """A connection to a peer. The peer's certificate is always verified; the node shows its own only where the peer asks for one."""

    ca: Path  # signed the certificate of the peer
    server_name: str | None = None  # the name in that certificate; None: the peer's host
