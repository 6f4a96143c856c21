"""Names of the networks that are trained without some patients."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PREFIX = "without-"
BETWEEN = "+"  # the cases in a name


def fold_name(cases: Sequence[str]) -> str:
    """Return the name of the network that is trained without these cases: ``without-CASE+CASE``."""
    return _PREFIX + BETWEEN.join(cases)


def file_without(folder: Path, case: str) -> Path | None:
    """Return the weights in a folder that were trained without a case; None if there are none.

    Of several networks, the one that was trained without the fewest other cases is returned.
    """
    found = [
        (len(cases), path)
        for path in folder.glob(f"{_PREFIX}*.safetensors")
        if case in (cases := path.stem.removeprefix(_PREFIX).split(BETWEEN))
    ]
    return min(found)[1] if found else None
