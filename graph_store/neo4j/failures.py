"""The driver's errors in our words: what, where, and what to do."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

from neo4j import exceptions

from graph_store.errors import GraphStoreError, QueryError, StoreAuthError, StoreConflict, StoreError, StoreUnavailable
from graph_store.neo4j.address import PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE, password, retry_s
from graph_store.settings import StoreSettings

_SECURITY = "Neo.ClientError.Security."
_MEMORY = ("MemoryPoolOutOfMemory", "TransactionMemoryLimit", "OutOfMemory")
_UNREACHABLE = (
    exceptions.ServiceUnavailable,
    exceptions.SessionExpired,
    exceptions.ConnectionAcquisitionTimeoutError,
    OSError,
)


def said(
    error: Exception, settings: StoreSettings, other: Callable[[Exception], GraphStoreError] | None = None
) -> GraphStoreError:
    """One of our errors for one of the driver's; ``other`` for those that say nothing about the store itself."""
    uri, code, reason = settings.uri, code_of(error), _first_line(error)
    if "AccessMode" in code:
        return QueryError("the query writes, and queries are read-only", hint="Allow it with --write.")
    if code == _SECURITY + "Forbidden":
        if other is not None:
            return other(error)
        hint = "Give the user the privileges that docs/neo4j.md lists."
        return StoreAuthError(f"{uri}: the user {settings.user!r} may not do this: {reason}", hint=hint)
    if isinstance(error, exceptions.AuthError) or code.startswith(_SECURITY):
        hint = _credentials_hint(settings, code)
        return StoreAuthError(f"{uri} refused the user {settings.user!r} or the password", hint=hint)
    if code.endswith("DatabaseNotFound"):
        hint = "Set store.database to one that is there (`SHOW DATABASES`)."
        return StoreUnavailable(f"{uri} has no database {settings.database!r}", hint=hint)
    if isinstance(error, exceptions.IncompleteCommit):
        hint = "Do it again: what was written is found as it is, and the rest is written."
        return StoreUnavailable(
            f"the connection to {uri} broke in the middle of a commit, which may or may not be there", hint=hint
        )
    if isinstance(error, exceptions.ConnectionAcquisitionTimeoutError):
        hint = "Raise store.pool_size or store.acquisition_timeout_s, or ask less at once."
        return StoreUnavailable(f"no connection to {uri} was free in time", hint=hint)
    certificate = _certificate_failure(error)
    if certificate is not None:
        return _distrusted(certificate, settings)
    if isinstance(error, _UNREACHABLE) or code.endswith("DatabaseUnavailable"):
        return _unreachable(error, uri)
    if "TransactionTimedOut" in code:
        whose = "store.transaction_timeout_s" if "ClientConfiguration" in code else "Neo4j's db.transaction.timeout"
        return StoreError(f"a transaction took longer than {whose} allows", hint=f"Raise {whose}, or do less at once.")
    if lacks_memory(error):
        hint = (
            "Give Neo4j more (server.memory.heap.max_size, dbms.memory.transaction.total.max), or write less at once."
        )
        return StoreError("Neo4j has not the memory for one transaction of this size", hint=hint)
    if isinstance(error, exceptions.Neo4jError) and error.is_retryable():
        hint = "Try again when others write less, or raise store.retry_s."
        return StoreUnavailable(f"{uri} ended the transaction for {retry_s(settings):g} s on end: {reason}", hint=hint)
    return (other or _failed)(error)


def code_of(error: Exception) -> str:
    """Neo4j's own name of an error, ``Neo.TransientError.Transaction.DeadlockDetected``; empty for the driver's."""
    return getattr(error, "code", None) or ""


def lacks_memory(error: Exception) -> bool:
    """Whether Neo4j lacks memory for a transaction; it says that this passes, and it fails again."""
    return any(word in code_of(error) for word in _MEMORY)


def wants_no_transaction(error: Exception) -> bool:
    """Whether a statement may not run in a transaction that somebody began (``CALL { ... } IN TRANSACTIONS``)."""
    return code_of(error).endswith("TransactionStartFailed") and "implicit transaction" in str(error)


def query_failed(error: Exception) -> GraphStoreError:
    """What Neo4j says of somebody's statement."""
    return QueryError(getattr(error, "message", None) or str(error))


def _failed(error: Exception) -> StoreError:
    code, message = code_of(error), getattr(error, "message", None) or str(error)
    if "Constraint" in code or "TypeError" in code or "IndexAlreadyExists" in code:
        hint = "Make it fit, or use another database (store.database)."
        return StoreConflict(f"what is in Neo4j does not fit the declared schema: {message}", hint=hint)
    return StoreError(f"Neo4j failed: {message}")


def _credentials_hint(settings: StoreSettings, code: str) -> str:
    if "RateLimit" in code:
        return "Too many wrong passwords; wait a few seconds."
    if "CredentialsExpired" in code:
        return "Neo4j wants this password changed first: ALTER CURRENT USER SET PASSWORD FROM '...' TO '...'."
    _, origin = password(settings)
    if origin:
        return f"Check store.user in kithkin.toml and the password in {origin}."
    return (
        f"Set the password in the environment variable {PASSWORD_VARIABLE}, or name a file that holds it in "
        f"{PASSWORD_FILE_VARIABLE} or store.password_file."
    )


def _beneath(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it; the driver puts those of several servers into a group."""
    yield error
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for cause in (*members, error.__cause__ or error.__context__):
        if cause is not None:
            yield from _beneath(cause)


def _certificate_failure(error: BaseException) -> str | None:
    """What the check of a certificate said; None: it is about something else."""
    for cause in _beneath(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
    return None


def _unreachable(error: Exception, uri: str) -> StoreUnavailable:
    *_, root = _beneath(error)
    hint = "Check that Neo4j runs there and that store.uri is right (neo4j://, bolt://, neo4j+s://...)."
    if isinstance(root, ssl.SSLError):
        hint = "Check that Neo4j has TLS there; where it has not, write store.uri without +s."
    elif "handshake" in str(root) and "+s" not in uri:
        hint = "Where Neo4j has TLS there, write store.uri with it: neo4j+s:// or bolt+s://."
    reason = _first_line(error if isinstance(error, exceptions.Neo4jError) else root)
    return StoreUnavailable(f"cannot reach Neo4j at {uri}: {reason}", hint=hint)


def _distrusted(reason: str, settings: StoreSettings) -> StoreUnavailable:
    if settings.trusted_certificates is None:
        hint = "Name the file of the authority that signed it as store.trusted_certificates, or have it signed by one "
        hint += "that this machine trusts."
    else:
        hint = f"Check that {settings.trusted_certificates} holds the authority that signed it, and that the "
        hint += "certificate is for the host in store.uri."
    return StoreUnavailable(f"the certificate of Neo4j at {settings.uri} is not trusted: {reason}", hint=hint)


def _first_line(error: BaseException) -> str:
    text = getattr(error, "message", None) or str(error)
    return str(text).splitlines()[0] if text else type(error).__name__
