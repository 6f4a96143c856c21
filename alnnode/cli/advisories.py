"""``alnnode advisories``: what is installed, held against advisories that lie in files; needs no network.

The files are in the OSV format (ossf.github.io/osv-schema): one advisory or a list as JSON, or the archive of all advisories of an ecosystem
that osv.dev offers, as it was downloaded.
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
    """An installed package that an advisory is about."""

    package: str
    version: str
    advisory: str
    summary: str
    fixed: str  # first version without it; empty when none is named


def installed() -> dict[str, str]:
    """Return the version of every package of this environment, by its normalized name."""
    return {canonicalize_name(found.name): found.version for found in metadata.distributions() if found.name}


def read(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the advisories of JSON files, of archives of such files, and of folders with them.

    Raises:
        AdvisoryError: a file cannot be read, or holds no advisories.
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
            raise AdvisoryError(f"{path}: cannot be read as OSV advisories ({type(error).__name__})") from error


def _advisories(content: Any) -> Iterator[dict[str, Any]]:
    for advisory in content if isinstance(content, list) else [content]:
        if not isinstance(advisory, dict) or not isinstance(advisory.get("id"), str):
            raise ValueError("no OSV advisory")  # noqa: TRY004 - of the file, not of an argument
        yield advisory


def check(advisories: Iterable[Mapping[str, Any]], packages: Mapping[str, str]) -> tuple[int, list[Finding]]:
    """Return how many advisories there were, and what of ``packages`` (version by normalized name) they affect.

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
            raise AdvisoryError(f"{advisory['id']} does not follow the OSV format") from error
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
    """Whether a version lies in a range: the events are applied in the order of their versions."""
    steps = sorted(((_key(text), kind) for event in events for kind, text in event.items()), key=lambda step: step[0])
    inside, mine = False, _key(version)
    for at, kind in steps:
        if kind == "introduced" and (at <= mine or at == _BEGINNING):
            inside = True
        elif (kind == "fixed" and at <= mine) or (kind == "last_affected" and at < mine):
            inside = False
    return inside


def _key(text: str) -> Version:
    """Return a version as it sorts; one that is none comes first, so that a range which begins with it is not overlooked."""
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0.dev0")
