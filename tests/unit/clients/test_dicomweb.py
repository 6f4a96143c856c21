"""The DICOMweb client: limits of a response, and errors that name the server without its URL."""

import asyncio
import socket
import threading
import time

import httpx
import pytest

from alnnode.clients.dicomweb import DicomwebClient, ResponseLimits
from alnnode.errors import DeliveryError, DestinationAway
from alnnode.multipart import MalformedBodyError, OutgoingPart, related, write_parts
from alnnode.settings import ArchiveDicomweb

LIMITS = ResponseLimits(8 << 20)
OBJECTS = [b"first object" * 80_000, b"second object" * 20_000]  # together above the pieces in which a body is read
BODY = b"".join(write_parts([OutgoingPart("application/dicom", [content]) for content in OBJECTS], "edge"))
RELATED = {"Content-Type": related("application/dicom", "edge")}


def client(answer) -> DicomwebClient:
    settings = ArchiveDicomweb(name="vna", url="http://user:secret@archive/dicom-web")
    return DicomwebClient(settings, httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(httpx.ConnectError, DestinationAway), (httpx.ConnectTimeout, DestinationAway), (httpx.ReadTimeout, DeliveryError)],
)
def test_errors_name_the_server_and_no_password(raised, expected) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise raised(f"no way to {request.url}")

    with pytest.raises(expected) as caught, client(answer).connect() as connection:
        connection.search("studies", {"PatientID": "P-1"}, LIMITS)
    assert "archive:80" in str(caught.value)
    assert caught.value.__suppress_context__
    assert not any(word in str(caught.value) for word in ("secret", "P-1"))


def test_a_response_is_retrieved_from_multipart_and_from_any_other_type() -> None:
    for headers, body, expected in ((RELATED, BODY, OBJECTS), ({}, b"one object", [b"one object"])):
        answer = httpx.Response(200, content=body, headers=headers)
        with client(lambda _, answer=answer: answer).connect() as connection:
            assert connection.retrieve("studies/1.2", LIMITS) == expected


def test_a_multipart_response_without_a_complete_part_is_an_error_and_not_an_empty_answer() -> None:
    answer = httpx.Response(200, content=BODY[:1000], headers=RELATED)
    with client(lambda _: answer).connect() as connection, pytest.raises(DeliveryError, match="no complete part"):
        connection.retrieve("studies/1.2", LIMITS)


def test_a_deadline_ends_a_search_before_its_request() -> None:
    asked = []
    with client(asked.append).connect() as connection, pytest.raises(DeliveryError, match="takes too long"):
        connection.search("studies", {}, ResponseLimits(1 << 20, time.monotonic() - 1))
    assert asked == []


def serve_once(response: bytes) -> str:
    """Answer the next connection with these bytes, and close it; return the URL."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(response)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("announced", [len(BODY), len(BODY) + 1000], ids=["complete", "cut off"])
def test_objects_before_a_lost_connection_are_received(tmp_path, announced) -> None:
    cut = announced > len(BODY)
    body = BODY[:-100] if cut else BODY
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {RELATED['Content-Type']}\r\nContent-Length: {announced}\r\n\r\n"
    archive = ArchiveDicomweb(name="vna", url=serve_once(head.encode() + body))
    received = []

    async def retrieve() -> None:
        async with DicomwebClient(archive).retrieve("studies/1.2", tmp_path, 8 << 20) as parts:
            async for part in parts:
                received.append(bytes(part.view()))
                part.close()

    if cut:
        with pytest.raises(MalformedBodyError, match="connection was lost"):
            asyncio.run(retrieve())
    else:
        asyncio.run(retrieve())
    assert received == (OBJECTS[:1] if cut else OBJECTS)


@pytest.mark.parametrize("head", ["HTTP/1.1 500 No\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"])
def test_a_response_that_holds_no_objects_is_an_error(tmp_path, head) -> None:
    async def retrieve() -> None:
        async with DicomwebClient(ArchiveDicomweb(name="vna", url=serve_once(head.encode()))).retrieve(
            "studies/1", tmp_path, 1
        ):
            pass

    with pytest.raises(DeliveryError, match=r"(HTTP 500|the response is not multipart/related)"):
        asyncio.run(retrieve())
