"""ListEntities: the nodes of a type by id, a page at a time (AIP-158)."""

from __future__ import annotations

import base64
import binascii
import bisect
import hashlib
import struct
from collections.abc import Callable
from contextlib import suppress

from graph_store.schema import NodeRole
from kithkin.v1 import retrieval_service_pb2 as pb
from server.calls.answers import fill_info
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.errors import BadPageToken, BundleNotLoaded, InvalidField, OtherBundle
from server.model.catalogue import NodeKey

USUAL_PAGE, LARGEST_PAGE = 100, 1000
LONGEST_PART = 1000
"""Characters of ``name_contains``."""
_DIGEST_BYTES = 12
_LENGTH = struct.Struct(">I")


def list_entities(
    serving: Callable[[str], Retrieval], request: pb.ListEntitiesRequest, deadline: Deadline
) -> pb.ListEntitiesResponse:
    """Answer ListEntities; ``serving`` gives the bundle of a version (of none: the active one).

    Raises BadPageToken, OtherBundle where the listing's bundle is gone, and InvalidField and its kinds.
    """
    if request.page_size < 0:
        raise InvalidField("page_size", f"{request.page_size} is negative")
    if len(request.name_contains) > LONGEST_PART:
        raise InvalidField("name_contains", f"has {len(request.name_contains)} characters, send at most {LONGEST_PART}")
    size = min(request.page_size or USUAL_PAGE, LARGEST_PAGE)
    version, last = _read_token(request) if request.page_token else ("", None)
    try:
        model = serving(version).model
    except BundleNotLoaded as error:
        raise OtherBundle(
            f"page_token: the listing is of bundle {version}, which is no longer loaded",
            hint=f"Begin again without a token. {error.hint}",
        ) from None
    node_type = model.catalogue.type_named(request.type, "type", None)
    if model.catalogue.role(node_type) is NodeRole.USER:
        kinds = ", ".join(
            name for name in model.bundle.node_types if name not in model.catalogue.types_of(NodeRole.USER)
        )
        raise InvalidField("type", f"{node_type!r} is a user type, users are not listed", hint=f"There are {kinds}.")
    ids = model.bundle.ids(node_type)
    # By the id and not by its row: nodes may come and go between two pages.
    first = 0 if last is None else bisect.bisect_right(range(len(ids)), last, key=ids.key)
    rows = None
    if request.HasField("filter"):
        rows = model.filters.select(request.filter, node_type, deadline).bitmap
    if request.name_contains:
        named = model.catalogue.name_contains(node_type, request.name_contains)
        rows = named if rows is None else rows & named
    deadline.check("page")
    # One more than the page: whether there is another is told without counting.
    if rows is None:
        page = list(range(first, min(first + size + 1, len(ids))))
    else:
        start = rows.rank(first - 1) if first else 0
        page = list(rows[start : start + size + 1])
    response = pb.ListEntitiesResponse(nodes=[model.catalogue.node(NodeKey(node_type, row)) for row in page[:size]])
    if len(page) > size:
        response.next_page_token = _token(request, model.version, ids.key(page[size - 1]))
    response.info.exact = True
    if request.HasField("filter"):
        response.info.filter_passed = len(model.filters.select(request.filter, node_type, deadline))
    fill_info(response.info, model, deadline)
    return response


def _token(request: pb.ListEntitiesRequest, version: str, last: bytes) -> str:
    """Bundle and last id of the page, sealed with what the listing is of."""
    content = _LENGTH.pack(len(version)) + version.encode() + last
    return base64.urlsafe_b64encode(_seal(request, content) + content).decode()


def _read_token(request: pb.ListEntitiesRequest) -> tuple[str, bytes]:
    try:
        raw = base64.b64decode(request.page_token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    seal, content = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
    # The seal is no secret: whoever makes a token up may seal anything.
    if len(content) >= _LENGTH.size and seal == _seal(request, content):
        start = _LENGTH.size + _LENGTH.unpack(content[: _LENGTH.size])[0]
        if start <= len(content):
            with suppress(UnicodeDecodeError):
                return content[_LENGTH.size : start].decode(), content[start:]
    raise BadPageToken(
        "page_token",
        "is not one of this listing",
        hint="Send next_page_token of the page before, with the same type, filter and name_contains.",
    )


def _seal(request: pb.ListEntitiesRequest, content: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    filtered = request.filter.SerializeToString(deterministic=True) if request.HasField("filter") else b""
    for part in (request.type.encode(), filtered, request.name_contains.encode(), content):
        digest.update(_LENGTH.pack(len(part)) + part)
    return digest.digest()
