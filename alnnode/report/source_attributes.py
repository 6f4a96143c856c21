"""What a result carries on from its source beyond patient and study: the orders that it answers, and a loss that stays for ever."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.multival import MultiValue

from alnnode.records import ObjectRole

if TYPE_CHECKING:
    from alnnode.records import Analysis

# Of an item of the Referenced Request Sequence (PS3.3 C.17.2): type 2, and those that a RIS may match by besides.
REQUEST = (
    "AccessionNumber", "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID",
    "RequestedProcedureDescription", "RequestedProcedureCodeSequence", "ReferencedStudySequence",
)  # fmt: skip
REQUEST_OPTIONAL = (
    "IssuerOfAccessionNumberSequence", "OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence",
    "ReasonForTheRequestedProcedure", "ReasonForRequestedProcedureCodeSequence",
)  # fmt: skip
DOCUMENTS = frozenset({ObjectRole.SR, ObjectRole.RESULTS_TREE, ObjectRole.TEXT, ObjectRole.KEY_OBJECTS})
PICTURES = frozenset({ObjectRole.CAPTURE, ObjectRole.SEGMENTATION, ObjectRole.PARAMETRIC_MAP})
LOSS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def request(analysis: Analysis, role: ObjectRole) -> Dataset:
    """Return what a RIS matches a result by: the orders of the source, in the attribute that the kind of object has for them."""
    source, made = analysis.header, Dataset()
    orders = source.get("RequestAttributesSequence") or []
    if orders and role in DOCUMENTS:
        made.ReferencedRequestSequence = [_referenced_request(order, source) for order in orders]
    elif orders:
        made.add(deepcopy(source["RequestAttributesSequence"]))
    return made


def _referenced_request(order: Dataset, source: Dataset) -> Dataset:
    """Return an item of the Referenced Request Sequence: what the item of the Request Attributes says, else the study's own."""
    item = Dataset()
    for keyword in REQUEST:
        holder = (
            order if keyword in order or keyword in {"RequestedProcedureCodeSequence", "ReferencedStudySequence"} else source
        )
        if keyword in holder:
            item.add(deepcopy(holder[keyword]))
        else:
            setattr(item, keyword, [] if keyword.endswith("Sequence") else None)
    for keyword in REQUEST_OPTIONAL:
        if keyword in order:
            item.add(deepcopy(order[keyword]))
    item.StudyInstanceUID = str(order.get("StudyInstanceUID") or source.get("StudyInstanceUID") or "")
    return item


def loss(analysis: Analysis, role: ObjectRole) -> Dataset:
    """Return that the source was compressed with loss: what is derived from it says so for ever (PS3.3 C.7.6.1.1.5)."""
    source, made = analysis.header, Dataset()
    if role in PICTURES and str(source.get("LossyImageCompression", "")) == "01":
        for keyword in LOSS:
            if keyword in source:
                made.add(deepcopy(source[keyword]))
    return made


def has_several_character_sets(dataset: Dataset) -> bool:
    """Return whether Specific Character Set has several values: code extensions (ISO 2022), which a common viewer cannot read in a map."""
    return isinstance(dataset.get("SpecificCharacterSet"), MultiValue)


def to_unicode(dataset: Dataset) -> None:
    """Let the text of a data set be written in ISO_IR 192 (PS3.3 C.12.1.1.2): values are decoded already, and are encoded when it is saved."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _forget_character_set(item)


def _forget_character_set(item: Dataset) -> None:
    """Let an item have the character set of the data set that holds it."""
    if "SpecificCharacterSet" in item:
        del item.SpecificCharacterSet
    for element in item:
        if element.VR == "SQ":
            for inner in element.value:
                _forget_character_set(inner)
