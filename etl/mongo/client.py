"""Opens MongoDB clients, and translates the errors of the driver. No other module opens a client."""

import atexit
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl

import pymongo
from pymongo import MongoClient, errors
from pymongo.synchronous import monitor

from etl.errors import AccessDenied, ConfigurationError, CycleFailed, EtlError, TransientError

_CLOSE_SECONDS: Final = 1.0
_SECRET: Final = re.compile("pass|token|secret|properties", re.IGNORECASE)
_FILES: Final = frozenset({"tlscafile", "tlscertificatekeyfile", "tlscrlfile"})
_FILE_PROBLEM: Final = re.compile("file is not readable|X509|PEM|SSL")

# Server error codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_CREDENTIALS: Final = {11, 18, 334, 8000}
_FORBIDDEN: Final = {13}
_WITHOUT_INDEX: Final = {2, 27, 168, 291}  # the hint names no usable index; `min` on a view or time series
_TRANSIENT: Final = {
    *(6, 7, 89, 202, 9001),  # the network
    *(91, 189, 10058, 10107, 11600, 11602, 13435, 13436),  # a failover or a shutdown
    *(43, 175, 237),  # the cursor or its plan was killed
    *(50, 262),  # a time limit of the server
    *(63, 133, 150, 13388),  # a sharded cluster moving its data
}


class Client(MongoClient[dict[str, Any]]):
    """A client that remembers its address: the driver forgets servers of another replica set."""

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri, **options)
        self.hosts_in_uri = uri.partition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]


def connect(uri: str, timeout_seconds: float = 10.0, **options: Any) -> MongoClient[dict[str, Any]]:
    """A client that connects at its first use.

    Args:
        uri: the address of MongoDB, and the options of its connections.
        timeout_seconds: time limit for choosing a server, for connecting and for each reply.
        options: further options of the driver.

    Raises:
        ConfigurationError: the URI is malformed. The message does not contain the URI.
    """
    ms = int(timeout_seconds * 1000)
    limits = {"serverSelectionTimeoutMS": ms, "connectTimeoutMS": ms, "socketTimeoutMS": ms}
    try:
        # The driver only warns of unknown options.
        with warnings.catch_warnings(action="error", category=UserWarning):
            return Client(uri, **({"appname": "promptcontent-etl"} | limits | options))
    except UserWarning as warning:
        raise ConfigurationError(f"mongo.uri: {_option_problem(str(warning))}") from None
    except OSError as error:  # an option names a file that cannot be read
        raise ConfigurationError(f"mongo.uri: {error.strerror}{_files(uri)}") from None
    except (errors.InvalidURI, errors.ConfigurationError, ValueError) as error:
        raise ConfigurationError(f"mongo.uri: {_safe(error, uri)}") from None


def close(client: MongoClient[Any]) -> None:
    """Close the connections of a client, and end its sessions if the server answers within `_CLOSE_SECONDS`."""
    with pymongo.timeout(_CLOSE_SECONDS):
        client.close()


def end_without_waiting() -> None:
    """Skip the driver's wait for its monitor threads at exit, which takes half a second.

    They are daemon threads that sleep before they notice that their client is closed.
    """
    hook = getattr(monitor, "_shutdown_resources", None)
    if hook is not None:
        atexit.unregister(hook)


def _option_problem(warning: str) -> str:
    """The driver's warning about an option, unless it may contain a secret."""
    if warning.startswith("Unknown option") or _SECRET.search(warning):
        return "an option after the ? is unknown or has a wrong value"
    return warning.partition("\n")[0]


def _safe(error: Exception, uri: str) -> str:
    text = str(error).split("\n", maxsplit=1)[0]
    credentials = uri.partition("://")[2].rpartition("@")[0]
    parts = [part for part in (credentials, *credentials.split(":")) if part]
    if any(part in text for part in parts):
        return "not a MongoDB URI"
    return text + _files(uri) if _FILE_PROBLEM.search(text) else text


def _files(uri: str) -> str:
    """The files that the URI names, because the driver's message does not name the one that failed."""
    options = parse_qsl(uri.partition("?")[2])
    files = [f"{name} {value}" for name, value in options if name.lower() in _FILES]
    return f" ({', '.join(files)})" if files else ""


def address(client: MongoClient[Any]) -> str:
    """The address of MongoDB without credentials."""
    servers = sorted((host, port or 0) for host, port in client.topology_description.server_descriptions())
    known = ", ".join(f"{host}:{port}" if port else host for host, port in servers)
    return known or (client.hosts_in_uri if isinstance(client, Client) else "")


@contextmanager
def translated_errors(client: MongoClient[Any], namespace: str) -> Iterator[None]:
    """Translate the driver's errors.

    Raises:
        TransientError: a retry may help.
        ConfigurationError: wrong credentials, or no right to read `namespace`.
        CycleFailed: any other error.
    """
    try:
        yield
    except EtlError:
        raise
    except errors.PyMongoError as error:
        raise _translated(error, f"MongoDB at {address(client)}", namespace) from error


def is_without_index(error: errors.OperationFailure) -> bool:
    """Whether the error means that the index cannot be used."""
    return error.code in _WITHOUT_INDEX


def _translated(error: errors.PyMongoError, where: str, namespace: str) -> EtlError:
    code = getattr(error, "code", None)
    if isinstance(error, errors.ConfigurationError):
        from dns import exception, resolver  # noqa: PLC0415 (slow to load, and needed for mongodb+srv only)

        is_transient = isinstance(error.__cause__, (exception.Timeout, resolver.NoNameservers))
        return (TransientError if is_transient else ConfigurationError)(f"{where}: {first_line(error)}")
    if code in _CREDENTIALS:
        return ConfigurationError(f"{where} refused the login: check user and password in mongo.uri")
    if code in _FORBIDDEN:
        return AccessDenied(f"{where} denies access to {namespace}: grant this user the role read")
    if "certificate verify failed" in str(error):
        return ConfigurationError(
            f"{where} has a certificate that is not trusted: see tlsCAFile in mongo.uri"
        )
    if isinstance(error, errors.ConnectionFailure) or code in _TRANSIENT:
        return TransientError(
            f"{where} does not answer: {first_line(error)} (is it running, and is mongo.uri right?)"
        )
    return CycleFailed(f"{where}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """The driver's message in one line, without time-outs, topology and the reply of the server."""
    text = str(error).split(", Timeout:", maxsplit=1)[0].split(", full error:", maxsplit=1)[0]
    return text.split(" (configured timeouts:", maxsplit=1)[0].replace("\n", " ")
