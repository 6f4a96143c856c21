"""From a file and the environment to settings, or to an error that says what to do."""

from __future__ import annotations

import difflib
import os
import tomllib
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import SettingsError as SourceError

from alnnode.errors import SettingsError
from alnnode.settings.analysis import Route
from alnnode.settings.peers import Archive, Destination
from alnnode.settings.root import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails


def _explain(error: ErrorDetails) -> str:
    key = _key(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: no such key; {_remedy(error['loc'])} (config.example.toml lists every key)"
    if error["type"] == "missing":
        return f"{key}: must be given; add it (config.example.toml shows how)"
    message = error["msg"].removeprefix("Value error, ")
    # A URL may hold a password, and these messages end in logs.
    secret = error["type"] == "value_error" or error["loc"][-1:] == ("url",)
    return f"{key}: {message}" if secret else f"{key}: {message}; the file or environment says {error['input']!r}"


def _key(location: tuple[int | str, ...]) -> str:
    """Spell a place in the file: ``destinations[1].port`` is the port of the first [[destinations]]."""
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "file"


def _remedy(location: tuple[int | str, ...]) -> str:
    """Name the key that was probably meant."""
    fields = Settings.model_fields
    if len(location) > 1:
        kind = {"destinations": Destination, "routes": Route, "archives": Archive}.get(str(location[0])) or fields[
            str(location[0])
        ].annotation
        fields = getattr(kind, "model_fields", {})
    close = difflib.get_close_matches(str(location[-1]), fields, n=1)
    return f'do you mean "{close[0]}"?' if close else "remove it or correct the spelling"


def load(path: Path | None = None) -> Settings:
    """Read the settings.

    Args:
        path: the TOML file; None uses defaults and environment only.

    Raises:
        SettingsError: the file is missing or not TOML, a key is unknown, or a value is impossible.
    """
    content: dict[str, object] = {}
    where = "the environment"
    if path is not None:
        where = str(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise SettingsError(f"{path}: no such file; copy config.example.toml there and edit it") from error
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: cannot be read ({error}); check its permissions and that it is UTF-8 text") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path}: not valid TOML: {error}") from error
    unknown = [
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX) and name[len(ENV_PREFIX) :].split("__")[0].lower() not in Settings.model_fields
    ]
    if unknown:
        raise SettingsError(f"{min(unknown)}: no such section; sections are {', '.join(Settings.model_fields)}")
    try:
        return Settings(**content)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        lines = [f"  {_explain(detail)}" for detail in error.errors(include_url=False)]
        raise SettingsError("\n".join([f"{where} cannot be used:", *lines])) from error
    except SourceError as error:
        raise SettingsError(
            f"an {ENV_PREFIX}… variable cannot be read: {error}; lists and tables are written as JSON"
        ) from error
