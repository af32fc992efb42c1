"""The server's certificates, read again when their files change."""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path

import grpc

from graph_store.serving_settings import TlsSettings
from server.errors import StartError
from server.observe import log


class Certificates:
    """What gRPC asks for before each handshake.

    A certificate is renewed by replacing files, one after the other: what is half replaced, or damaged, is not taken
    up, and the one before serves on.
    """

    def __init__(self, settings: TlsSettings) -> None:
        assert settings.certificate is not None
        assert settings.key is not None
        self._certificate, self._key = settings.certificate, settings.key
        self._authority = settings.client_authority
        self._lock = threading.Lock()
        self._seen = self._stamp()
        try:
            self._current = self._read()
        except (OSError, ValueError) as error:
            raise StartError(f"serving.tls: {error}", hint="Give PEM files that belong together.") from None

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials of a port; clients must show a certificate where an authority of theirs is set."""
        return grpc.dynamic_ssl_server_credentials(
            self._current, self._fetch, require_client_authentication=self._authority is not None
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration:
        """Called by gRPC from threads of its own; what it raises would end the handshake."""
        # Handshakes come at once; what changed is read, and told, by the first of them.
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return self._current
            try:
                self._current = self._read()
            except (OSError, ValueError) as error:
                log.event(logging.ERROR, "certificate not taken up, the one before stays", error=str(error))
            else:
                log.event(logging.INFO, "certificate taken up", file=str(self._certificate))
            self._seen = stamp
            return self._current

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """The files as they are now. Raises OSError, and ValueError where they do not belong together."""
        before = self._bytes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
            if self._authority is not None:
                context.load_verify_locations(self._authority)
        except ssl.SSLError as error:
            names = " and ".join(str(file) for file in self._files if file is not None)
            raise ValueError(f"{names} are no certificate with its key: {error.reason or error}") from None
        # What was checked is what was read only if nobody wrote in between.
        if before != self._bytes():
            raise ValueError(f"{self._certificate} is being replaced")
        certificate, key, authority = before
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authority)

    def _bytes(self) -> tuple[bytes, bytes, bytes | None]:
        authority = None if self._authority is None else self._authority.read_bytes()
        return self._certificate.read_bytes(), self._key.read_bytes(), authority

    @property
    def _files(self) -> tuple[Path, Path, Path | None]:
        return self._certificate, self._key, self._authority

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(file) for file in self._files if file is not None)


def _no_password() -> str:
    """Asked for a key that is encrypted; without this OpenSSL asks the terminal."""
    raise ValueError("the key is encrypted; store it without a password, readable by the server alone")


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
