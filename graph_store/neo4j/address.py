"""Where a Neo4j is, how its certificate is checked, and with which password: settings as the driver wants them."""

from __future__ import annotations

import logging
import os
import re
import ssl
from pathlib import Path
from typing import Any

import neo4j

from graph_store.errors import ConfigError
from graph_store.settings import StoreSettings

PASSWORD_VARIABLE = "KITHKIN_STORE_PASSWORD"
PASSWORD_FILE_VARIABLE = "KITHKIN_STORE_PASSWORD_FILE"
# It logs as errors what it raises too; where nobody set logging up, Python would print them beside our message.
logging.getLogger("neo4j.pool").addHandler(logging.NullHandler())
logging.getLogger("neo4j.io").addHandler(logging.NullHandler())


def password(settings: StoreSettings) -> tuple[str, str]:
    """The password and where it came from, for messages; two empty texts where there is none.

    From the environment, else from the file that the environment names, else from ``settings.password_file``. Raises
    ConfigError for a file that cannot be read or holds nothing.
    """
    if given := os.environ.get(PASSWORD_VARIABLE):
        return given, PASSWORD_VARIABLE
    if named := os.environ.get(PASSWORD_FILE_VARIABLE):
        return _read(Path(named), PASSWORD_FILE_VARIABLE), f"the file that {PASSWORD_FILE_VARIABLE} names"
    if settings.password_file is not None:
        return _read(settings.password_file, "store.password_file"), f"{settings.password_file}"
    return "", ""


def _read(file: Path, key: str) -> str:
    try:
        # Editors and `echo` end a file with a new line, which is no part of the password.
        text = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", key=key, value=str(file)) from None
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8", key=key, value=str(file)) from None
    if not text:
        raise ConfigError("is empty", key=key, value=str(file), hint="Write the password into it, and nothing else.")
    return text


def driver_options(settings: StoreSettings) -> tuple[str, dict[str, Any]]:
    """The address and the keyword arguments of ``neo4j.GraphDatabase.driver``; raises ConfigError."""
    if "@" in settings.uri:  # a password may stand before it: nothing of the address goes into the message
        raise ConfigError(
            "holds a user or a password before @",
            key="store.uri",
            hint=f"Set the user as store.user and the password as {PASSWORD_VARIABLE}, and leave both out here.",
        )
    if not re.match(r"(neo4j|bolt)(\+s|\+ssc)?://", settings.uri):
        reason = "not an address of a Neo4j (neo4j://, bolt://, with +s or +ssc for TLS)"
        raise ConfigError(reason, key="store.uri", value=settings.uri)
    secret, _ = password(settings)
    options: dict[str, Any] = {
        "auth": (settings.user, secret) if secret else None,
        "user_agent": "kithkin",  # what the server's own lists of connections and queries show
        "connection_timeout": settings.timeout_s,
        "connection_acquisition_timeout": settings.acquisition_timeout_s or settings.timeout_s,
        "max_connection_pool_size": settings.pool_size,
        "max_transaction_retry_time": retry_s(settings),
        "notifications_min_severity": "OFF",
    }
    if settings.trusted_certificates is None:
        return settings.uri, options
    _check_certificates(settings.trusted_certificates)
    options["encrypted"] = True
    options["trusted_certificates"] = neo4j.TrustCustomCAs(str(settings.trusted_certificates))
    # The driver takes authorities only with an address that does not say by itself how to check.
    return settings.uri.replace("+s://", "://", 1), options


def retry_s(settings: StoreSettings) -> float:
    """Seconds within which a transaction is begun again."""
    return settings.retry_s or settings.timeout_s


def _check_certificates(file: Path) -> None:
    """The driver would say it as a server that cannot be reached."""
    key = "store.trusted_certificates"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        hint = "Give the certificates of the authorities as PEM (-----BEGIN CERTIFICATE-----)."
        raise ConfigError("holds no certificates", key=key, value=str(file), hint=hint) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", key=key, value=str(file)) from None
