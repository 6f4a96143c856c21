"""Labels of nodes: from pathology texts by a mapping that the hospital gives, and from a second table that has them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from training.clinical.table import BENIGN, HEADER_ROW, LABELS, MALIGNANT, Problem, TableError, read_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from training.clinical.table import NodeRow

KEYS: Final = ("patient", "study_uid", "series_uid", "sop_uid", "source_uid", "tracking_uid", "side")
TEXTS: Final = ("label", "pathology")
# Whole texts only: "no metastasis" and "negative for malignancy" hold the words of the other class.
KNOWN: Final = {
    **dict.fromkeys(("malignant", "metastatic", "metastasis", "positive"), MALIGNANT),
    **dict.fromkeys(("benign", "normal", "reactive", "negative"), BENIGN),
}


def mapping(pairs: Iterable[str]) -> dict[str, str]:
    """Return what ``TEXT=malignant`` and ``TEXT=benign`` say, beside the words that need no mapping.

    Raises:
        TableError: a pair is none; it is named.
    """
    found = dict(KNOWN)
    for pair in pairs:
        text, _, label = pair.rpartition("=")
        if not text or label not in LABELS:
            raise TableError(f"--map {pair!r}: write TEXT=malignant or TEXT=benign")
        found[plain(text)] = label
    return found


def apply(rows: Sequence[NodeRow], known: Mapping[str, str]) -> list[NodeRow]:
    """Return the rows with the label that their pathology text maps to; a label that is there stays, a text not known leaves it empty."""
    return [row if row.label else replace(row, label=known.get(plain(row.pathology), "")) for row in rows]


def join(rows: Sequence[NodeRow], path: Path) -> tuple[list[NodeRow], list[Problem]]:
    """Return the rows with the label or pathology that a second table gives them, and the rows of that table that are of no use.

    The tables are joined by every column of `KEYS` that the second one has; a row of it may be of several nodes ("all of this side are benign").
    Rows that contradict each other label nothing, as in `training.clinical.merge`: nobody can tell which of them is right.

    Raises:
        TableError: the second table has no column to join by, or no label and no pathology.
    """
    cells = read_cells(path)
    columns = set(cells[0]) if cells else set()
    keys = [name for name in KEYS if name in columns]
    texts = [name for name in TEXTS if name in columns]
    if not keys or not texts:
        raise TableError(f"{path.name}: needs one column at least of {', '.join(KEYS)}, and one of {', '.join(TEXTS)}")
    told: dict[tuple[str, ...], list[tuple[int, dict[str, str]]]] = {}
    for number, cell in enumerate(cells, HEADER_ROW + 1):
        told.setdefault(tuple(cell[name] for name in keys), []).append((number, {name: cell[name] for name in texts}))
    disputed = {key for key, lines in told.items() if len({_meant(said) for _, said in lines} - {""}) > 1}
    found = [problem for key in disputed for problem in _disputes(told[key], keys[0])]
    used = set()
    joined = []
    for row in rows:
        key = tuple(getattr(row, name) for name in keys)
        used.add(key)
        if key in disputed:
            # Nor does what the mark said count: pathology was asked, and gave no answer.
            joined.append(replace(row, label="", pathology=""))
        else:
            said = (said for _, said in told.get(key, ()) if _meant(said))
            joined.append(_said(row, next(said, {})))
    advice = f"is the {' and '.join(keys)} spelled as in the other table?"
    found += [
        Problem(lines[0][0], keys[0], "belongs to no node that was marked", advice)
        for key, lines in told.items()
        if key not in used
    ]
    return joined, sorted(found, key=lambda problem: problem.row)


def _disputes(lines: Sequence[tuple[int, dict[str, str]]], column: str) -> Iterator[Problem]:
    """Yield each row with the first that says something else of the same nodes."""
    advice = f"neither labels a node: say it once, or add a column that tells both apart ({', '.join(KEYS)})"
    told = [(number, meant) for number, said in lines if (meant := _meant(said))]
    for number, meant in told:
        other = next(n for n, words in told if words != meant)
        yield Problem(number, column, f"contradicts row {other}", advice)


def _meant(said: Mapping[str, str]) -> str:
    """Return what a row says, as it is compared: its label, or the text that one may be mapped from; empty where it says nothing."""
    label = said.get("label", "").casefold()
    return label if label in LABELS else plain(said.get("pathology") or label)


def _said(row: NodeRow, said: Mapping[str, str]) -> NodeRow:
    label, pathology = said.get("label", ""), said.get("pathology", "")
    if label.casefold() in LABELS:
        return replace(row, label=label.casefold(), pathology=pathology or row.pathology)
    # A label in other words than ours is a text to be mapped; pathology counts more than what a mark said.
    text = pathology or label
    return replace(row, label="", pathology=text) if text else row


def plain(text: str) -> str:
    """Return a text as it is compared: without case, with single blanks."""
    return " ".join(text.casefold().split())
