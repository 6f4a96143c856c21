"""The STOW-RS user agent against a scripted origin server."""

import email
import json

import httpx
import pytest

from alnnode.deliver.destination import OutboxFile
from alnnode.deliver.stow_client import StowDestination
from alnnode.errors import DeliveryError, DeliveryRefused
from alnnode.settings import DestinationStow

SETTINGS = DestinationStow(name="web", url="http://user:secret@archive/dicom-web/")


@pytest.fixture
def objects(tmp_path):
    made = []
    for number in range(2):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(bytes([number]) * 1000 + b"\r\n--\r\n" + bytes(range(256)) * 8000)
        made.append(OutboxFile("1.2.840.10008.5.1.4.1.1.7", f"1.2.{number}", "1.2.840.10008.1.2.1", path))
    return made


def failed(*reasons: int) -> bytes:
    items = [{"00081197": {"vr": "US", "Value": [reason]}} for reason in reasons]
    return json.dumps({"00081198": {"vr": "SQ", "Value": items}}).encode()


def named(count: int, *reasons: int) -> bytes:
    """A response that names ``count`` objects as stored."""
    items = [{"00081155": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(count)]
    stored = {"00081199": {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}}
    return json.dumps(json.loads(failed(*reasons)) | stored).encode()


def destination(status: int, body: bytes = b"{}", seen: list[httpx.Request] | None = None) -> StowDestination:
    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        if seen is not None:
            seen.append(request)
        return httpx.Response(status, content=body)

    return StowDestination(SETTINGS, httpx.MockTransport(answer))


def test_the_request_holds_the_files_byte_for_byte(objects) -> None:
    seen: list[httpx.Request] = []
    destination(200, seen=seen).send(objects)
    (request,) = seen
    assert (request.method, request.url.path) == ("POST", "/dicom-web/studies")
    assert int(request.headers["content-length"]) == len(request.content)
    assert request.headers["accept"] == "application/dicom+json"
    message = email.message_from_bytes(
        b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + request.content
    )
    assert message.get_param("type") == "application/dicom"
    boundary = message.get_boundary()
    assert request.content.endswith(f"--{boundary}--\r\n".encode())
    parts = request.content.split(f"--{boundary}\r\n".encode())[1:]
    bodies = [
        part.split(b"\r\n\r\n", 1)[1].removesuffix(f"--{boundary}--\r\n".encode()).removesuffix(b"\r\n") for part in parts
    ]
    assert bodies == [item.path.read_bytes() for item in objects]
    assert all(part.startswith(b"Content-Type: application/dicom\r\n") for part in parts)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{}"),
        (200, b""),
        (200, b"<xml/>"),
        (201, b""),
        (202, b"{}"),
        (202, failed(0x0111)),
        (409, failed(0x0111, 0x0111)),
        (409, failed(0xB00E)),
        (200, named(2)),
        (202, named(1, 0x0111)),
    ],
)
def test_stored_and_already_stored_are_success(objects, status, body) -> None:
    destination(status, body).send(objects)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, failed(0xA700)),
        (202, b"gone"),
        (409, b"{}"),
        (409, failed(0x0110)),
        (200, failed(0xC000)),
        (200, named(0)),
        (200, named(1)),
        (503, b""),
        (500, b""),
        (429, b""),
        (408, b""),
    ],
)
def test_a_temporary_failure_may_be_retried(objects, status, body) -> None:
    with pytest.raises(DeliveryError) as caught:
        destination(status, body).send(objects)
    assert not isinstance(caught.value, DeliveryRefused)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, failed(0x0111, 0xA900)),
        (409, failed(0x0122)),
        (409, failed(0x0110, 0xA900)),
        (400, b""),
        (401, b""),
        (404, b""),
        (415, b""),
        (302, b""),
    ],
)
def test_a_permanent_failure_is_a_refusal(objects, status, body) -> None:
    with pytest.raises(DeliveryRefused):
        destination(status, body).send(objects)


def test_a_missing_response_may_be_retried_and_names_no_password(objects) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"cannot reach {request.url}")

    with pytest.raises(DeliveryError) as caught:
        StowDestination(SETTINGS, httpx.MockTransport(refuse)).send(objects)
    assert "secret" not in str(caught.value)


def test_the_error_of_a_missing_outbox_file_has_no_path(objects) -> None:
    objects[1].path.unlink()
    with pytest.raises(DeliveryError) as caught:
        destination(200).send(objects)
    assert str(objects[1].path) not in str(caught.value)


def test_nothing_to_send_makes_no_request() -> None:
    seen: list[httpx.Request] = []
    destination(500, seen=seen).send([])
    assert seen == []


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (204, None), (405, None), (501, None), (401, DeliveryRefused), (404, DeliveryRefused), (502, DeliveryError)],
)
def test_echo(status, error) -> None:
    if error is None:
        destination(status).echo()
        return
    with pytest.raises(error):
        destination(status).echo()
