"""Search the objects of the node for QIDO-RS (PS3.18 section 10.6), over the catalogue and the attribute index."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from alnnode.dicomweb import matching
from alnnode.dicomweb.attribute_index import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from alnnode.dicomweb.catalogue import StoredInstance, StoredSeries
    from alnnode.dicomweb.dicom_json import Json
    from alnnode.dicomweb.matching import Filter, Query
    from alnnode.dicomweb.services import DicomwebServices

Item = TypeVar("Item")
STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
MODALITY, MODALITIES = "00080060", "00080061"
RETRIEVE_URL, AVAILABILITY = "00081190", "00080056"
STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES = "00201206", "00201208", "00201209"
_COMPUTED = frozenset({MODALITIES, RETRIEVE_URL, AVAILABILITY, STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES})
_STUDY, _SERIES, _INSTANCE = (frozenset(LEVELS[level]) for level in ("study", "series", "instance"))


class _Series(NamedTuple):
    stored: StoredSeries
    attributes: Json


class QidoSearch:
    """One search.

    Args:
        services: the catalogue and the attribute index.
        base: the URL of the DICOMweb service.
        query: the parameters of the search.
        within: the UIDs in the URL, by level ("study", "series").
    """

    def __init__(self, services: DicomwebServices, base: str, query: Query, within: dict[str, str]) -> None:
        self._catalogue, self._index = services.catalogue, services.attributes
        self._base, self._query, self._within = base, query, within
        uids = {name: [value] for name, value in within.items()}
        for condition in query.filters:
            name = {STUDY_UID: "study", SERIES_UID: "series", INSTANCE_UID: "instance"}.get(condition.path[0])
            if name and condition.value not in {"", "*"}:
                listed = condition.value.replace("\\", ",").split(",")
                uids[name] = [uid for uid in listed if uid in uids[name]] if name in uids else listed
        self._uids = uids

    def warnings(self, level: str, count: int) -> Iterator[str]:
        """Yield the warnings on parameters that the search did not apply (PS3.18 section 8.3.4)."""
        if self._query.fuzzy:
            yield "The fuzzymatching parameter is not supported. Only literal matching has been performed."
        known = {*_STUDY, *_SERIES, MODALITIES} | (_INSTANCE if level == "instances" else set())
        ignored = [condition.path[0] for condition in self._query.filters if condition.path[0] not in known]
        if ignored:
            yield f"These attributes were not matched: {matching.names(ignored)}"
        if count >= matching.MAX_RESULTS:
            yield f"There may be more than {matching.MAX_RESULTS} results; use the parameter offset to request the next ones"

    def studies(self) -> list[Json]:
        """Search at study level; the most recent first."""
        grouped: dict[str, list[_Series]] = {}
        for item in self._series():
            grouped.setdefault(item.stored.study_uid, []).append(item)
        study_matches, series_matches = (matching.matcher(_filters_on(self._query.filters, tags)) for tags in (_STUDY, _SERIES))
        matching_studies = [
            items
            for items in grouped.values()
            # The study attributes come from the series that was received first: results are derived from it.
            if study_matches(items[-1].attributes)
            and any(series_matches(item.attributes) for item in items)
            and self._modalities_match(items)
        ]
        page = [items for items in self._page(matching_studies) if self._index.is_stored(items[-1].stored)]
        counts = self._catalogue.counts([item.stored.series_uid for item in chain.from_iterable(page)])
        return [self._study(items, counts) for items in page]

    def series(self) -> list[Json]:
        """Search at series level."""
        page = [item for item in self._page(self._matching_series()) if self._index.is_stored(item.stored)]
        counts = self._catalogue.counts([item.stored.series_uid for item in page])
        return [
            {
                **self._attributes(item, item.stored.path, {*([] if "study" in self._within else _STUDY), *_SERIES, STUDY_UID}),
                AVAILABILITY: {"vr": "CS", "Value": ["ONLINE"]},
                RETRIEVE_URL: _url(self._base, item.stored.study_uid, item.stored.series_uid),
                SERIES_INSTANCES: {"vr": "IS", "Value": [counts.get(item.stored.series_uid, 0)]},
            }
            for item in page
        ]

    def instances(self) -> list[Json]:
        """Search at instance level."""
        conditions = _filters_on(self._query.filters, _INSTANCE - {INSTANCE_UID})
        wanted = matching.matcher(conditions)
        upper = {*([] if "study" in self._within else _STUDY), *([] if "series" in self._within else _SERIES)}
        found: list[Json] = []
        skip = self._query.offset
        for item in self._matching_series():
            stored = self._catalogue.instances(series=[item.stored.series_uid], instances=self._uids.get("instance"))
            if not conditions and skip >= len(stored):  # the page begins after this series
                skip -= len(stored)
                continue
            for one, attributes in zip(stored, self._index.instance_attributes(stored), strict=True):
                if attributes is None or not wanted(attributes) or not self._index.is_stored(one):
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
        stored = self._catalogue.series(self._uids.get("study"), self._uids.get("series"))
        return [
            _Series(one, attributes)
            for one, attributes in zip(stored, self._index.series_attributes(stored), strict=True)
            if attributes is not None
        ]

    def _matching_series(self) -> list[_Series]:
        found = self._series()
        if any(condition.path[0] == MODALITIES for condition in self._query.filters):
            grouped: dict[str, list[_Series]] = {}
            for item in found:
                grouped.setdefault(item.stored.study_uid, []).append(item)
            found = [item for items in grouped.values() if self._modalities_match(items) for item in items]
        wanted = matching.matcher(_filters_on(self._query.filters, _STUDY | _SERIES))
        return [item for item in found if wanted(item.attributes)]

    def _modalities_match(self, items: Sequence[_Series]) -> bool:
        conditions = _filters_on(self._query.filters, {MODALITIES})
        return not conditions or matching.matches({MODALITIES: _modalities(items)}, conditions)

    def _page(self, items: list[Item]) -> list[Item]:
        return items[self._query.offset : self._query.offset + self._query.limit]

    def _study(self, items: Sequence[_Series], counts: dict[str, int]) -> Json:
        first = items[-1]
        return {
            **self._attributes(first, first.stored.path, _STUDY),
            AVAILABILITY: {"vr": "CS", "Value": ["ONLINE"]},
            MODALITIES: _modalities(items),
            RETRIEVE_URL: _url(self._base, first.stored.study_uid),
            STUDY_SERIES: {"vr": "IS", "Value": [len(items)]},
            STUDY_INSTANCES: {"vr": "IS", "Value": [sum(counts.get(item.stored.series_uid, 0) for item in items)]},
        }

    def _instance(self, item: _Series, stored: StoredInstance, attributes: Json, upper: Iterable[str]) -> Json:
        return {
            **self._attributes(item, stored.path, set(upper)),
            **attributes,
            AVAILABILITY: {"vr": "CS", "Value": ["ONLINE"]},
            RETRIEVE_URL: _url(self._base, stored.study_uid, stored.series_uid, stored.sop_instance_uid),
        }

    def _attributes(self, item: _Series, path: str, tags: set[str] | frozenset[str]) -> Json:
        """Return the attributes of ``tags``, and those of ``includefield``, which are read from the object."""
        chosen = {tag: value for tag, value in item.attributes.items() if tag in tags}
        further = [tag for tag in self._query.include if tag not in _STUDY | _SERIES | _INSTANCE | _COMPUTED]
        if further:
            chosen |= self._index.read_attributes(path, further)
        return chosen


def _filters_on(filters: Sequence[Filter], tags: Iterable[str]) -> list[Filter]:
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
