"""Where a client calls and how: target, TLS, metadata, deadline, retries; checked once, the same for both clients."""

from __future__ import annotations

import ipaddress
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import grpc

from kithkin._retry import RetryPolicy
from kithkin._scalars import finite
from kithkin._translation import REQUEST_ID
from kithkin.queries import Tls

OPTIONS: tuple[tuple[str, int], ...] = (
    # A long list with reasons passes gRPC's 4 MiB.
    ("grpc.max_receive_message_length", 64 * 2**20),
    # gRPC waits 1 s before it connects again and fails calls meanwhile: retries within a short deadline would be
    # pointless.
    # (min_reconnect_backoff_ms is no such wait: it is how long connecting, TLS included, may take.)
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # Retries are ours; no service config from DNS may add its own.
    ("grpc.service_config_disable_resolution", 1),
)
"""Options of every channel."""

IN_FLIGHT = 4
"""Parts of one call that are under way at once."""

Metadata = tuple[tuple[str, str], ...]

_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:/\s]+):(?P<port>\d{1,5})")
_RESOLVERS = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")
_HEADER = re.compile(r"[0-9a-z_.-]+")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_PRINTABLE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class Connection:
    """What both clients need to know to make a channel and a call."""

    target: str
    timeout: float
    policy: RetryPolicy
    metadata: Metadata
    tls: Tls | None
    process_id: int

    @classmethod
    def create(
        cls,
        target: str,
        *,
        timeout: float,
        retries: int,
        api_key: str | None,
        tls: Tls | bool,
        metadata: Mapping[str, str] | None,
        insecure: bool,
    ) -> Connection:
        """Checks the arguments of a client; raises TypeError or ValueError, naming the argument."""
        _check_target(target)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ValueError(f"retries must be a whole number, 0 or more, not {retries!r}")
        headers = [(_header_name(name), _header_value(name, value)) for name, value in (metadata or {}).items()]
        if api_key is not None:
            if not tls and not insecure and not _on_this_machine(target):
                raise ValueError(
                    "an API key would travel unencrypted: pass tls=True, or insecure=True where the network is trusted"
                )
            headers.append(("authorization", _header_value("api_key", f"Bearer {api_key}")))
        return cls(
            target=target,
            timeout=seconds(timeout),
            policy=RetryPolicy(retries=retries),
            metadata=tuple(headers),
            tls=Tls() if tls is True else (tls or None),
            process_id=os.getpid(),
        )

    @classmethod
    def local(cls, folder: str | PathLike[str], *, timeout: float) -> Connection:
        """Of a client that answers in this process; raises TypeError or ValueError, naming the argument."""
        return cls(
            target=f"this process, bundle {os.fspath(folder)}",
            timeout=seconds(timeout),
            policy=RetryPolicy(retries=0),
            metadata=(),
            tls=None,
            process_id=os.getpid(),
        )

    def options(self) -> list[tuple[str, int | str]]:
        """Channel options."""
        options: list[tuple[str, int | str]] = list(OPTIONS)
        if self.tls and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Channel credentials; None: no TLS."""
        if self.tls is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_pem("ca", self.tls.ca),
            private_key=_pem("key", self.tls.key),
            certificate_chain=_pem("certificate", self.tls.certificate),
        )

    def call_metadata(self, request_id: str | None) -> tuple[str, Metadata]:
        """The call's request id, a fresh one unless given, and its whole metadata."""
        chosen = uuid.uuid4().hex if request_id is None else request_id
        if not isinstance(chosen, str) or not _REQUEST_ID.fullmatch(chosen):
            raise ValueError(f"request_id must be 1 to 128 printable ASCII characters without spaces, not {chosen!r}")
        return chosen, (*self.metadata, (REQUEST_ID, chosen))

    def deadline(self, timeout: float | None) -> float:
        """Seconds the call may take in all."""
        return self.timeout if timeout is None else seconds(timeout)

    def of_this_process(self) -> bool:
        """False in a forked child."""
        return os.getpid() == self.process_id

    def check_process(self) -> None:
        """Raises RuntimeError in a forked child, where gRPC would hang rather than fail."""
        if not self.of_this_process():
            raise RuntimeError("this client was made before a fork; make a new one in each child process")


def seconds(timeout: float) -> float:
    """The timeout as a float; raises ValueError unless it is finite and above 0."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}; every call has a deadline")
    if not finite(timeout) or timeout <= 0:
        raise ValueError(f"timeout must be finite and above 0 seconds, not {timeout!r}")
    return float(timeout)


def _check_target(target: str) -> None:
    if not isinstance(target, str):
        raise TypeError(f"target must be a string such as 'localhost:50051', not {target!r}")
    if target.startswith(_RESOLVERS):
        return
    scheme, separator, rest = target.partition("://")
    if separator:
        tls = ", tls=True" if scheme == "https" else ""
        raise ValueError(f"target {target!r} is a URL; gRPC takes host:port: Client({rest.rstrip('/')!r}{tls})")
    match = _HOST_PORT.fullmatch(target)
    if match is None:
        # Without a port gRPC would quietly try 443.
        raise ValueError(f"target must be host:port, such as 'localhost:50051' or '[::1]:50051', not {target!r}")
    if not 0 < int(match["port"]) < 65536:
        raise ValueError(f"target {target!r}: the port must be between 1 and 65535")


def _on_this_machine(target: str) -> bool:
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition(":")[0].removeprefix("dns:").lstrip("/").removeprefix("ipv4:").removeprefix("ipv6:")
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host == "localhost"


def _header_name(name: str) -> str:
    if not isinstance(name, str) or not _HEADER.fullmatch(name) or name.endswith("-bin") or name.startswith("grpc-"):
        raise ValueError(f"metadata: {name!r} is no name of a text header: lower-case letters, digits, '-', '_', '.'")
    return name


def _header_value(name: str, value: str) -> str:
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        shown = "its value" if name == "api_key" else repr(value)
        raise ValueError(f"{name} must be printable ASCII, not empty and without spaces at its ends, not {shown}")
    return value


def _pem(name: str, source: str | PathLike[str] | bytes | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ValueError(f"Tls.{name}: {error}") from error
