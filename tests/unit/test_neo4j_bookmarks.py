"""The number of a transaction in Neo4j's bookmarks, and what is none."""

from __future__ import annotations

import base64

import pytest

from graph_store.neo4j.bookmarks import last_transaction

IDENTITY = bytes(range(16))


def _bookmark(number: bytes, *, head: bytes = b"\x91\xcc\x10", end: bytes = b"\x90") -> str:
    return "FB:" + base64.b64encode(head + IDENTITY + number + end).decode()


def test_a_number_of_every_width_is_read() -> None:
    assert last_transaction(["FB:kcwQ7IVy9o7ST7ei4Yid6t//eckDOJA="]) == 0x0338  # of a Neo4j 5.26
    assert last_transaction([_bookmark(b"\x05")]) == 5
    for mark, width in ((0xC9, 2), (0xCA, 4), (0xCB, 8)):
        assert last_transaction([_bookmark(bytes([mark]) + (300).to_bytes(width, "big"))]) == 300


@pytest.mark.parametrize(
    "bookmarks",
    [
        [],
        ["FB:kcwQ7IVy9o7ST7ei4Yid6t//eckDOJA=", _bookmark(b"\x05")],
        ["neo4j:bookmark:v1:tx42"],
        ["FB:not base 64!"],
        ["FB:"],
        [_bookmark(b"\x05", head=b"\x92\xcc\x10")],
        [_bookmark(b"\x05", end=b"\x91")],
        [_bookmark(b"\xca\x00\x01")],
        [_bookmark(b"")],
    ],
)
def test_what_looks_otherwise_tells_nothing(bookmarks: list[str]) -> None:
    assert last_transaction(bookmarks) is None
