"""Options of the server's connections: what one client can take from the others, and for how long."""

from __future__ import annotations

from graph_store.settings import ServingSettings

_ROOM = 1 << 20
"""gRPC's own limit lies above ours by this: past ours the answer carries details, past gRPC's it cannot."""
_METADATA_BYTES = 16 * 1024
_MOST_PENDING = 10_000
"""Calls of one method that wait in gRPC's core: some hundred MiB. The loop refuses some thousand a second."""
_LEAST_STREAMS = 100
"""RFC 9113 advises no fewer."""


def options(settings: ServingSettings) -> list[tuple[str, int]]:
    """Options of a grpc server."""
    streams = max(_LEAST_STREAMS, 2 * settings.max_concurrent_calls)
    return [
        # Workers share the port.
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", 2 * settings.max_message_bytes + _ROOM),
        # Answers are of our own making.
        ("grpc.max_send_message_length", -1),
        # One connection fills the server at most twice: above the limit, so that a single busy caller is told that it
        # is too much, and not without end, so that who opens calls and never reads or writes holds little memory.
        ("grpc.max_concurrent_streams", streams),
        # Calls that the loop has not taken yet wait in gRPC's core. By default it ends some past a thousand, all past
        # three thousand, as CANCELLED, which tells no client to try again; taken, they are refused as they should.
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _MOST_PENDING),
        # A key, a request id and tracing headers are 1 KiB; without both, gRPC refuses at random between 8 and 16 KiB.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        # Who connects and does not speak HTTP/2 (or TLS) within this time is let go; gRPC waits two minutes.
        ("grpc.server_handshake_timeout_ms", 10_000),
        # A peer that has vanished without a word is found after 80 s, and its calls end.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping every 10 s (behind address translation they must), also between calls; who pings more often
        # is let go after two warnings. By default one ping in five minutes is let pass.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        # A connection without calls for so long costs a descriptor and serves nobody; clients connect again unasked.
        ("grpc.max_connection_idle_ms", 30 * 60_000),
        # An old connection is told to go (its calls end as they would), so that load spreads over workers that were
        # started later; what then does not end within a minute is of nobody, or a health watcher, who comes back.
        ("grpc.max_connection_age_ms", int(settings.connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", 60_000),
    ]
