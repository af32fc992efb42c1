"""What to do on a command line about a call that failed: the client's own hints speak Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.credentials import API_KEY, AUTHORITY

if TYPE_CHECKING:
    from kithkin.errors import KithkinError

HINT_OF_REASON: dict[str, str] = {
    "ACTIVATION_OVERTAKEN": "`kithkin status` tells which bundle serves.",
    "BUNDLE_NOT_FOUND": "`kithkin bundles` lists the versions there are.",
    "BUNDLE_NOT_LOADED": "`kithkin status` tells which bundle answers.",
    "DEADLINE": "Give it longer where the command has a --timeout, or ask for less (--top-k, --reasons).",
    "NODE_NOT_FOUND": "The bundle that answers has no such id or name; `kithkin show` looks in the store.",
    "NODE_WITHOUT_VECTOR": "`kithkin similar --property NAME=VALUE` or `--link` takes what you know of it; "
    "`kithkin recommend` takes --or-popular.",
    "NO_PREVIOUS_BUNDLE": "`kithkin bundles` lists the versions there are, `kithkin activate` takes any of them.",
    "NO_SCORER": "The bundle that answers has no neural scorer; its vectors answer.",
    "NO_SUCH_SPACE": "`kithkin status` lists the spaces and the node types each of them holds.",
    "OTHER_BUNDLE": "Another bundle answers since: run the command again.",
    "ROLE_NEEDED": f"{API_KEY} holds a key whose role does not include this; "
    "`kithkin keys new --role admin` makes one that does.",
    "TYPE_NEEDED": "Say which type is meant, with --type; of the second node with --target-type.",
    "UNAUTHENTICATED_CALLER": f"Set {API_KEY} to a key that the server knows.",
    "WRONG_DIMENSION": "`kithkin status` gives the dimension of each space.",
}
"""By the reason of ``kithkin.v1.ErrorReason``; the others' hints are the client's."""

HINT_OF_PHRASE: dict[str, str] = {
    "CERTIFICATE_VERIFY_FAILED": "The server's certificate is of an authority not trusted here: set "
    f"{AUTHORITY} to its PEM file, or to `system`.",
    "Hostname Verification": "The server's certificate is for another name: call it by that name (--server, "
    "serving.host).",
    "WRONG_VERSION_NUMBER": f"The server speaks without TLS: unset {AUTHORITY}, or leave serving.tls out.",
    "errors resolving": "The host's name does not resolve here: correct --server or serving.host.",
    "DNS resolution failed": "The host's name does not resolve here: correct --server or serving.host.",
}
"""By what gRPC says of a connection that failed."""

OF_TLS = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification", "WRONG_VERSION_NUMBER")
"""Phrases of failed handshakes."""

HINT_OF_STATUS: dict[str, str] = {
    "DEADLINE_EXCEEDED": "The server is overloaded, or another program has the port; see its log.",
    "PERMISSION_DENIED": f"The call needs another key in {API_KEY}.",
    "UNAUTHENTICATED": f"Set {API_KEY} to a key that the server knows.",
    "UNAVAILABLE": "Is `kithkin serve` running there, and is the port right? "
    f"A server with TLS wants {AUTHORITY} set to its authority's PEM file, or to `system`.",
}
"""By the gRPC status, where no reason came with it."""


def with_hint(error: KithkinError) -> KithkinError:
    """The same error; its hint is of use on a command line."""
    if error.reason:
        error.hint = HINT_OF_REASON.get(error.reason, error.hint)
        return error
    phrases = HINT_OF_PHRASE.items() if error.code == "UNAVAILABLE" else ()
    said = next((hint for phrase, hint in phrases if phrase in error.message), "")
    error.hint = said or HINT_OF_STATUS.get(error.code, error.hint)
    return error
