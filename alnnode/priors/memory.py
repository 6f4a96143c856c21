"""What the node keeps of its reports for later comparisons, beyond the days that it keeps the reports themselves.

No name and no number of a patient is in it: a folder's name is a digest of both, keyed with a secret of this node, so that neither a listing nor a
backup of the folder alone names anybody. Whoever holds the secret too can test a known number against it; ``[retention] follow_up_days = 0``
keeps nothing.

Layout below the spool::

    priors/key                          32 random bytes, hex; made once
    priors/<aa>/<patient>/<report>.json digests both
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
    """Who a study is of: Patient ID with its issuer, and the birth date, so that two people under one number are not compared."""

    number: str
    issuer: str
    birth_date: str


def patient_of(header: Dataset) -> Patient | None:
    """Return the identity of the patient; None where the images do not tell it."""
    number, issuer, birth = (
        str(header.get(keyword) or "").strip() for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate")
    )
    return Patient(number, issuer, birth) if number else None


class Memory:
    """Safe to share between threads and processes. Every method raises `OSError` when the disk does not do its part."""

    def __init__(self, spool: Path) -> None:
        self._root = spool / "priors"

    def remember(self, patient: Patient, report_uid: str, data: bytes) -> None:
        """Keep what a report leaves for comparisons, durably, over what was kept of it."""
        folder = self._folder(patient)
        for missing in (folder.parent, folder):
            missing.mkdir(mode=0o700, exist_ok=True)
        self._write(folder / f"{hashlib.sha256(report_uid.encode()).hexdigest()}.json", data)

    def recall(self, patient: Patient) -> list[bytes]:
        """Return what is kept of a patient's reports, in no particular order."""
        kept = []
        for path in self._folder(patient).glob("*.json"):
            with suppress(FileNotFoundError):  # forgotten meanwhile
                kept.append(path.read_bytes())
        return kept

    def forget(self, before: float) -> int:
        """Delete what was written before a moment (seconds since the epoch); how many reports."""
        count = 0
        for path in self._root.glob("*/*/*.json"):
            with suppress(FileNotFoundError):  # another process was faster
                if path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
                    with suppress(OSError):  # not empty
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
        made = self._root / f"{uuid4().hex}.tmp"
        self._fill(made, secrets.token_hex(32).encode())
        with suppress(FileExistsError):  # of two processes exactly one is first
            os.link(made, path)
        made.unlink()
        return path.read_bytes()

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f"{uuid4().hex}.tmp")
        try:
            self._fill(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def _fill(path: Path, data: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
