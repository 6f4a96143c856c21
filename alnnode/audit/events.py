"""The audit messages that this node writes, each after its table in PS3.15 section A.5.3."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from alnnode.audit import codes
from alnnode.audit.codes import Outcome
from alnnode.audit.message import Message, Participant, ParticipantObject
from alnnode.counted import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alnnode.audit.codes import Code

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def study(uid: str, instances: Mapping[str, int] | None = None) -> ParticipantObject:
    """Return a study, with the number of its instances of each SOP Class UID that the message is about."""
    return ParticipantObject(uid, codes.STUDY_UID, instances=instances or {})


class Events:
    """Makes messages that name this node as participant."""

    def __init__(self, ae_title: str) -> None:
        self._ae_title = ae_title
        self._host = socket.gethostname()

    def _node(self, role: Code | None, *, requestor: bool) -> Participant:
        return Participant(str(os.getpid()), requestor, role, (self._ae_title,), self._host)

    def application(self, *, started: bool) -> Message:
        """Application Activity (A.5.3.1): the node started or stopped."""
        kind = codes.APPLICATION_START if started else codes.APPLICATION_STOP
        node = self._node(codes.APPLICATION, requestor=False)
        return Message(codes.APPLICATION_ACTIVITY, "E", Outcome.SUCCESS, (node,), types=(kind,))

    def received(self, sender: str, address: str, what: ParticipantObject, refused: int = 0) -> Message:
        """DICOM Instances Transferred (A.5.3.7): a peer sent instances of one study; ``refused`` of them were refused."""
        source = Participant(sender, True, codes.SOURCE, (sender,), address)
        outcome = Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS
        words = f"{counted(refused, 'instance was', 'instances were')} refused" if refused else ""
        here = self._node(codes.DESTINATION, requestor=False)
        return Message(codes.INSTANCES_TRANSFERRED, "C", outcome, (source, here), (what,), description=words)

    def sending(self, receiver: str, address: str, what: ParticipantObject) -> Message:
        """Begin Transferring DICOM Instances (A.5.3.3): the node begins to send results of one study."""
        return Message(codes.BEGIN_TRANSFERRING, "E", Outcome.SUCCESS, self._outwards(receiver, address), (what,))

    def sent(self, receiver: str, address: str, what: ParticipantObject, outcome: Outcome, description: str = "") -> Message:
        """DICOM Instances Transferred (A.5.3.7): the node sent results of one study; ``outcome`` says whether they arrived."""
        participants = self._outwards(receiver, address)
        return Message(codes.INSTANCES_TRANSFERRED, "C", outcome, participants, (what,), description=description)

    def _outwards(self, receiver: str, address: str) -> tuple[Participant, ...]:
        return (
            self._node(codes.SOURCE, requestor=True),
            Participant(receiver, False, codes.DESTINATION, (receiver,), address),
        )

    def retrieved(self, user: str, address: str, what: ParticipantObject, *, metadata: bool = False) -> Message:
        """DICOM Instances Transferred (A.5.3.7): a user retrieved a study over HTTP; Accessed (A.5.3.6) for metadata only."""
        event = codes.INSTANCES_ACCESSED if metadata else codes.INSTANCES_TRANSFERRED
        here, who = self._node(codes.SOURCE, requestor=False), Participant(user, True, codes.DESTINATION, (), address)
        return Message(event, "R", Outcome.SUCCESS, (here, who), (what,))

    def deleted(self, what: ParticipantObject, files: int) -> Message:
        """DICOM Study Deleted (A.5.3.8): the node deleted ``files`` instances of a study, results included."""
        node = self._node(codes.APPLICATION, requestor=True)
        return Message(codes.STUDY_DELETED, "D", Outcome.SUCCESS, (node,), (what,), description=counted(files, "instance"))

    def queried(self, user: str, address: str, query: bytes, outcome: Outcome) -> Message:
        """Query (A.5.3.10): a user searched."""
        asked = ParticipantObject(STUDY_ROOT_FIND, codes.SOP_CLASS_UID, query=query)
        who, here = Participant(user, True, codes.SOURCE, (), address), self._node(codes.DESTINATION, requestor=False)
        return Message(codes.QUERY, "E", outcome, (who, here), (asked,))

    def authenticated(self, user: str, address: str, outcome: Outcome, *, left: bool = False, why: str = "") -> Message:
        """User Authentication (A.5.3.12): a user logged in or out, or sent a token that is not valid."""
        kind = codes.LOGOUT if left else codes.LOGIN
        who, here = Participant(user, True, None, (), address), self._node(codes.APPLICATION, requestor=False)
        return Message(codes.USER_AUTHENTICATION, "E", outcome, (who, here), types=(kind,), description=why)

    def acted(self, user: str, address: str, what: str) -> Message:
        """Security Alert (A.5.3.11), Use of Restricted Function: an administrator acted on a job.

        Args:
            user: name of a token, or of an account of the machine.
            address: of the user; empty for this host.
            what: for example "retry of job …, study …".
        """
        reporter = self._node(codes.APPLICATION, requestor=True)
        performer = Participant(user, False, None, (), address or self._host)
        subject = ParticipantObject(self._ae_title, codes.NODE_ID, role="13", details={"Alert Description": what})
        kinds = (codes.RESTRICTED_FUNCTION,)
        return Message(codes.SECURITY_ALERT, "E", Outcome.SUCCESS, (reporter, performer), (subject,), kinds, description=what)

    def alert(self, kind: Code, peer: str, address: str, why: str) -> Message:
        """Security Alert (A.5.3.11): the node refused a peer, or a request that the peer has no right to make."""
        reporter, performer = self._node(codes.APPLICATION, requestor=True), Participant(peer, False, None, (), address)
        subject = ParticipantObject(address or peer, codes.NODE_ID, role="13", details={"Alert Description": why})
        return Message(
            codes.SECURITY_ALERT, "E", Outcome.SERIOUS_FAILURE, (reporter, performer), (subject,), (kind,), description=why
        )
