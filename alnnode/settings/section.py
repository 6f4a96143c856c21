"""What the sections of the settings share: the strict base class and the types of values."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from alnnode.settings.patterns import checked

if TYPE_CHECKING:
    from pydantic import ValidationInfo


def _ae_title(value: str) -> str:
    """Check an Application Entity title (PS3.5 6.2, VR AE): 1 to 16 characters, no backslash or control character, not only spaces."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or not re.fullmatch(r"[ -\[\]-~]+", title):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters without backslash; shorten or respell it")
    return title


def _host(value: str) -> str:
    """Check that a text is a host name or address alone."""
    if not re.fullmatch(r"[^\s/@:\[\]]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?", value):
        raise ValueError("give a host name or address alone: no URL, no spaces, and the port in its own key")
    return value


def _network(value: object) -> object:
    """Return the network that a text names in CIDR notation; an address is a network of one address."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        text = str(value) if isinstance(value, str) else ""
        network = ip_network(text, strict=False)
        ip_network(text)
    except ValueError as error:
        if "has host bits set" in str(error):
            raise ValueError(f'{value!r} is an address and the length of a network; write "{network}"') from error
        raise ValueError(
            f'{value!r} is no address and no network in CIDR notation such as "10.20.0.0/16"; host names cannot stand here'
        ) from error
    return network


AETitle = Annotated[str, AfterValidator(_ae_title), Field(description="an Application Entity title")]
Pattern = Annotated[str, AfterValidator(checked)]
Host = Annotated[str, Field(min_length=1, description="a host name or address"), AfterValidator(_host)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$", description='1 to 32 letters, digits, "_" and "-"')]
# Under it images are received as under an AE title.
SenderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,16}$", description='1 to 16 letters, digits, "_" and "-"')]
Port = Annotated[int, Field(ge=1, le=65535, description="a TCP port")]
Seconds = Annotated[float, Field(gt=0, le=604_800)]  # a week: longer waits are mistakes, and overflow the clocks of sockets
Days = Annotated[float, Field(ge=0, le=36_500)]  # a hundred years
# The root of a DICOMweb service (PS3.18 8.2), without a query.
ServiceRoot = Annotated[
    str,
    Field(
        pattern=r"^https?://[^?#]+[^/?#]$", description="the root of the DICOMweb service, http(s)://…, without / at its end"
    ),
]


class Section(BaseModel):
    """One table of the file. It is frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where numbers are expected: pydantic would read them as 1 and 0."""
        if not _holds_number(cls.model_fields[str(info.field_name)].annotation):
            return value
        if isinstance(value, bool):
            raise ValueError(f"must be a number, not {str(value).lower()}")  # noqa: TRY004 - pydantic reports only a ValueError
        if isinstance(value, list | tuple) and any(isinstance(item, bool) for item in value):
            raise ValueError("must be numbers, not true or false")
        return value


def _holds_number(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_holds_number, get_args(annotation)))
