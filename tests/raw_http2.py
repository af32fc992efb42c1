"""A client that speaks HTTP/2 by hand, as badly as a test wants it: gRPC's own cannot be made to misbehave."""

from __future__ import annotations

import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE = 3, 4


class RawClient:
    """One connection; ``window``: bytes that the server may send of each answer."""

    def __init__(self, port: int, *, window: int = 65_535) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.sendall(PREFACE + _frame(SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window)))
        self._stream = -1
        self._received = b""

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, message: bytes | None, **metadata: str) -> int:
        """Open a stream; None: send no message, and leave it open. Returns its number."""
        stream = self.head(method, **metadata)
        if message is not None:
            self.send(DATA, _END_STREAM, stream, struct.pack(">BI", 0, len(message)) + message)
        return stream

    def head(self, method: str, *, whole: bool = True, **metadata: str) -> int:
        """Open a stream by its headers, or by the first part of them. Returns its number."""
        self._stream += 2
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
            **metadata,
        }
        block = b"".join(header(name, value) for name, value in headers.items())
        self.send(HEADERS, _END_HEADERS if whole else 0, self._stream, block)
        return self._stream

    def send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Send a frame. Raises ConnectionError where the server has had enough."""
        self._socket.sendall(_frame(kind, flags, stream, payload))

    def ping(self, times: int) -> None:
        self._socket.sendall(_frame(PING, 0, 0, bytes(8)) * times)

    def frames(self, seconds: float, *, until: int | None = None) -> list[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of what comes within so many seconds, or until a frame of that type."""
        found: list[tuple[int, int, int, bytes]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while len(self._received) >= 9:
                length = int.from_bytes(self._received[:3], "big")
                if len(self._received) < 9 + length:
                    break
                kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
                found.append((kind, flags, stream, self._received[9 : 9 + length]))
                self._received = self._received[9 + length :]
                if kind == until:
                    return found
            self._socket.settimeout(max(end - time.monotonic(), 0.01))
            try:
                part = self._socket.recv(65536)
            except TimeoutError:
                break
            except ConnectionError:
                return found
            if not part:
                return found
            self._received += part
        return found

    def most_streams(self) -> int:
        """What the server's settings allow at once."""
        for kind, flags, _, payload in self.frames(10, until=SETTINGS):
            if kind == SETTINGS and not flags & _ACK:
                settings = dict(struct.iter_unpack(">HI", payload))
                return settings[_MAX_CONCURRENT_STREAMS]
        raise AssertionError("no settings came")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: str, value: str) -> bytes:
    """A header that the table is not to remember (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    """A string of HPACK (RFC 7541, 5.2), not compressed."""
    return _integer(len(text), 7) + text.encode()


def _integer(value: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    encoded, value = [most], value - most
    while value >= 128:
        encoded.append(value % 128 + 128)
        value //= 128
    return bytes([*encoded, value])
