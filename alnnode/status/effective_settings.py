"""The effective configuration in words: the file, the environment and the defaults together, without secrets."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from alnnode.settings import Settings

# Digests of secrets are not shown either: a short passcode can be found by its digest.
_SECRET = re.compile(r"sha256|secret$|password|passcode")
_USER_INFO = re.compile(r"(?<=://).*@", re.DOTALL)  # SQLAlchemy accepts "/", "?" and "#" in a password
_PATH = re.compile(r"(?<=://)(?:.*@)?([^/?#]*).*", re.DOTALL)
_QUERY = re.compile(r"\?.*$")
HIDDEN = "(not shown)"


@dataclass(frozen=True, slots=True)
class Value:
    """A key, its value as the file writes it, and whether it is the default."""

    key: str
    text: str
    is_default: bool


def sections(settings: Settings) -> list[tuple[str, list[Value]]]:
    """Return the tables of the settings with their values; of ``[internal]`` only what a test or a person changed."""
    found: list[tuple[str, list[Value]]] = []
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if isinstance(section, tuple):
            found += [(f"[[{name}]]", list(_values(one))) for one in section] or [(f"[[{name}]]", [])]
        else:
            values = [value for value in _values(section) if name != "internal" or not value.is_default]
            found += [(f"[{name}]", values)] if values else []
    return found


def _values(section: BaseModel) -> Iterator[Value]:
    dumped = section.model_dump(mode="json")
    for key, field in type(section).model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        is_default = not field.is_required() and getattr(section, key) == default
        yield Value(key, json.dumps(_without_secrets(key, dumped[key]), ensure_ascii=False), is_default)


def without_credentials(url: str) -> str:
    """Return a URL without user, password and query."""
    return _QUERY.sub(f"?{HIDDEN}" if "?" in url else "", _USER_INFO.sub(f"{HIDDEN}@", url))


def _without_secrets(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(f"{key}_{name}" if key == "webhook" else name, one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_secrets(key, one) for one in value]
    if not isinstance(value, str) or not value:
        return value
    return _text_without_secrets(key, value)


def _text_without_secrets(key: str, value: str) -> str:
    if _SECRET.search(key):
        return HIDDEN
    if key == "webhook_url":  # its path can hold a token
        return _PATH.sub(rf"\1/{HIDDEN}", value)
    return without_credentials(value) if "://" in value else value
