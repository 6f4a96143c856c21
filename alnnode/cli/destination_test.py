"""Test a destination: C-ECHO or a search, then a marked test study that is sent and, where the destination can delete it, removed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from alnnode.deliver import connection_test
from alnnode.deliver.destination_choice import connect
from alnnode.errors import DeliveryError

if TYPE_CHECKING:
    from alnnode.settings import Destination


def send_test_study(settings: Destination, ae_title: str) -> str:
    """Send the test study, and remove it where that is possible; return what happened.

    Raises:
        DeliveryError: the destination did not store it.
    """
    with TemporaryDirectory(prefix="alnnode-test-") as folder:
        objects = connection_test.write_test_study(Path(folder), ae_title, settings.name)
        connect(settings, ae_title).send(objects)
    study = connection_test.study_uid(ae_title, settings.name)
    if settings.kind == "stow" and _deleted(settings, study):
        return f"a test study of {len(objects)} objects was stored, and removed again"
    return (
        f"a test study of {len(objects)} objects was stored: find and delete it at the destination "
        f"(Patient ID {connection_test.PATIENT_ID}, Study Instance UID {study})"
    )


def _deleted(settings: Destination, study: str) -> bool:
    """Return whether the origin server deleted the study: many do on DELETE, which PS3.18 does not define."""
    from alnnode.clients.dicomweb import DicomwebClient  # noqa: PLC0415 - a node with only C-STORE needs no HTTP client

    if settings.kind != "stow":
        return False
    try:
        with DicomwebClient(settings).connect() as connection:
            return connection.delete(f"studies/{study}").is_success
    except DeliveryError:
        return False
