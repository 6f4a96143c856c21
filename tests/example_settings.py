"""config.example.toml and the settings classes, section by section, for tests that compare them."""

import re
from pathlib import Path

from pydantic.fields import FieldInfo

from alnnode.settings import Oidc, Route, Settings, WebToken
from alnnode.settings.archives import ARCHIVES
from alnnode.settings.audit import AUDITS
from alnnode.settings.deliver import DESTINATIONS

EXAMPLE = Path(__file__).parents[1] / "config.example.toml"
LISTED = [name for name in Settings.model_fields if name != "internal"]
KINDS = {"destinations": DESTINATIONS, "archives": ARCHIVES, "audit": AUDITS}
TABLES = {"routes": [Route], "web.tokens": [WebToken], "web.oidc": [Oidc]} | {
    name: list(sections.values()) for name, sections in KINDS.items()
}
# The sections of the file, each with the classes that its keys belong to.
SECTIONS = {name: [Settings.model_fields[name].annotation] for name in LISTED if name not in TABLES} | TABLES


def lines(prefix: str) -> dict[str, dict[str, str]]:
    """The lines ``key = value`` of the example that follow ``prefix``, by section and key."""
    found: dict[str, dict[str, str]] = {name: {} for name in SECTIONS}
    section = ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"#?\[{1,2}([\w.]+)\]{1,2}", line):
            section = header[1]
        elif key := re.match(rf"{prefix}(\w+) = ", line):
            assert key[1] not in found[section], f"{section}.{key[1]} stands there twice"
            found[section][key[1]] = line.removeprefix(prefix)
    return found


def fields(section: str) -> dict[str, FieldInfo]:
    """The keys of a section; of a key that is there for several kinds, that of the first, which is the default."""
    return {name: field for model in reversed(SECTIONS[section]) for name, field in model.model_fields.items()}
