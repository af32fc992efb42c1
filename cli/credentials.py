"""Clients of servers that ask for TLS or keys: what the environment gives them."""

from __future__ import annotations

import os

from graph_store.errors import ConfigError
from graph_store.settings import ServingSettings
from kithkin import Client, Tls

API_KEY = "KITHKIN_API_KEY"
AUTHORITY = "KITHKIN_CA"
"""PEM file of the authorities to trust, or ``system``: those of this machine; given, servers are called with TLS."""
CERTIFICATE, KEY = "KITHKIN_CLIENT_CERTIFICATE", "KITHKIN_CLIENT_KEY"
"""PEM files that show who calls, for servers that want a certificate (mTLS)."""
_EVERYWHERE = {"0.0.0.0": "localhost", "::": "localhost"}


def client_of(server: str) -> Client:
    """A client of the server that a command line names. Raises ConfigError."""
    return _client(server, "--server", with_tls=bool(os.environ.get(AUTHORITY)), insecure=False)


def client_of_project(serving: ServingSettings, *, asking: bool) -> Client:
    """A client of the project's own server; ``asking``: not of the port of its administration. Raises ConfigError."""
    port = serving.port if asking or serving.admin_port is None else serving.admin_port
    with_tls = serving.tls.certificate is not None
    host = _EVERYWHERE.get(serving.host, serving.host) if with_tls else serving.host
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return _client(target, "serving.host", with_tls=with_tls, insecure=serving.insecure, retries=0)


def _client(target: str, key: str, *, with_tls: bool, insecure: bool, retries: int = 3) -> Client:
    def variable(name: str) -> str | None:
        return os.environ.get(name) or None

    authority = variable(AUTHORITY)
    try:
        tls = Tls(ca=None if authority == "system" else authority, certificate=variable(CERTIFICATE), key=variable(KEY))
        return Client(
            target, retries=retries, api_key=variable(API_KEY), tls=tls if with_tls else False, insecure=insecure
        )
    except ValueError as error:
        raise _config_error(str(error), key, target) from None


def _config_error(text: str, key: str, target: str) -> ConfigError:
    """What a client says of its arguments, as the variables and settings that they came from."""
    if text.startswith("api_key"):
        return ConfigError(
            text.replace("api_key ", "", 1), key=API_KEY, hint="Give the key as `kithkin keys new` printed it."
        )
    for argument, variable in (("ca", AUTHORITY), ("certificate", CERTIFICATE), ("key", KEY)):
        if text.startswith(f"Tls.{argument}: "):
            return ConfigError(
                text.partition(": ")[2], key=variable, hint="Give a PEM file that this user may read, or unset it."
            )
    if text.startswith("Tls: "):
        return ConfigError("belong together: set both or none", key=f"{CERTIFICATE} and {KEY}")
    if "unencrypted" in text:
        hint = f"With TLS, {AUTHORITY} names the authorities to trust; serving.insecure allows it on a trusted network."
        return ConfigError(text.partition(":")[0], key=key, value=target, hint=hint)
    return ConfigError(text.partition(": Client(")[0], key=key, value=target)
