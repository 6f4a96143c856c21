"""Sections ``[node]`` and ``[logging]``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import field_validator

from alnnode.settings.section import AETitle, Section


class Node(Section):
    """The identity of the node, and the folder of its data."""

    ae_title: AETitle = "ALNNODE"
    data_dir: Path = Path("alnnode-data")
    time_zone: str = ""  # IANA name; empty: the time zone of the machine, and no offset is written into the results

    @field_validator("data_dir")
    @classmethod
    def _is_a_folder(cls, value: Path) -> Path:
        if value == Path() or value.parts[0].startswith("~"):
            raise ValueError(
                'name a folder by its path: "~" is not replaced here, and the working directory itself is no place for data'
            )
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            return value and ZoneInfo(value).key
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ValueError('not a time zone of the IANA database; use a name like "Europe/Athens"') from error

    @property
    def zone(self) -> ZoneInfo | None:
        """Return the time zone of the dates and times in results; None: that of the machine."""
        return ZoneInfo(self.time_zone) if self.time_zone else None


class Logging(Section):
    """The log on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
