"""API keys: who may call what. Only hashes are ever kept; a key itself is seen when it is made and when it comes."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from server.errors import RoleNeeded, StartError, UnauthenticatedCaller
from server.observe import log

ENVIRONMENT = "KITHKIN_API_KEYS"
"""Lines as in the file (or parted by commas), beside it."""
AUTHORIZATION = "authorization"
_BEARER = "bearer "
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.@-]{1,64}")
_HEALTH, _MODEL = "grpc.health.v1.Health", "kithkin.v1.ModelService"
_READING = ("GetStatus", "ListBundles")
"""Calls of ModelService that change nothing."""
_LOOK_S = 1.0
"""How often a call looks whether the file has changed."""


class Role(StrEnum):
    """What a key is good for; ``admin`` includes ``read``."""

    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key that is known, without the key."""

    role: Role
    name: str
    digest: bytes
    """SHA-256 of the key. A key has 256 random bits, which no slow hash would make harder to guess."""


def new_key(role: Role, name: str) -> tuple[str, str]:
    """A fresh key, and the line that makes it known. Raises ValueError for a name that does not fit the line."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name is up to 64 letters, digits and . _ @ -")
    key = f"kk_{secrets.token_urlsafe(32)}"
    return key, f"{role} {name} {_digest(key).hex()}"


def parse_keys(lines: Iterable[str], origin: str) -> list[Key]:
    """Keys of lines ``role name sha256hex``; ``#`` begins a comment. Raises ValueError that names the line."""
    keys: list[Key] = []
    for number, line in enumerate(lines, 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        # The line is not shown: it may hold a key where its hash should stand.
        place = f"{origin}, line {number}"
        if len(fields) != 3:
            raise ValueError(f"{place}: {len(fields)} words, not the three of `role name sha256`")
        role, name, digest = fields
        if role not in tuple(Role):
            raise ValueError(f"{place}: the role must be {' or '.join(Role)}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{place}: a name is up to 64 letters, digits and . _ @ -")
        if not _DIGEST.fullmatch(digest.lower()):
            raise ValueError(f"{place}: the third word is not a SHA-256 in 64 hexadecimal digits")
        if name in {key.name for key in keys}:
            raise ValueError(f"{place}: two keys are called {name}")
        keys.append(Key(role=Role(role), name=name, digest=bytes.fromhex(digest)))
    return keys


class Keys:
    """The keys of the file and the environment; the file is read again when it changes.

    A file that cannot be read, or has a mistake, changes nothing: the keys before stay, and the log says so.
    """

    def __init__(self, file: Path | None, environment: str = "") -> None:
        self._file = file
        self._fixed = _parsed(environment.replace(",", "\n").splitlines(), ENVIRONMENT)
        self._seen = None if file is None else _stamp(file)
        self._keys = self._read()
        self._looked = time.monotonic()

    @classmethod
    def of(cls, file: Path | None) -> Keys | None:
        """The keys that the file and the environment name; None: neither names any, and everybody may call.

        Raises StartError where the file cannot be read or a line is wrong.
        """
        environment = os.environ.get(ENVIRONMENT, "")
        return None if file is None and not environment.strip() else cls(file, environment)

    def admit(self, authorization: str | None, role: Role) -> Key:
        """The caller's key. Raises UnauthenticatedCaller and RoleNeeded."""
        self._look()
        if authorization is None:
            raise UnauthenticatedCaller(
                "the call has no API key",
                hint="Send it as metadata `authorization: Bearer KEY` (api_key of the client).",
            )
        sent = authorization[len(_BEARER) :] if authorization[: len(_BEARER)].lower() == _BEARER else ""
        digest = _digest(sent.strip())
        found: Key | None = None
        # All are compared, and each in the same time, so that how long it takes tells nothing.
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise UnauthenticatedCaller("the API key is not known", hint="Ask who runs the server for one.")
        if role is Role.ADMIN and found.role is not Role.ADMIN:
            raise RoleNeeded(f"the key {found.name} has the role {found.role}, the call needs {role}")
        return found

    def _look(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._looked < _LOOK_S:
            return
        self._looked = now
        stamp = _stamp(self._file)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = self._read()
        except StartError as error:
            log.event(logging.ERROR, "keys not taken up, those before stay", error=error.message)
        else:
            log.event(logging.INFO, "keys taken up", keys=len(self._keys))

    def _read(self) -> list[Key]:
        if self._file is None:
            return self._fixed
        try:
            text = self._file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise StartError(
                f"serving.keys_file {self._file} cannot be read: {reason}", hint="`kithkin keys new` prints its lines."
            ) from None
        return [*_parsed(text.splitlines(), str(self._file)), *self._fixed]


def role_needed(method: str, *, health_needs_key: bool = False) -> Role | None:
    """The role that a call needs, by its full name; None: anybody's. What is not known to only read needs ``admin``."""
    service, _, name = method.strip("/").partition("/")
    if service == _HEALTH and not health_needs_key:
        return None
    if service == _MODEL and name not in _READING:
        return Role.ADMIN
    return Role.READ


def _parsed(lines: Iterable[str], origin: str) -> list[Key]:
    try:
        return parse_keys(lines, origin)
    except ValueError as error:
        raise StartError(str(error), hint="`kithkin keys new` prints such a line.") from None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
