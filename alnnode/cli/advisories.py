"""``alnnode advisories``: check the installed packages against local files of advisories, without a network.

The files are in the OSV format (ossf.github.io/osv-schema): JSON with one advisory or a list, or the archive of all advisories of an
ecosystem, as osv.dev offers it.

No package of PyPI does this without a network (looked at in November 2026): pip-audit asks PyPI or api.osv.dev, and safety needs a
database of its own format. osv-scanner does it (``--offline``, with the same archive), but is a Go program that PyPI does not have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from alnnode.errors import AdvisoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

ECOSYSTEM = "PyPI"
_BEGINNING = Version("0")  # of every version, as the format says


@dataclass(frozen=True, slots=True)
class Finding:
    """An installed package that an advisory affects."""

    package: str
    version: str
    advisory: str
    summary: str
    fixed: str  # the lowest version that fixes it; empty when the advisory names none


def installed() -> dict[str, str]:
    """Return the version of every installed package, by its normalized name."""
    return {canonicalize_name(found.name): found.version for found in metadata.distributions() if found.name}


def read(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the advisories in JSON files, in archives of such files, and in folders of them.

    Raises:
        AdvisoryError: a file cannot be read, or is not in the OSV format.
    """
    for path in paths:
        try:
            if path.is_dir():
                yield from read(sorted(path.glob("*.json")))
            elif path.suffix == ".zip":
                with ZipFile(path) as archive:
                    for name in archive.namelist():
                        yield from _advisories(json.loads(archive.read(name)))
            else:
                yield from _advisories(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, BadZipFile) as error:
            raise AdvisoryError(
                f"{path}: cannot be read as OSV advisories ({type(error).__name__}); give JSON files, folders of them, or all.zip of osv.dev"
            ) from error


def _advisories(content: Any) -> Iterator[dict[str, Any]]:
    for advisory in content if isinstance(content, list) else [content]:
        if not isinstance(advisory, dict) or not isinstance(advisory.get("id"), str):
            raise ValueError("not an OSV advisory")  # noqa: TRY004 - the content of a file, not an argument
        yield advisory


def check(advisories: Iterable[Mapping[str, Any]], packages: Mapping[str, str]) -> tuple[int, list[Finding]]:
    """Return the number of advisories, and a finding for each of ``packages`` (version by normalized name) that one affects.

    Raises:
        AdvisoryError: an advisory on one of the packages does not follow the format.
    """
    count, found = 0, set[Finding]()
    for advisory in advisories:
        count += 1
        if advisory.get("withdrawn"):
            continue
        try:
            found.update(_affected(advisory, packages))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise AdvisoryError(
                f"advisory {advisory['id']} does not follow the OSV format; download the file once more"
            ) from error
    return count, sorted(found, key=lambda one: (one.package, one.advisory))


def _affected(advisory: Mapping[str, Any], packages: Mapping[str, str]) -> Iterator[Finding]:
    for affected in advisory.get("affected", ()):
        package = affected.get("package", {})
        name = canonicalize_name(package.get("name", ""))
        if package.get("ecosystem") != ECOSYSTEM or name not in packages:
            continue
        version, ranges = packages[name], [one for one in affected.get("ranges", ()) if one["type"] in {"ECOSYSTEM", "SEMVER"}]
        if version in affected.get("versions", ()) or any(_within(version, one["events"]) for one in ranges):
            fixed = [event["fixed"] for one in ranges for event in one["events"] if "fixed" in event]
            later = [text for text in fixed if _key(text) > _key(version)]
            words = str(advisory.get("summary") or advisory.get("details") or "").splitlines() or [""]
            yield Finding(name, version, advisory["id"], words[0], min(later, key=_key, default=""))


def _within(version: str, events: Iterable[Mapping[str, str]]) -> bool:
    """Return whether a version is in a range. The events apply in the order of their versions."""
    ordered = sorted(((_key(text), kind) for event in events for kind, text in event.items()), key=lambda event: event[0])
    inside, mine = False, _key(version)
    for at, kind in ordered:
        if kind == "introduced" and (at <= mine or at == _BEGINNING):
            inside = True
        elif (kind == "fixed" and at <= mine) or (kind == "last_affected" and at < mine):
            inside = False
    return inside


def _key(text: str) -> Version:
    """Return the sort key of a version. A text that is no version sorts first, so that a range that begins with it is not missed."""
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0.dev0")
