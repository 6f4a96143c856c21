"""The DIMSE message layer of an accepted association: serves C-STORE in the upper layer's thread, and limits the size of messages.

It also repairs commands for which pynetdicom would abort the association, and keeps their fault for the response. The classes
override private parts of pynetdicom 3.0.4; `tests/unit/receive/test_transport.py` fails when a new version changes them.
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
from alnnode.receive.spill import IN_MEMORY, SpilledDataSet

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DIMSEMessage

    from alnnode.receive.spill import SpillFolder

log = structlog.get_logger()

WAIT = 0.25  # seconds that a thread sleeps at most; the timers are checked this often
MAX_COMMAND = 64 << 10  # bytes of a command set, which has a few short elements (PS3.7 Annex E)
MIN_PROGRESS = 64 << 10  # bytes of a message in each dimse_timeout; a slower peer only holds a place
_ELEMENT, _SHORT, _LONG = struct.Struct("<HHI"), struct.Struct("<HHIH"), struct.Struct("<HHII")
PLACEHOLDER_UID = "2.25.0"  # replaces a UID in a command that is not valid


class Inbox(queue.Queue[Any]):
    """Received messages. A C-STORE request is served at once, in the upper layer's thread.

    Its sender waits for the response, so that there is nothing else to read; handing each image to another thread and back would
    take longer than the image itself.

    Attributes:
        responses: to requests of this node, apart from the requests of the peer.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self.responses: queue.Queue[Any] = queue.Queue()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Serve a C-STORE request; queue every other message for the association's thread. An empty item ends both waits."""
        context_id, primitive = item
        association = self._association
        if primitive is None or getattr(primitive, "MessageIDBeingRespondedTo", None) is not None:
            self.responses.put(item)
            if primitive is not None:
                return
        direct = isinstance(primitive, C_STORE) and primitive.is_valid_request and association.is_established
        if direct and context_id in association._accepted_cx:  # noqa: SLF001 - the public list has no context IDs
            association._serve_request(primitive, context_id)  # noqa: SLF001 - as the association's own loop does
        else:
            super().put(item, block, timeout)


class MessageProvider(DIMSEServiceProvider):
    """Waits for messages, limits the size of each, and finds faults in commands.

    Attributes:
        faults: status and reason by Message ID.
    """

    def __init__(self, assoc: Association, spill: SpillFolder) -> None:
        super().__init__(assoc)
        self._inbox = Inbox(assoc)
        self.msg_queue = self._inbox
        self._spill = spill
        self._since, self._received, self._command = 0.0, 0, 0
        self.faults: dict[int, tuple[Status, str]] = {}

    def get_msg(self, block: bool = False) -> Any:
        """Wait for a response; without ``block``, wait for a request, because the loop of the caller would only call again."""
        try:
            if block:
                return self._inbox.responses.get(timeout=self.dimse_timeout)
            return self.msg_queue.get(timeout=WAIT)
        except queue.Empty:
            return None, None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Receive a part of a message. A large object goes into a file; the rest of an object that is too large is dropped.

        A message that arrives too slowly ends the association (A-P-ABORT), although each of its PDUs arrived in time. So does a command
        that is too large, or a large data set of another message than a C-STORE request.
        """
        now = time.monotonic()
        if self.message is None:
            self._since, self._received, self._command = now, 0, 0
        self._received += sum(len(data) for _, data in primitive.presentation_data_value_list)
        if self.dimse_timeout is not None and now - self._since > self.dimse_timeout:
            if self._received < MIN_PROGRESS:
                self.dul.event_queue.put("Evt19")
                return
            self._since, self._received = now, 0
        self._command += sum(len(data) for _, data in primitive.presentation_data_value_list if data[0] & 1)
        if self._command > MAX_COMMAND or not self._is_within_limits(primitive):
            self.dul.event_queue.put("Evt19")
            return
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # noqa: BLE001 - pynetdicom promises no set of exceptions for malformed commands
            log.warning("command_not_readable", error=type(error).__name__)
            self.message = None
            self.dul.event_queue.put("Evt19")  # invalid PDU: A-P-ABORT (PS3.8 9.2)

    def _is_within_limits(self, primitive: P_DATA) -> bool:
        """Move a large object to a file, and drop one that is too large; return False when another message is too large."""
        message = self.message
        held = None if message is None else message.data_set
        if message is None or held is None or held.tell() <= IN_MEMORY:
            return True
        if not isinstance(message, C_STORE_RQ):
            return False
        if not isinstance(held, SpilledDataSet):
            message.data_set = held = SpilledDataSet(self._spill, held)
        if held.fault is not None or held.tell() > self._spill.max_bytes:
            values = primitive.presentation_data_value_list
            values[:] = [(context, data if data[0] & 1 else data[:1]) for context, data in values]
        return True

    def close(self) -> None:
        """Drop an object whose rest will not arrive."""
        if self.message is not None and isinstance(self.message.data_set, SpilledDataSet):
            self.message.data_set.close()

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message; the response to a C-STORE is encoded directly, without pynetdicom's two data sets."""
        if isinstance(primitive, C_STORE) and primitive.MessageIDBeingRespondedTo is not None and not primitive.ErrorComment:
            part = P_DATA()
            part.presentation_data_value_list.append(
                (context_id, b"\x03" + _store_response(primitive))
            )  # last command fragment
            self.dul.send_pdu(part)
        else:
            super().send_msg(primitive, context_id)

    def examine(self, message: DIMSEMessage) -> None:
        """Repair a C-STORE command for which pynetdicom would abort the association, and keep its fault for the response."""
        if not isinstance(message, C_STORE_RQ):
            return
        command = message.command_set
        context = self.assoc._accepted_cx.get(message.context_id or 0)  # noqa: SLF001 - the public list has no context IDs
        if context is None:
            return  # a protocol violation, which pynetdicom handles
        fault = message.data_set.fault if isinstance(message.data_set, SpilledDataSet) else None
        if str(command.get("AffectedSOPClassUID", "")) != context.abstract_syntax:
            fault = Status.SOP_CLASS_MISMATCH, "the command is of another SOP class than negotiated"
            command.AffectedSOPClassUID = CTImageStorage  # any class that pynetdicom gives to the storage service
        if not valid_uid(str(command.get("AffectedSOPInstanceUID", ""))):
            fault = Status.INVALID_UID, "SOP Instance UID of the command is not valid"
            command.AffectedSOPInstanceUID = PLACEHOLDER_UID
        if fault is not None:
            self.faults[int(command.get("MessageID") or 0)] = fault


def _store_response(response: C_STORE) -> bytes:
    """Encode a C-STORE response: implicit VR little endian, PS3.7 table 9.3-2."""
    class_uid = str(response.AffectedSOPClassUID).encode("ascii")
    instance_uid = str(response.AffectedSOPInstanceUID).encode("ascii")
    class_uid += b"\0" * (len(class_uid) % 2)
    instance_uid += b"\0" * (len(instance_uid) % 2)
    shorts = ((0x0100, 0x8001), (0x0120, response.MessageIDBeingRespondedTo), (0x0800, 0x0101), (0x0900, response.Status))
    elements = _ELEMENT.pack(0, 0x0002, len(class_uid)) + class_uid
    elements += b"".join(_SHORT.pack(0, element, 2, value) for element, value in shorts)
    elements += _ELEMENT.pack(0, 0x1000, len(instance_uid)) + instance_uid
    return _LONG.pack(0, 0, 4, len(elements)) + elements
