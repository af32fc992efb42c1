"""The number of a transaction in a bookmark of Neo4j 5: every commit to a database has the next one.

Nothing promises the form of a bookmark, so whatever looks otherwise (a cluster's, several at once) tells nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection

_START, _IDENTITY_BYTES, _END = b"\x91\xcc\x10", 16, b"\x90"
_WIDTHS = {0xC8: 1, 0xC9: 2, 0xCA: 4, 0xCB: 8}
"""Bytes of a number by what stands before it; none stands before a small one."""


def last_transaction(bookmarks: Collection[str]) -> int | None:
    """The number of the transaction after which this is the bookmark; None where it cannot be told."""
    if len(bookmarks) != 1:
        return None
    [text] = bookmarks
    if not text.startswith("FB:"):
        return None
    try:
        data = base64.b64decode(text[3:] + "=" * (-len(text[3:]) % 4), validate=True)
    except binascii.Error:
        return None
    head = len(_START) + _IDENTITY_BYTES
    number = data[head : -len(_END)]
    if not data.startswith(_START) or not data.endswith(_END) or not number:
        return None
    if len(number) == 1 and number[0] < 0x80:
        return number[0]
    if len(number) != 1 + _WIDTHS.get(number[0], -1):
        return None
    return int.from_bytes(number[1:], "big", signed=True)
