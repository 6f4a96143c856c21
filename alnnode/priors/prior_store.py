"""Store what later comparisons need of a report, for longer than the report itself is retained.

The files hold neither name nor number of a patient. The name of a folder is a digest of the patient's identity, keyed with a secret of this
node, so that neither a listing nor a backup of the folder alone identifies anybody. Whoever also has the secret can test a known
patient number against the folder. With ``[retention] follow_up_days = 0`` nothing is stored.

Layout below the spool::

    priors/key                          32 random bytes in hex, made once
    priors/<aa>/<patient>/<report>.json digests of patient and report
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset


class Patient(NamedTuple):
    """The identity of a patient: Patient ID, its issuer, and the birth date, which tells two people with one number apart."""

    number: str
    issuer: str
    birth_date: str


def patient_of(header: Dataset) -> Patient | None:
    """Return the identity of the patient; None when the header has no Patient ID."""
    number, issuer, birth = (
        str(header.get(keyword) or "").strip() for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate")
    )
    return Patient(number, issuer, birth) if number else None


class PriorStore:
    """Prior reports by patient. Threads and processes may share a folder. Every method raises `OSError` when the disk fails.

    Args:
        spool: root folder of the spool.
    """

    def __init__(self, spool: Path) -> None:
        self._root = spool / "priors"

    def store(self, patient: Patient, report_uid: str, data: bytes) -> None:
        """Write what a report leaves for comparisons, durably; replace earlier data of the same report."""
        folder = self._folder(patient)
        for missing in (folder.parent, folder):
            missing.mkdir(mode=0o700, exist_ok=True)
        self._replace(folder / f"{hashlib.sha256(report_uid.encode()).hexdigest()}.json", data)

    def recall(self, patient: Patient) -> list[bytes]:
        """Return the stored data of a patient's reports, in no particular order."""
        found = []
        for path in self._folder(patient).glob("*.json"):
            with suppress(FileNotFoundError):  # another process deleted it
                found.append(path.read_bytes())
        return found

    def delete_before(self, moment: float) -> int:
        """Delete the data written before a moment (seconds since the epoch); return the number of reports."""
        count = 0
        for path in self._root.glob("*/*/*.json"):
            with suppress(FileNotFoundError):  # another process deleted it
                if path.stat().st_mtime < moment:
                    path.unlink()
                    count += 1
                    with suppress(OSError):  # the folder is not empty
                        path.parent.rmdir()
        return count

    def _folder(self, patient: Patient) -> Path:
        name = hmac.new(self._key(), "\0".join(patient).encode("utf-8"), hashlib.sha256).hexdigest()
        return self._root / name[:2] / name

    def _key(self) -> bytes:
        path = self._root / "key"
        with suppress(FileNotFoundError):
            return path.read_bytes()
        for missing in (self._root.parent, self._root):
            missing.mkdir(mode=0o700, exist_ok=True)
        draft = self._root / f"{uuid4().hex}.tmp"
        self._create(draft, secrets.token_hex(32).encode())
        with suppress(FileExistsError):  # of two processes exactly one makes the key
            os.link(draft, path)
        draft.unlink()
        return path.read_bytes()

    def _replace(self, path: Path, data: bytes) -> None:
        draft = path.with_name(f"{uuid4().hex}.tmp")
        try:
            self._create(draft, data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @staticmethod
    def _create(path: Path, data: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
