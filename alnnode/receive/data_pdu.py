"""P-DATA-TF PDUs that are not copied: pynetdicom 3.0.4 copies the bytes of each one five times between the socket and the message.

`tests/unit/receive/test_data_pdu.py` compares the result with pynetdicom.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pynetdicom.pdu_primitives import P_DATA

if TYPE_CHECKING:
    from collections.abc import Iterator

P_DATA_TF = 0x04  # the type of the PDU, PS3.8 section 9.3.5
_HEAD = 6  # bytes: type, reserved, length
_ITEM = struct.Struct(">IB")  # length of the rest, Presentation Context ID (PS3.8 section 9.3.5.1)


class DataPdu:
    """A P-DATA-TF PDU that was received; takes the place of pynetdicom's `P_DATA_TF`.

    Args:
        received: the complete PDU. Its values are views of these bytes, which must not change.

    Raises:
        ValueError: the items do not fill the PDU.
    """

    def __init__(self, received: bytearray) -> None:
        self._values = list(_values(memoryview(received)))

    def to_primitive(self) -> P_DATA:
        """Return the primitive for the DIMSE service provider."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.extend(self._values)
        return primitive


def _values(received: memoryview) -> Iterator[tuple[int, bytes]]:
    at = _HEAD
    while at < len(received):
        try:
            length, context_id = _ITEM.unpack_from(received, at)
        except struct.error as error:
            raise ValueError("the head of a presentation data value is cut off") from error
        start, at = at + _ITEM.size, at + 4 + length
        if not start <= at <= len(received):
            raise ValueError("a presentation data value is cut off")
        yield context_id, received[start:at]  # type: ignore[misc]  # pynetdicom only indexes the value and writes it to a stream
