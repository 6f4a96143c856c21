"""Match attributes in searches (PS3.4 section C.2.2.2), with the query parameters of PS3.18 section 8.3.4."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from alnnode.dicomweb import date_time_matching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from alnnode.dicomweb.dicom_json import Json

    Test = Callable[[Any], bool]

RANGES = frozenset({"DA", "TM", "DT"})
NUMBERS = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"})
MAX_RESULTS = 10_000  # of one search
_TAG = re.compile(r"[0-9A-Fa-f]{8}")


class InvalidQueryError(ValueError):
    """The query is not valid; ``str`` says why, and contains no value of the query."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition: tags from the outermost sequence inwards, and the value to match."""

    path: tuple[str, ...]
    vr: str
    value: str


@dataclass
class Query:
    """The parameters of a search."""

    filters: list[Filter] = field(default_factory=list)
    include: list[str] = field(default_factory=list)  # tags
    include_all: bool = False
    limit: int = MAX_RESULTS
    offset: int = 0
    fuzzy: bool = False


def parse(parameters: Iterable[tuple[str, str]]) -> Query:
    """Read query parameters.

    Raises:
        InvalidQueryError: a parameter is unknown, or its value is not valid.
    """
    query = Query()
    for name, value in parameters:
        if name == "limit":
            query.limit = min(_integer(name, value), MAX_RESULTS)
        elif name == "offset":
            query.offset = _integer(name, value)
        elif name == "fuzzymatching":
            if value not in {"true", "false"}:
                raise InvalidQueryError("fuzzymatching must be true or false")
            query.fuzzy = value == "true"
        elif name == "includefield":
            for wanted in value.split(","):
                if wanted == "all":
                    query.include_all = True
                else:
                    query.include.append(_path(wanted)[0])
        elif name != "accept":
            path = _path(name)
            query.filters.append(Filter(path, _vr(path[-1]), value))
    return query


def _integer(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise InvalidQueryError(f"{name} must be an integer of at most 9 digits")
    return int(value)


def _path(name: str) -> tuple[str, ...]:
    return tuple(_tag(part) for part in name.split("."))


def _tag(word: str) -> str:
    if _TAG.fullmatch(word):
        return word.upper()
    tag = tag_for_keyword(word)
    if tag is None:
        raise InvalidQueryError("a query parameter is neither a keyword nor a tag of PS3.6")
    return f"{tag:08X}"


def _vr(tag: str) -> str:
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return "UN"


def names(tags: Iterable[str]) -> str:
    """Return the keywords of attributes, separated by commas; the tags of those that have no keyword."""
    return ", ".join(keyword_for_tag(int(tag, 16)) or tag for tag in tags)


def matches(item: Json, filters: Sequence[Filter]) -> bool:
    """Return whether all conditions are true for an item."""
    return matcher(filters)(item)


def matcher(filters: Sequence[Filter]) -> Callable[[Json], bool]:
    """Return a function that tells whether all conditions are true for an item; it parses the wanted values only once."""
    if not filters:
        return lambda _: True
    tests = [(condition.path, None if condition.value in {"", "*"} else _test(condition)) for condition in filters]
    return lambda item: all(_is_true(item, path, test) for path, test in tests)


def _is_true(item: Json, path: tuple[str, ...], test: Test | None) -> bool:
    values = item.get(path[0], {}).get("Value", [])
    if len(path) > 1:
        return any(isinstance(value, dict) and _is_true(value, path[1:], test) for value in values)
    return test is None or any(map(test, values))  # None: universal matching


def _test(condition: Filter) -> Test:
    wanted, vr = condition.value, condition.vr
    if vr in {"UI", "CS"}:  # these values contain no comma, and viewers separate several modalities by commas
        alternatives = [_wildcard(one) for one in re.split(r"[,\\]", wanted)]
        return lambda value: any(matches_one(str(value)) for matches_one in alternatives)
    if vr == "DT":
        return date_time_matching.matcher(wanted)
    if vr in RANGES:
        return lambda value: _in_range(str(value), wanted, vr)
    if vr in NUMBERS:
        return lambda value: _same_number(value, wanted)
    if vr == "PN":
        same_name = _wildcard(_normalised_name(wanted))
        return lambda value: any(
            same_name(_normalised_name(str(group))) for group in (value.values() if isinstance(value, dict) else [value])
        )
    same = _wildcard(wanted)
    return lambda value: same(str(value))


def _same_number(value: Any, wanted: str) -> bool:
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return False


def _normalised_name(value: str) -> str:
    """Return a person's name in lower case, without empty components at its end."""
    return value.casefold().rstrip("^ ")


def _wildcard(pattern: str) -> Callable[[str], bool]:
    """Return a function that compares a value with a pattern, in which ``*`` and ``?`` are wildcards (PS3.4 C.2.2.2.4)."""
    wanted = pattern.strip()
    if "*" not in wanted and "?" not in wanted:
        return lambda value: value.strip() == wanted
    compiled = re.compile(translate(wanted.replace("[", "[[]")))
    return lambda value: compiled.match(value.strip()) is not None


def _in_range(value: str, wanted: str, vr: str) -> bool:
    low, dash, high = wanted.partition("-")
    if vr == "DA":
        value, low, high = (part.replace(".", "") for part in (value, low, high))
    elif vr == "TM":
        value, low, high = (part.replace(":", "") for part in (value, low, high))
    if not dash:
        return value.startswith(low) if vr != "DA" else value == low
    # The upper limit includes its whole precision: 12-1259 ends at 12:59:59.
    return (not low or value >= low) and (not high or value[: len(high)] <= high)
