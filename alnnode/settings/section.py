"""What every section of the settings is made of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1 to 16 characters, no backslash or control character, not only spaces."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or not re.fullmatch(r"[ -\[\]-~]+", title):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters without backslash; shorten or respell it")
    return title


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error}); escape special characters with a backslash") from error
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
ResultKind = Literal["sr", "capture", "seg", "pmap", "ko", "pr", "tree", "text", "pdf", "reject"]


class Section(BaseModel):
    """A part of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
