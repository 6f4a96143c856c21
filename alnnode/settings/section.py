"""What the sections of the settings share: the strict base class and the types of values."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from alnnode.settings.patterns import checked


def _ae_title(value: str) -> str:
    """Check an Application Entity title (PS3.5 6.2, VR AE): 1 to 16 characters, no backslash or control character, not only spaces."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or not re.fullmatch(r"[ -\[\]-~]+", title):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters without backslash; shorten or respell it")
    return title


AETitle = Annotated[str, AfterValidator(_ae_title), Field(description="an Application Entity title")]
Pattern = Annotated[str, AfterValidator(checked)]
Host = Annotated[str, Field(min_length=1, description="a host name or address")]
Port = Annotated[int, Field(ge=1, le=65535, description="a TCP port")]
Seconds = Annotated[float, Field(gt=0)]
# The root of a DICOMweb service (PS3.18 8.2), without a query.
ServiceRoot = Annotated[
    str, Field(pattern=r"^https?://[^?#]+[^/?#]$", description="the root of the DICOMweb service, http(s)://…")
]


class Section(BaseModel):
    """One table of the file. It is frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
