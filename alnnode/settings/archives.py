"""Section ``[[archives]]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Tag, model_validator

from alnnode.settings.kinds import by_kind
from alnnode.settings.section import AETitle, Host, Port, Seconds, Section, SenderName, ServiceRoot
from alnnode.settings.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Archive(Section):
    """An archive that the node asks for the input of workitems and for earlier reports."""

    # Images that are fetched over DICOMweb are received under this name as under an AE title.
    name: SenderName
    timeout: Seconds = 60
    tls: ClientTls | None = None  # None: DICOM without TLS; DICOMweb with the certificate authorities of the system


class ArchiveDicom(_Archive):
    """An archive that is asked by C-FIND and C-MOVE; it sends to [node] ae_title."""

    kind: Literal["dicom"] = "dicom"
    ae_title: AETitle
    host: Host
    port: Port


class ArchiveDicomweb(_Archive):
    """An archive that is asked by QIDO-RS and WADO-RS."""

    kind: Literal["dicomweb"] = "dicomweb"
    url: ServiceRoot
    token_file: Path | None = None  # holds a bearer token

    @model_validator(mode="after")
    def _tls_needs_https(self) -> Self:
        if self.tls and (not self.url.startswith("https://") or self.tls.server_name):
            raise ValueError("tls needs a url that begins with https://, which names the server: leave server_name out")
        return self


ARCHIVES: Mapping[str, type[Section]] = {"dicomweb": ArchiveDicomweb, "dicom": ArchiveDicom}
Archive = Annotated[
    Annotated[ArchiveDicomweb, Tag("dicomweb")] | Annotated[ArchiveDicom, Tag("dicom")], by_kind(ARCHIVES, "dicomweb")
]
