"""Sections of several kinds: the key ``kind`` says which keys a table may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Discriminator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alnnode.settings.section import Section

UNKNOWN_KIND = "unknown_kind"  # type of the validation error, which `alnnode.settings.loading` puts into words


def by_kind(kinds: Mapping[str, type[Section]], default: str) -> Discriminator:
    """Return the pydantic discriminator of a union of sections; a table without ``kind`` is of the kind ``default``."""

    def chosen(value: object) -> str:
        kind = value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)
        return str(kind)

    choice = " or ".join(f'"{kind}"' for kind in kinds)
    return Discriminator(chosen, custom_error_type=UNKNOWN_KIND, custom_error_message=f"must be {choice}")
