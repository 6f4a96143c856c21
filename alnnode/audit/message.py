"""One audit message and its XML, after the schema of PS3.15 section A.5.1."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, tostring

from alnnode.audit import codes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alnnode.audit.codes import Code, Outcome

LONGEST = 256  # characters of any text: peers choose their own names, which end in messages
# Characters that XML 1.0 cannot hold, not even escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Participant:
    """A person or an application that took part (ActiveParticipant).

    Attributes:
        user_id: AE title, name of a token, or address.
        requestor: whether this participant started the action.
        role: code from CID 402.
        ae_titles: all AE titles of the application.
        address: IP address or host name.
    """

    user_id: str
    requestor: bool
    role: Code | None = None
    ae_titles: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True, slots=True)
class ParticipantObject:
    """A study, patient, query or node that the action was about (ParticipantObjectIdentification).

    Attributes:
        identifier: UID, patient number or AE title.
        kind: of the identifier.
        type_code: 2 is a system object, 1 a person.
        role: 3 is a report, as the standard calls a study.
        instances: number of instances of each SOP Class UID.
    """

    identifier: str
    kind: Code
    type_code: str = "2"
    role: str = "3"
    name: str = ""
    query: bytes | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    instances: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One event. ``at`` is the moment at which the node noticed it."""

    event: Code
    action: str  # C, R, U, D or E
    outcome: Outcome
    participants: tuple[Participant, ...]
    objects: tuple[ParticipantObject, ...] = ()
    types: tuple[Code, ...] = ()
    description: str = ""  # of the outcome
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def xml(self, source: str, site: str = "") -> bytes:
        """Return the message in UTF-8, on one line and without a declaration.

        Args:
            source: AuditSourceID.
            site: AuditEnterpriseSiteID; left out when empty.
        """
        root = Element("AuditMessage")
        moment = self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = _add(
            root,
            "EventIdentification",
            EventActionCode=self.action,
            EventDateTime=moment,
            EventOutcomeIndicator=str(int(self.outcome)),
        )
        _code(event, "EventID", self.event)
        for kind in self.types:
            _code(event, "EventTypeCode", kind)
        if self.description:
            SubElement(event, "EventOutcomeDescription").text = _clean(self.description)
        for participant in self.participants:
            _participant(root, participant)
        origin = _add(
            root, "AuditSourceIdentification", **({"AuditEnterpriseSiteID": site} if site else {}), AuditSourceID=source
        )
        _add(origin, "AuditSourceTypeCode", **{"csd-code": "4"})  # application server
        for item in self.objects:
            _participant_object(root, item)
        text: bytes = tostring(root, encoding="utf-8", xml_declaration=False)
        return text


def patient(identifier: str, name: str) -> ParticipantObject:
    """Return a patient; messages hold one only when the settings ask for it."""
    return ParticipantObject(identifier, codes.PATIENT_NUMBER, type_code="1", role="1", name=name)


def _participant(root: Element, participant: Participant) -> None:
    attributes = {"UserID": participant.user_id, "UserIsRequestor": str(participant.requestor).lower()}
    if participant.ae_titles:
        attributes["AlternativeUserID"] = "AETITLES=" + ";".join(participant.ae_titles)  # section A.5.2.2
    if participant.address:
        attributes["NetworkAccessPointID"] = participant.address
        attributes["NetworkAccessPointTypeCode"] = "2" if _is_ip(participant.address) else "1"
    element = _add(root, "ActiveParticipant", **attributes)
    if participant.role is not None:
        _code(element, "RoleIDCode", participant.role)


def _participant_object(root: Element, item: ParticipantObject) -> None:
    element = _add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=item.identifier,
        ParticipantObjectTypeCode=item.type_code,
        ParticipantObjectTypeCodeRole=item.role,
    )
    _code(element, "ParticipantObjectIDTypeCode", item.kind)
    # The schema requires one of these two.
    if item.query is not None:
        SubElement(element, "ParticipantObjectQuery").text = b64encode(item.query).decode("ascii")
    else:
        SubElement(element, "ParticipantObjectName").text = _clean(item.name or item.identifier)
    for kind, value in item.details.items():
        _add(element, "ParticipantObjectDetail", type=kind, value=b64encode(_clean(value).encode()).decode("ascii"))
    if item.instances:
        described = SubElement(element, "ParticipantObjectDescription")
        for uid, count in sorted(item.instances.items()):
            _add(described, "SOPClass", UID=uid, NumberOfInstances=str(count))


def _code(parent: Element, tag: str, code: Code) -> None:
    _add(parent, tag, **{"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning})


def _add(parent: Element, tag: str, **attributes: str) -> Element:
    return SubElement(parent, tag, {name: _clean(value) for name, value in attributes.items()})


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)[:LONGEST]


def _is_ip(address: str) -> bool:
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return True
