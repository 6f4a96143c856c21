"""Parts that all documents share: the SR document around the content, the device observer, the algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    ObserverContext,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.tag import Tag

from alnnode import IMPLEMENTATION_CLASS_UID
from alnnode.records import SRClass
from alnnode.report import codes, modules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Analysis, ReportContext

CONTENT_SEQUENCE = Tag("ContentSequence")


def document(
    context: ReportContext,
    *,
    content: Dataset,
    evidence: Sequence[Dataset],
    series_uid: str,
    instance_uid: str,
    series_number: int,
) -> Dataset:
    """Return the SR document of the configured SOP class: complete, preliminary and unverified, because no person has read it.

    Args:
        context: of the job.
        content: root of the content tree.
        evidence: stand-ins for all instances that the content refers to.
        series_uid: of the document.
        instance_uid: provisional.
        series_number: of the document.
    """
    kind = Comprehensive3DSR if context.options.sr_class is SRClass.COMPREHENSIVE_3D else ComprehensiveSR
    # highdicom gets the root with its first item only: it copies the content and searches it four times, a third of the time of a report.
    root = Dataset()
    root.update({tag: element for tag, element in content.items() if tag != CONTENT_SEQUENCE})
    root.ContentSequence = content.ContentSequence[:1]
    made: Dataset = kind(
        evidence=list(evidence),
        content=root,
        series_instance_uid=series_uid,
        series_number=series_number,
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=modules.MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    made[CONTENT_SEQUENCE] = content[CONTENT_SEQUENCE]
    made.CodingSchemeIdentificationSequence = [codes.coding_scheme()]
    modules.delete_contributing_equipment(made)
    return made


def template(identifier: str) -> Dataset:
    """Return an item of the Content Template Sequence."""
    item = Dataset()
    item.MappingResource, item.TemplateIdentifier = "DCMR", identifier
    return item


def device_observer(analysis: Analysis, name: str) -> ObserverContext:
    """Return the device observer (TID 1004): the software and its model."""
    return ObserverContext(
        observer_type=standard.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=IMPLEMENTATION_CLASS_UID,
            name=name,
            manufacturer_name=modules.MANUFACTURER,
            model_name=modules.MODEL_NAME,
            serial_number=analysis.model.digest[:16],
        ),
    )


def algorithm(analysis: Analysis) -> AlgorithmIdentification:
    """Return the algorithm (TID 4019) without the optional manufacturer, which dciodvfy does not know; see `roots.parameters`."""
    model = analysis.model
    return AlgorithmIdentification(name=model.name, version=model.version, family=codes.ARTIFICIAL_INTELLIGENCE)


def delete_purposes(root: Dataset) -> None:
    """Delete the purposes of reference of a Key Object Selection, which TID 2010 does not allow and highdicom adds."""
    for item in root.ContentSequence:
        if item.ValueType in {"IMAGE", "COMPOSITE"}:
            del item.ConceptNameCodeSequence
