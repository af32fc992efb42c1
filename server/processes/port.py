"""The port of a server, held while its workers come and go."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any

from server.errors import StartError

_TRIES = 20
"""For a free port that is free in every address family."""
_NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A name may stand for an address of a kind that this machine has none of."""


def reserve(host: str, port: int, *, setting: str = "--port (0: any free one)") -> list[socket.socket]:
    """Sockets that hold the port on every address of ``host`` without listening; workers listen beside them.

    Workers use ``SO_REUSEPORT``. ``setting`` is where the port comes from. Raises StartError where somebody has the
    port on one of the addresses.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise StartError(f"serving.host {host!r} is no address: {error}", hint="Give a name or an address.") from None
    places: list[tuple[int, Any]] = [(family, address) for family, _, _, _, address in found]
    if host == "localhost":
        # gRPC takes it for both families, whatever the machine's file of hosts says.
        places += [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))]
    places = list(dict.fromkeys(places))
    for last in (*([False] * (_TRIES - 1)), True):
        try:
            return _reserve_all(places, port)
        except OSError as error:
            # A port that is free in one family may be taken in another: another one is asked for.
            if last or port or error.errno != errno.EADDRINUSE:
                raise StartError(
                    f"cannot listen on {host}:{port}: {error.strerror}",
                    hint=f"Stop what holds the port, or choose another with {setting}.",
                ) from None
    raise AssertionError("the last try returns or raises")


def _reserve_all(places: Sequence[tuple[int, Any]], port: int) -> list[socket.socket]:
    held: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in places:
            place = (address[0], port, *address[2:])
            try:
                held.append(_reserve(family, place, beside=len(places) > 1))
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                absent = error
            else:
                port = held[-1].getsockname()[1]
        if not held and absent is not None:
            raise absent
    except OSError:
        for each in held:
            each.close()
        raise
    return held


def _reserve(family: int, address: Any, *, beside: bool) -> socket.socket:
    # Once without sharing: another program's port, also another Kithkin's, must not be shared by accident.
    # SO_REUSEADDR passes over connections that have just ended, and over whoever has it too and does not listen: the
    # port that is held goes without where it can, so that it is seen before its worker listens.
    reuse, share = socket.SO_REUSEADDR, socket.SO_REUSEPORT
    for options in ((reuse,), (share,), (reuse, share)):
        held = socket.socket(family, socket.SOCK_STREAM)
        try:
            if beside and family == socket.AF_INET6:
                # Else the other family's address could not be had beside it.
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in options:
                held.setsockopt(socket.SOL_SOCKET, option, 1)
            held.bind(address)
        except OSError:
            held.close()
            if options == (share,):
                continue
            raise
        if share in options:
            break
        address = held.getsockname()
        held.close()
    return held
