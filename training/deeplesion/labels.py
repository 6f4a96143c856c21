"""Read LesaNet's ``text_mined_labels_171_and_split.json``: what the radiology report says of each lesion.

The labels are listed in the three parts of LesaNet's own split. That split is not the one of ``DL_info.csv``; here the three parts are read as one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from training.deeplesion.errors import DeepLesionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PARTS: Final = ("train", "val", "test")
EXPECTED: Final = "text_mined_labels_171_and_split.json of LesaNet (github.com/rsummers11/CADLab) is expected"


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of all lesions with a report.

    Attributes:
        terms: names of the labels.
        relevant: by row number of a lesion the labels that the report gives it.
        uncertain: by row number of a lesion the labels that the report gives it with doubt.
    """

    terms: tuple[str, ...]
    relevant: Mapping[int, frozenset[str]]
    uncertain: Mapping[int, frozenset[str]]

    def check_term(self, label: str) -> None:
        """Check that a label is one of the terms.

        Raises:
            DeepLesionError: it is not; the text names the nearest ones.
        """
        if label not in self.terms:
            near = get_close_matches(label, self.terms, n=4, cutoff=0.3)
            hint = f"; the nearest labels are: {', '.join(near)}" if near else ""
            raise DeepLesionError(f'No label is called "{label}"{hint} (--label)')


def read_labels(path: Path, rows: int) -> Labels:
    """Read the labels of a table with ``rows`` rows.

    Raises:
        DeepLesionError: the file cannot be read, has another layout, or names a lesion that the table does not have.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeepLesionError(f"Cannot read {path} as JSON ({type(error).__name__}): {EXPECTED}") from error
    terms = _list(values, "term_list", str, path)
    relevant: dict[int, frozenset[str]] = {}
    uncertain: dict[int, frozenset[str]] = {}
    for part in PARTS:
        numbers = _list(values, f"{part}_lesion_idxs", int, path)
        beyond = [number for number in numbers if not 0 <= number < rows]
        if beyond:
            raise DeepLesionError(
                f"{path} labels lesion {beyond[0]}, but DL_info.csv has {rows} rows: use the complete table of the same version"
            )
        for kind, into in (("relevant", relevant), ("uncertain", uncertain)):
            key = f"{part}_{kind}_labels"
            lists = _list(values, key, list, path)
            if len(lists) != len(numbers):
                raise DeepLesionError(f"{path}: {key} and {part}_lesion_idxs have different lengths; {EXPECTED}")
            for number, chosen in zip(numbers, lists, strict=True):
                into[number] = into.get(number, frozenset()) | _names(chosen, terms, f"{path}: {key}")
    return Labels(tuple(terms), relevant, uncertain)


def _list(values: Any, key: str, kind: type, path: Path) -> list[Any]:
    found = values.get(key) if isinstance(values, dict) else None
    # A bool is an int to Python.
    if not isinstance(found, list) or any(not isinstance(value, kind) or isinstance(value, bool) for value in found):
        raise DeepLesionError(f'{path} has no list "{key}" of the expected kind: {EXPECTED}')
    return found


def _names(chosen: list[Any], terms: list[str], place: str) -> frozenset[str]:
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < len(terms) for n in chosen):
        raise DeepLesionError(f"{place} holds a value that is not the number of a term; {EXPECTED}")
    return frozenset(terms[n] for n in chosen)
