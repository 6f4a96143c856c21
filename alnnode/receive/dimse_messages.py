"""The message layer of the acceptor: serves C-STORE where it arrives, bounds what a message may take, mends commands that pynetdicom aborts over.

The overrides are of private parts, as in `alnnode.receive.transport`, whose test also guards these.
"""

from __future__ import annotations

import queue
import struct
import time
from typing import TYPE_CHECKING, Any

import structlog
from pydicom.uid import CTImageStorage
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from alnnode.receive.dimse_status import Status
from alnnode.receive.header import valid_uid
from alnnode.receive.spill import IN_MEMORY, Spilled

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DIMSEMessage

    from alnnode.receive.spill import Keeping

log = structlog.get_logger()

WAIT = 0.25  # seconds that a thread sleeps at most when nothing wakes it: timers are looked at this often
MAX_COMMAND = 64 << 10  # bytes of a command set (PS3.7 Annex E): a handful of short elements
MIN_PROGRESS = 64 << 10  # bytes of a message in each dimse_timeout: less is no sender, but one that holds a place
_ELEMENT, _SHORT, _LONG = struct.Struct("<HHI"), struct.Struct("<HHIH"), struct.Struct("<HHII")
PLACEHOLDER_UID = "2.25.0"  # stands in a command for a UID that is not valid


class Inbox(queue.Queue[Any]):
    """Serves a C-STORE where it arrives, in the upper layer's thread.

    Its sender waits for the answer and nothing else is to be read meanwhile; two hand-overs between threads for each image would cost
    more than the image does.

    Attributes:
        answers: responses to what this node asked on the association: whoever waits for one must not get a request of the peer instead.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self.answers: queue.Queue[Any] = queue.Queue()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Serve a C-STORE now; keep everything else for the association's thread. An empty item ends both waits."""
        context_id, primitive = item
        association = self._association
        if primitive is None or getattr(primitive, "MessageIDBeingRespondedTo", None) is not None:
            self.answers.put(item)
            if primitive is not None:
                return
        direct = isinstance(primitive, C_STORE) and primitive.is_valid_request and association.is_established
        if direct and context_id in association._accepted_cx:  # noqa: SLF001 - its public twin is a list without ids
            association._serve_request(primitive, context_id)  # noqa: SLF001 - what the association's own loop calls
        else:
            super().put(item, block, timeout)


class Messages(DIMSEServiceProvider):
    """The message layer: waits for messages, keeps no more of one than allowed, and notes what is wrong with a command."""

    def __init__(self, assoc: Association, keeping: Keeping) -> None:
        super().__init__(assoc)
        self._inbox = Inbox(assoc)
        self.msg_queue = self._inbox
        self._keeping = keeping
        self._since, self._got, self._command = 0.0, 0, 0
        self.faults: dict[int, tuple[Status, str]] = {}  # by Message ID

    def get_msg(self, block: bool = False) -> Any:
        """Wait for an answer; or, when asked not to wait, for a request all the same: the caller's loop would only ask again."""
        try:
            if block:
                return self._inbox.answers.get(timeout=self.dimse_timeout)
            return self.msg_queue.get(timeout=WAIT)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a part of a message: a large object goes into a file, and of one that is larger than allowed the rest is dropped.

        A message that comes in drops ends the association (A-P-ABORT), though each of its PDUs came in time; so does one with a
        command, or a data set that is no object, beyond all measure.
        """
        now = time.monotonic()
        if self.message is None:
            self._since, self._got, self._command = now, 0, 0
        self._got += sum(len(data) for _, data in primitive.presentation_data_value_list)
        if self.dimse_timeout is not None and now - self._since > self.dimse_timeout:
            if self._got < MIN_PROGRESS:
                self.dul.event_queue.put("Evt19")
                return
            self._since, self._got = now, 0
        self._command += sum(len(data) for _, data in primitive.presentation_data_value_list if data[0] & 1)
        if self._command > MAX_COMMAND or not self._bounded(primitive):
            self.dul.event_queue.put("Evt19")
            return
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # noqa: BLE001 - pynetdicom promises no set of exceptions for commands that are none
            log.warning("command_not_readable", error=type(error).__name__)
            self.message = None
            self.dul.event_queue.put("Evt19")  # invalid PDU: A-P-ABORT (PS3.8 9.2)

    def _bounded(self, primitive: P_DATA) -> bool:
        """Keep a large object in a file, and nothing of one that is too large; False for other messages that are too large."""
        message = self.message
        held = None if message is None else message.data_set
        if message is None or held is None or held.tell() <= IN_MEMORY:
            return True
        if not isinstance(message, C_STORE_RQ):
            return False
        if not isinstance(held, Spilled):
            message.data_set = held = Spilled(self._keeping, held)
        if held.fault is not None or held.tell() > self._keeping.max_bytes:
            values = primitive.presentation_data_value_list
            values[:] = [(context, data if data[0] & 1 else data[:1]) for context, data in values]
        return True

    def close(self) -> None:
        """Let go of an object that will not come whole."""
        if self.message is not None and isinstance(self.message.data_set, Spilled):
            self.message.data_set.close()

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message; the answer to a C-STORE by way of a template instead of two data sets."""
        if isinstance(primitive, C_STORE) and primitive.MessageIDBeingRespondedTo is not None and not primitive.ErrorComment:
            part = P_DATA()
            part.presentation_data_value_list.append((context_id, b"\x03" + _store_answer(primitive)))  # last command fragment
            self.dul.send_pdu(part)
        else:
            super().send_msg(primitive, context_id)

    def examine(self, message: DIMSEMessage) -> None:
        """Make a C-STORE command that pynetdicom would abort over acceptable, and note the fault for the answer."""
        if not isinstance(message, C_STORE_RQ):
            return
        command = message.command_set
        context = self.assoc._accepted_cx.get(message.context_id or 0)  # noqa: SLF001 - its public twin is a list without ids
        if context is None:
            return  # a protocol violation, and pynetdicom's to answer
        fault = message.data_set.fault if isinstance(message.data_set, Spilled) else None
        if str(command.get("AffectedSOPClassUID", "")) != context.abstract_syntax:
            fault = Status.SOP_CLASS_MISMATCH, "the command is of another SOP class than negotiated"
            command.AffectedSOPClassUID = CTImageStorage  # any that pynetdicom hands to the storage service
        if not valid_uid(str(command.get("AffectedSOPInstanceUID", ""))):
            fault = Status.INVALID_UID, "SOP Instance UID of the command is not valid"
            command.AffectedSOPInstanceUID = PLACEHOLDER_UID
        if fault is not None:
            self.faults[int(command.get("MessageID") or 0)] = fault


def _store_answer(answer: C_STORE) -> bytes:
    """Encode a C-STORE response: implicit VR little endian, PS3.7 table 9.3-2."""
    class_uid = str(answer.AffectedSOPClassUID).encode("ascii")
    instance_uid = str(answer.AffectedSOPInstanceUID).encode("ascii")
    class_uid += b"\0" * (len(class_uid) % 2)
    instance_uid += b"\0" * (len(instance_uid) % 2)
    shorts = ((0x0100, 0x8001), (0x0120, answer.MessageIDBeingRespondedTo), (0x0800, 0x0101), (0x0900, answer.Status))
    elements = _ELEMENT.pack(0, 0x0002, len(class_uid)) + class_uid
    elements += b"".join(_SHORT.pack(0, element, 2, value) for element, value in shorts)
    elements += _ELEMENT.pack(0, 0x1000, len(instance_uid)) + instance_uid
    return _LONG.pack(0, 0, 4, len(elements)) + elements
