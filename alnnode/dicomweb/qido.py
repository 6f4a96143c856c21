"""QIDO-RS (PS3.18 section 10.6): search for studies, series and instances that the node holds, received ones and its results."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.dicomweb import matching
from alnnode.dicomweb.attribute_index import LEVELS
from alnnode.dicomweb.dicom_json import dumps
from alnnode.receive.header import valid_uid
from alnnode.web.content_negotiation import wants_json
from alnnode.web.services import root, services

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from starlette.requests import Request

    from alnnode.dicomweb.catalogue import Held, HeldSeries
    from alnnode.dicomweb.dicom_json import Json
    from alnnode.dicomweb.matching import Filter, Query
    from alnnode.web.services import Services

Item = TypeVar("Item")
JSON = "application/dicom+json"
STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
MODALITY, MODALITIES = "00080060", "00080061"
RETRIEVE_URL, AVAILABILITY = "00081190", "00080056"
STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES = "00201206", "00201208", "00201209"
_COMPUTED = frozenset({MODALITIES, RETRIEVE_URL, AVAILABILITY, STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES})
_STUDY, _SERIES, _INSTANCE = (frozenset(LEVELS[level]) for level in ("study", "series", "instance"))


async def studies(request: Request) -> Response:
    """Answer ``GET …/studies``."""
    return await _answer(request, "studies")


async def series(request: Request) -> Response:
    """Answer ``GET …/series``, also below a study."""
    return await _answer(request, "series")


async def instances(request: Request) -> Response:
    """Answer ``GET …/instances``, also below a study or a series."""
    return await _answer(request, "instances")


async def _answer(request: Request, level: str) -> Response:
    if not wants_json(request):
        return PlainTextResponse(f"only {JSON} is answered", 406)
    if not all(valid_uid(value) for value in request.path_params.values()):
        return PlainTextResponse("a UID in the URL is none", 400)
    try:
        query = matching.parse(request.query_params.multi_items())
    except matching.BadQueryError as error:
        return PlainTextResponse(str(error), 400)
    search = Search(services(request), root(request), query, request.path_params)
    found = await run_in_threadpool(getattr(search, level))
    answer = Response(await run_in_threadpool(dumps, found), media_type=JSON)
    for text in search.warnings(level, len(found)):
        answer.headers.append("warning", f'299 alnnode "{text}"')
    return answer


class _Series(NamedTuple):
    held: HeldSeries
    attributes: Json


class Search:
    """One search."""

    def __init__(self, opened: Services, base: str, query: Query, within: dict[str, str]) -> None:
        self._opened, self._base, self._query, self._within = opened, base, query, within
        uids = {name: [value] for name, value in within.items()}
        for condition in query.filters:
            name = {STUDY_UID: "study", SERIES_UID: "series", INSTANCE_UID: "instance"}.get(condition.path[0])
            if name and condition.value not in {"", "*"}:
                listed = condition.value.replace("\\", ",").split(",")
                uids[name] = [uid for uid in listed if uid in uids[name]] if name in uids else listed
        self._uids = uids

    def warnings(self, level: str, count: int) -> Iterator[str]:
        """Say what was not done as asked (PS3.18 section 8.3.4)."""
        if self._query.fuzzy:
            yield "The fuzzymatching parameter is not supported. Only literal matching has been performed."
        known = {*_STUDY, *_SERIES, MODALITIES} | (_INSTANCE if level == "instances" else set())
        ignored = [condition.path[0] for condition in self._query.filters if condition.path[0] not in known]
        if ignored:
            yield f"These attributes were not matched: {matching.names(ignored)}"
        if count >= matching.MAXIMUM:
            yield f"There may be more than {matching.MAXIMUM} results; ask for the next with offset"

    def studies(self) -> list[Json]:
        """Search at study level; the newest first."""
        grouped: dict[str, list[_Series]] = {}
        for item in self._series():
            grouped.setdefault(item.held.study_uid, []).append(item)
        study, one_series = (matching.matcher(_only(self._query.filters, tags)) for tags in (_STUDY, _SERIES))
        matching_ones = [
            items
            for items in grouped.values()
            # What came first stands for the study: results are made from it.
            if study(items[-1].attributes)
            and any(one_series(item.attributes) for item in items)
            and self._modalities_match(items)
        ]
        page = [items for items in self._page(matching_ones) if self._opened.attributes.is_here(items[-1].held)]
        counts = self._opened.catalogue.counts([item.held.series_uid for item in chain.from_iterable(page)])
        return [self._study(items, counts) for items in page]

    def series(self) -> list[Json]:
        """Search at series level."""
        page = [item for item in self._page(self._matching_series()) if self._opened.attributes.is_here(item.held)]
        counts = self._opened.catalogue.counts([item.held.series_uid for item in page])
        return [
            {
                **self._attributes(item, item.held.path, {*([] if "study" in self._within else _STUDY), *_SERIES, STUDY_UID}),
                AVAILABILITY: {"vr": "CS", "Value": ["ONLINE"]},
                RETRIEVE_URL: _url(self._base, item.held.study_uid, item.held.series_uid),
                SERIES_INSTANCES: {"vr": "IS", "Value": [counts.get(item.held.series_uid, 0)]},
            }
            for item in page
        ]

    def instances(self) -> list[Json]:
        """Search at instance level."""
        conditions = _only(self._query.filters, _INSTANCE - {INSTANCE_UID})
        wanted = matching.matcher(conditions)
        upper = {*([] if "study" in self._within else _STUDY), *([] if "series" in self._within else _SERIES)}
        found: list[Json] = []
        skip = self._query.offset
        for item in self._matching_series():
            held = self._opened.catalogue.instances(series=[item.held.series_uid], instances=self._uids.get("instance"))
            if not conditions and skip >= len(held):  # nothing of this series is asked for
                skip -= len(held)
                continue
            for one, attributes in zip(held, self._opened.attributes.of_instances(held), strict=True):
                if attributes is None or not wanted(attributes) or not self._opened.attributes.is_here(one):
                    continue
                if skip:
                    skip -= 1
                    continue
                if len(found) >= self._query.limit:
                    return found
                found.append(self._instance(item, one, attributes, {*upper, STUDY_UID, SERIES_UID}))
            if len(found) >= self._query.limit:
                return found
        return found

    def _series(self) -> list[_Series]:
        held = self._opened.catalogue.series(self._uids.get("study"), self._uids.get("series"))
        return [
            _Series(one, attributes)
            for one, attributes in zip(held, self._opened.attributes.of_series(held), strict=True)
            if attributes is not None
        ]

    def _matching_series(self) -> list[_Series]:
        everything = self._series()
        if any(condition.path[0] == MODALITIES for condition in self._query.filters):
            grouped: dict[str, list[_Series]] = {}
            for item in everything:
                grouped.setdefault(item.held.study_uid, []).append(item)
            everything = [item for items in grouped.values() if self._modalities_match(items) for item in items]
        wanted = matching.matcher(_only(self._query.filters, _STUDY | _SERIES))
        return [item for item in everything if wanted(item.attributes)]

    def _modalities_match(self, items: Sequence[_Series]) -> bool:
        conditions = _only(self._query.filters, {MODALITIES})
        return not conditions or matching.matches({MODALITIES: _modalities(items)}, conditions)

    def _page(self, items: list[Item]) -> list[Item]:
        return items[self._query.offset : self._query.offset + self._query.limit]

    def _study(self, items: Sequence[_Series], counts: dict[str, int]) -> Json:
        first = items[-1]
        return {
            **self._attributes(first, first.held.path, _STUDY),
            AVAILABILITY: {"vr": "CS", "Value": ["ONLINE"]},
            MODALITIES: _modalities(items),
            RETRIEVE_URL: _url(self._base, first.held.study_uid),
            STUDY_SERIES: {"vr": "IS", "Value": [len(items)]},
            STUDY_INSTANCES: {"vr": "IS", "Value": [sum(counts.get(item.held.series_uid, 0) for item in items)]},
        }

    def _instance(self, item: _Series, held: Held, attributes: Json, upper: Iterable[str]) -> Json:
        return {
            **self._attributes(item, held.path, set(upper)),
            **attributes,
            AVAILABILITY: {"vr": "CS", "Value": ["ONLINE"]},
            RETRIEVE_URL: _url(self._base, held.study_uid, held.series_uid, held.sop_instance_uid),
        }

    def _attributes(self, item: _Series, path: str, tags: set[str] | frozenset[str]) -> Json:
        """Return those of ``tags`` and what the client asks for besides; the latter has to be read from the object."""
        chosen = {tag: value for tag, value in item.attributes.items() if tag in tags}
        further = [tag for tag in self._query.include if tag not in _STUDY | _SERIES | _INSTANCE | _COMPUTED]
        if further:
            chosen |= self._opened.attributes.further(path, further)
        return chosen


def _only(filters: Sequence[Filter], tags: Iterable[str]) -> list[Filter]:
    return [condition for condition in filters if condition.path[0] in tags]


def _modalities(items: Sequence[_Series]) -> dict[str, object]:
    values = {str(value) for item in items for value in item.attributes.get(MODALITY, {}).get("Value", [])}
    return {"vr": "CS", "Value": sorted(values)}


def _url(base: str, study: str, series_uid: str = "", instance: str = "") -> dict[str, object]:
    url = f"{base}/studies/{study}"
    if series_uid:
        url += f"/series/{series_uid}"
    if instance:
        url += f"/instances/{instance}"
    return {"vr": "UR", "Value": [url]}
