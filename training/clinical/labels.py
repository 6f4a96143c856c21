"""Labels of nodes: mapped from pathology texts, or joined from a second table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from training.clinical.node_table import BENIGN, HEADER_ROW, LABELS, MALIGNANT, Problem, TableError, read_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from training.clinical.node_table import NodeRow

KEYS: Final = ("patient", "study_uid", "series_uid", "sop_uid", "source_uid", "tracking_uid", "side")
TEXTS: Final = ("label", "pathology")
# Only complete texts are mapped, because "no metastasis" contains the word of the other class.
KNOWN: Final = {
    **dict.fromkeys(("malignant", "metastatic", "metastasis", "positive"), MALIGNANT),
    **dict.fromkeys(("benign", "normal", "reactive", "negative"), BENIGN),
}


def label_mapping(pairs: Iterable[str]) -> dict[str, str]:
    """Return the mapping from texts to labels: the known words, and the pairs ``TEXT=malignant`` or ``TEXT=benign``.

    Raises:
        TableError: a pair has another form; the message quotes it.
    """
    found = dict(KNOWN)
    for pair in pairs:
        text, _, label = pair.rpartition("=")
        if not text or label not in LABELS:
            raise TableError(f"--map {pair!r}: write TEXT=malignant or TEXT=benign")
        found[normalised_text(text)] = label
    return found


def apply_mapping(rows: Sequence[NodeRow], known: Mapping[str, str]) -> list[NodeRow]:
    """Return the rows with labels mapped from their pathology texts; a label that is present stays, an unknown text gives none."""
    return [row if row.label else replace(row, label=known.get(normalised_text(row.pathology), "")) for row in rows]


def join_labels(rows: Sequence[NodeRow], path: Path) -> tuple[list[NodeRow], list[Problem]]:
    """Return the rows with the label or pathology of a second table, and the problems of that table.

    The tables are joined by all columns of `KEYS` that the second table has. One of its rows may apply to several nodes ("all nodes of this
    side are benign"). Contradictory rows give no label, as in `training.clinical.merge_slices`.

    Raises:
        TableError: the second table has no column to join by, or neither label nor pathology.
    """
    cells = read_cells(path)
    columns = set(cells[0]) if cells else set()
    keys = [name for name in KEYS if name in columns]
    texts = [name for name in TEXTS if name in columns]
    if not keys or not texts:
        raise TableError(f"{path.name}: needs at least one of the columns {', '.join(KEYS)}, and one of {', '.join(TEXTS)}")
    by_key: dict[tuple[str, ...], list[tuple[int, dict[str, str]]]] = {}
    for number, cell in enumerate(cells, HEADER_ROW + 1):
        by_key.setdefault(tuple(cell[name] for name in keys), []).append((number, {name: cell[name] for name in texts}))
    disputed = {key for key, lines in by_key.items() if len({_meaning(entry) for _, entry in lines} - {""}) > 1}
    found = [problem for key in disputed for problem in _contradictions(by_key[key], keys[0])]
    used = set()
    joined = []
    for row in rows:
        key = tuple(getattr(row, name) for name in keys)
        used.add(key)
        if key in disputed:
            # The text of the mark is not used either, because the pathology of this node is contradictory.
            joined.append(replace(row, label="", pathology=""))
        else:
            entries = (entry for _, entry in by_key.get(key, ()) if _meaning(entry))
            joined.append(_labelled(row, next(entries, {})))
    advice = f"check that {' and '.join(keys)} are spelled as in the other table"
    found += [
        Problem(lines[0][0], keys[0], "matches no marked node", advice) for key, lines in by_key.items() if key not in used
    ]
    return joined, sorted(found, key=lambda problem: problem.row)


def _contradictions(lines: Sequence[tuple[int, dict[str, str]]], column: str) -> Iterator[Problem]:
    """Yield each row together with the first row that contradicts it."""
    advice = f"neither row labels a node: remove one, or add a column that distinguishes them ({', '.join(KEYS)})"
    meanings = [(number, meaning) for number, entry in lines if (meaning := _meaning(entry))]
    for number, meaning in meanings:
        other = next(n for n, words in meanings if words != meaning)
        yield Problem(number, column, f"contradicts row {other}", advice)


def _meaning(entry: Mapping[str, str]) -> str:
    """Return the label of a row, or its normalised text if it has no label; empty if it has neither."""
    label = entry.get("label", "").casefold()
    return label if label in LABELS else normalised_text(entry.get("pathology") or label)


def _labelled(row: NodeRow, entry: Mapping[str, str]) -> NodeRow:
    label, pathology = entry.get("label", ""), entry.get("pathology", "")
    if label.casefold() in LABELS:
        return replace(row, label=label.casefold(), pathology=pathology or row.pathology)
    # A label in other words is mapped like a pathology text; it replaces the text of the mark.
    text = pathology or label
    return replace(row, label="", pathology=text) if text else row


def normalised_text(text: str) -> str:
    """Return a text in lower case with single spaces, for comparison."""
    return " ".join(text.casefold().split())
