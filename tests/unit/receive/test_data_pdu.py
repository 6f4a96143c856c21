"""P-DATA-TF PDUs without copies, compared with pynetdicom."""

import struct

import pytest
from pynetdicom.pdu import P_DATA_TF

from alnnode.receive.data_pdu import DataPdu


def encoded(*items: bytes) -> bytearray:
    body = b"".join(struct.pack(">IB", len(item) + 1, 2 * number + 1) + item for number, item in enumerate(items))
    return bytearray(struct.pack(">BBI", 4, 0, len(body)) + body)


@pytest.mark.parametrize("items", [[], [b""], [b"\2data"], [b"\1comm", b"\3and", b"\0data" * 1000]])
def test_the_values_are_those_of_pynetdicom(items: list[bytes]) -> None:
    pdu = encoded(*items)
    expected = P_DATA_TF()
    expected.decode(bytes(pdu))
    values = DataPdu(pdu).to_primitive().presentation_data_value_list
    assert [(context, bytes(value)) for context, value in values] == expected.to_primitive().presentation_data_value_list


@pytest.mark.parametrize("damage", [lambda pdu: pdu[:-1], lambda pdu: pdu[:9], lambda pdu: pdu[:6] + bytes(4) + pdu[10:]])
def test_what_pynetdicom_refuses_is_refused(damage) -> None:
    pdu = damage(encoded(b"\2data", b"\2more"))
    with pytest.raises(Exception):  # noqa: B017 - pynetdicom raises assertions and errors of struct
        P_DATA_TF().decode(bytes(pdu))
    with pytest.raises(ValueError, match="cut off"):
        DataPdu(pdu)
