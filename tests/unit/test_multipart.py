"""Bodies of ``multipart/related``: what the writer writes, the readers read."""

import asyncio

import pytest

from alnnode.multipart import (
    MalformedBodyError,
    OutgoingPart,
    PartTooLargeError,
    media_type,
    read_parts,
    related,
    split_parts,
    write_parts,
    written_length,
)

CONTENTS = [b"", b"one\r\n--not a boundary", bytes(range(256)) * 40]
PARTS = [OutgoingPart("application/dicom", [content], len(content)) for content in CONTENTS]
BODY = b"".join(write_parts(PARTS, "edge"))


def read(body: bytes, folder, max_part: int = 1 << 20) -> list[bytes]:
    async def stream():
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    async def collect() -> list[bytes]:
        return [bytes(part.view()) async for part in read_parts(stream(), "edge", folder, max_part)]

    return asyncio.run(collect())


def test_both_readers_return_what_was_written(tmp_path) -> None:
    assert read(BODY, tmp_path) == CONTENTS
    assert split_parts(BODY, "edge") == CONTENTS


def test_the_length_is_known_before_the_content_is_read() -> None:
    assert written_length(PARTS, "edge") == len(BODY)
    assert media_type(related("application/dicom", "edge")) == (
        "multipart/related",
        {"type": "application/dicom", "boundary": "edge"},
    )


def test_a_large_part_is_in_a_file_without_a_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.multipart.IN_MEMORY", 100)
    assert read(BODY, tmp_path) == CONTENTS
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_is_cut_off_gives_its_complete_parts_or_an_error(tmp_path) -> None:
    cut = BODY[: len(BODY) // 2]
    assert split_parts(cut, "edge") == CONTENTS[:2]
    with pytest.raises(MalformedBodyError, match="before its closing boundary"):
        read(cut, tmp_path)
    assert split_parts(b"no boundary at all", "edge") == []
    assert split_parts(BODY, "\u20ac") == []


@pytest.mark.parametrize(
    "body",
    [
        b"preamble\r\n--edge\r\nContent-Type: x\r\n\r\nDATA\r\n--edge--",
        b"--edge \t\r\nContent-Type: x\r\n\r\nDATA\r\n--edge-- \r\nepilogue",
        b"--edge\r\nContent Type: x\r\n\r\nDATA\r\n--edge--",
        b"--edge\r\n\r\nDATA\r\n--edge",
        b"--edge\r\n\r\nDATA\r\n--edge--\r\n--edge\r\n\r\nnot a part\r\n--edge--",
    ],
    ids=["preamble", "transport padding", "odd header", "no closing boundary", "after the closing boundary"],
)
def test_a_reader_of_other_servers_bodies_is_tolerant(body) -> None:
    assert split_parts(body, "edge") == [b"DATA"]


def test_a_longer_boundary_does_not_divide() -> None:
    assert split_parts(b"--edge\r\n\r\nA\r\n--edges\r\n\r\nB\r\n--edge--", "edge") == [b"A\r\n--edges\r\n\r\nB"]


def test_a_part_above_the_limit_is_an_error(tmp_path) -> None:
    with pytest.raises(PartTooLargeError):
        read(BODY, tmp_path, max_part=1000)
