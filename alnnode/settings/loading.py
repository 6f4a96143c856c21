"""Load the settings from a file and the environment, or explain what is wrong in them."""

from __future__ import annotations

import difflib
import os
import tomllib
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError as SourceError

from alnnode.errors import SettingsError
from alnnode.settings.archives import ARCHIVES
from alnnode.settings.audit import AUDITS
from alnnode.settings.deliver import DESTINATIONS
from alnnode.settings.kinds import UNKNOWN_KIND
from alnnode.settings.renamed import RENAMED
from alnnode.settings.root import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from alnnode.settings.receive import Route


Location = tuple[int | str, ...]
_CONTAINERS = {"tuple_type", "model_type", "model_attributes_type", "dict_type"}
INTERNAL = "internal"  # the section that is not for administrators
KINDS: Mapping[str, Mapping[str, type[BaseModel]]] = {"destinations": DESTINATIONS, "archives": ARCHIVES, "audit": AUDITS}


def load(path: Path | None = None) -> Settings:
    """Read the settings.

    Args:
        path: the TOML file; None uses defaults and environment only.

    Raises:
        SettingsError: the file is missing or not TOML, a key is unknown, or a value is impossible.
    """
    content = {} if path is None else _read(path)
    for name in content:  # pydantic-settings does not distinguish "Node" from "node", and would use one of them
        if name not in Settings.model_fields and name.lower() in Settings.model_fields:
            raise SettingsError(f'{path} cannot be used:\n  {name}: no such key; do you mean "{name.lower()}"?')
    unknown = [
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX) and name[len(ENV_PREFIX) :].split("__")[0].lower() not in Settings.model_fields
    ]
    if unknown:
        sections = ", ".join(name for name in Settings.model_fields if name != INTERNAL)
        raise SettingsError(f"{min(unknown)}: no such section; sections are {sections}")
    try:
        return Settings(**content)
    except ValidationError as error:
        where = "the environment" if path is None else str(path)
        lines = dict.fromkeys(f"  {_explain(detail)}" for detail in _first_causes(error))
        raise SettingsError("\n".join([f"{where} cannot be used:", *lines])) from error
    except SourceError as error:
        raise SettingsError(
            f"an {ENV_PREFIX}… variable cannot be read: {error}; lists and tables are written as JSON"
        ) from error


def load_routes(text: str) -> tuple[Route, ...]:
    """Return the routes in the text of a settings file that has only ``[[routes]]``.

    Raises:
        SettingsError: the text is not TOML, or has an error.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not valid TOML: {error}") from error
    except (RecursionError, ValueError) as error:  # values within thousands of values; integers of thousands of digits
        raise SettingsError("not valid TOML: a value is nested too deeply, or too long") from error
    if set(content) != {"routes"}:
        raise SettingsError("give one or more [[routes]] tables, and nothing else")
    try:
        return Settings(routes=content["routes"]).routes
    except ValidationError as error:
        raise SettingsError("\n".join(dict.fromkeys(map(_explain, _first_causes(error))))) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; `alnnode init` writes one, or copy config.example.toml there") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); check its permissions and that it is UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: not valid TOML: too many nested lists or tables") from error


def _first_causes(error: ValidationError) -> list[ErrorDetails]:
    """Return the errors without those that only count what a wrong item left over."""
    found = error.errors(include_url=False)
    places = [one["loc"] for one in found]
    return [
        one
        for one in found
        if one["type"] != "too_short" or not any(place[: len(one["loc"])] == one["loc"] != place for place in places)
    ]


def _explain(error: ErrorDetails) -> str:
    """Return one line: the key, what is wrong with it, and what to do."""
    location, kind = _split(error["loc"])
    key, value = _key(location), error["input"]
    if error["type"] == UNKNOWN_KIND:
        return f"{key}.kind: {error['msg']}; the file or environment says {value['kind']!r}"
    if error["type"] == "extra_forbidden":
        return f"{key}: {_unknown_key(location, kind)}"
    if error["type"] == "missing":
        direct = len(location) == 2 or isinstance(location[-2], int)  # a key of the table that has the kind
        reason = f'must be given for kind = "{kind}"' if kind and direct else "must be given"
        return f"{key}: {reason}; {_addition(location, kind)}"
    if error["type"] in _CONTAINERS:  # the value may hold secrets: a whole table, or the URL of a webhook
        return f"{key}: {_container(location, kind, error['type'])}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch" and (words := _description(location, kind)):
        message = f"must be {words}"
    # These messages end in logs. A URL may hold a password, and an administrator may give a secret instead of its digest.
    secret = error["type"] == "value_error" or str(location[-1]).endswith(("url", "sha256", "jwks"))
    return f"{key}: {message}" if secret else f"{key}: {message}; the file or environment says {value!r}"


def _split(location: Location) -> tuple[Location, str]:
    """Take the kind, which pydantic puts behind the number of a table of several kinds, out of a location."""
    at = 1 if location[:1] == ("audit",) else 2
    if len(location) > at and str(location[0]) in KINDS:
        return location[:at] + location[at + 1 :], str(location[at])
    return location, ""


def _key(location: Location) -> str:
    """Spell a place in the file: ``destinations[1].port`` is the port of the first [[destinations]]."""
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "file"


def _unknown_key(location: Location, kind: str) -> str:
    """Say what to write instead of a key that the section does not have."""
    names = [part for part in location if isinstance(part, str)]
    if new := RENAMED.get(".".join(names)):
        return new
    others = [name for name, section in KINDS.get(names[0], {}).items() if len(names) == 2 and names[1] in section.model_fields]
    if others:
        choice = " or ".join(f'"{name}"' for name in others)
        return f'is for kind = {choice}, and this table is of kind "{kind}"; remove it, or change kind'
    close = difflib.get_close_matches(names[-1], [name for name in _fields(location[:-1], kind) if name != INTERNAL], n=1)
    remedy = f'do you mean "{close[0]}"?' if close else "remove it or correct the spelling"
    return f"no such key; {remedy} (config.example.toml lists every key)"


def _container(location: Location, kind: str, error: str) -> str:
    """Say how to write a list or a table where the file has something else."""
    names = ".".join(part for part in location if isinstance(part, str))
    if error != "tuple_type":
        return f"must be a table with keys, such as [{names}]" if isinstance(location[-1], str) else "must be a table with keys"
    field = _fields(location[:-1], kind).get(str(location[-1]))
    tables = field is not None and any(True for _ in _sections(field.annotation))
    return f"must be a list of tables; begin each of them with [[{names}]]" if tables else 'must be a list, such as ["A", "B"]'


def _description(location: Location, kind: str) -> str | None:
    """Return what the value of a key must be; for an item of a list, of each item."""
    place = location[:-1] if isinstance(location[-1], int) else location
    field = _fields(place[:-1], kind).get(str(place[-1]))
    return field and field.description


def _addition(location: Location, kind: str) -> str:
    """Say what to add for a missing key."""
    field = _fields(location[:-1], kind).get(str(location[-1]))
    return f"add {(field and field.description) or 'it'} (config.example.toml shows how)"


def _fields(location: Location, kind: str) -> Mapping[str, Any]:
    """Return the fields of the section at a place in the file."""
    fields: Mapping[str, Any] = Settings.model_fields
    for number, name in enumerate(part for part in location if isinstance(part, str)):
        if number == 0 and name in KINDS:
            fields = KINDS[name][kind].model_fields
        else:
            sections = _sections(fields[name].annotation) if name in fields else iter(())
            fields = getattr(next(sections, None), "model_fields", {})
    return fields


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections in an annotation, e.g. ``Route`` in ``tuple[Route, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)
