"""The client of Redis: pipelines of commands, every reply read, every error sorted.

The only module that imports `redis`. A batch is one round trip: all commands are packed, sent, and then exactly as
many replies are read. Nothing here retries; the caller knows what is safe to repeat.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from etl.cache.scripts import SCRIPTS
from etl.errors import CacheAway, CycleFailed, EtlError, Misconfigured, Transient

Command = tuple[str | bytes | int, ...]
"""A command and its arguments."""

_TRANSIENT_ERRORS: Final = (
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.NoScriptError,
)
# Codes that redis-py has no class for, or that a script before Redis 7 wraps into its own error.
_TRANSIENT_CODES: Final = re.compile(
    r"(?:^|-)(?:OOM|LOADING|READONLY|MISCONF|BUSY|MASTERDOWN|NOREPLICAS|TRYAGAIN|CLUSTERDOWN) "
)
_CLUSTER: Final = (redis.exceptions.AskError, redis.exceptions.ClusterCrossSlotError)
_CREDENTIALS: Final = (
    redis.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)
# Redis wraps what a script is denied into the script's own error.
_DENIED: Final = re.compile(
    r"^(?:NOAUTH|WRONGPASS|NOPERM)|-NOPERM|can't run this command or subcommand|No permission"
)

# What only another setting mends, by the words of the server or of Python.
_SETTINGS: Final = {
    "certificate verify failed": "has a certificate that is not trusted: see ssl_ca_certs in redis.url",
    "DB index is out of range": "has no such database: correct the number in redis.url",
    "invalid DB index": "has no such database: correct the number in redis.url",
}


def open_pool(url: str, timeout_seconds: float) -> redis.ConnectionPool:
    """A pool for `url`; nothing is connected before its first use.

    Raises:
        Misconfigured: the URL is malformed. The message never holds the URL.
    """
    scheme = urlsplit(url).scheme
    tcp = {} if scheme == "unix" else {"socket_keepalive": True, "socket_connect_timeout": timeout_seconds}
    try:
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=timeout_seconds,
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",
            retry=Retry(NoBackoff(), 0),
            client_name="promptcontent-etl",
            **tcp,
        )
        pool.connection_class(**pool.connection_kwargs)  # connects to nothing, but refuses unknown options
    except TypeError:
        raise Misconfigured("redis.url: an option after the ? is unknown") from None
    except (ValueError, redis.RedisError) as error:
        reason = str(error) if scheme not in {"redis", "rediss", "unix"} else "not a Redis URL"
        raise Misconfigured(f"redis.url: {reason}") from None
    return pool


class Wire:
    """Sends commands over the connections of a pool; may be shared between threads."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool

    @property
    def address(self) -> str:
        """Where Redis is, without credentials."""
        known = self._pool.connection_kwargs
        return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands, read all replies, and return them when none is an error.

        Raises:
            Transient: Redis is away, loading, full or failing over. What was sent may or may not have been
                carried out.
            Misconfigured: Redis refuses the login or a command.
            CycleFailed: any other error reply, such as a key of the wrong type.
        """
        try:
            with self._connection() as connection:
                replies = _round_trip(connection, commands)
                if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):
                    # A server that was restarted, or promoted, has no scripts. Every one may be repeated.
                    _round_trip(
                        connection, [("SCRIPT", "LOAD", script.source) for script in SCRIPTS.values()]
                    )
                    replies = _round_trip(connection, commands)
        except (redis.RedisError, OSError) as error:
            raise self._sorted(error) from error
        failed = next((reply for reply in _flat(replies) if isinstance(reply, redis.RedisError)), None)
        if failed is not None:
            raise self._sorted(failed) from failed
        return replies

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection of the pool. After a failure its replies are out of step, so it is closed."""
        connection: Any = self._pool.get_connection()
        try:
            yield connection
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def _sorted(self, error: Exception) -> EtlError:
        where = f"Redis at {self.address}"
        text = str(error).replace("\n", " ")
        if isinstance(error, _CREDENTIALS) or _DENIED.search(text):
            return Misconfigured(f"{where} refuses: {text} (check user, password and ACL in redis.url)")
        problem = next((problem for words, problem in _SETTINGS.items() if words in text), None)
        if problem is not None:
            return Misconfigured(f"{where} {problem}")
        if isinstance(error, _CLUSTER):
            return Misconfigured(
                f"{where} is a Redis Cluster: not supported, name a single server in redis.url"
            )
        if isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError)):
            return CacheAway(
                f"{where} does not answer: {text.rstrip('.')} (is it running, and is redis.url right?)"
            )
        if isinstance(error, _TRANSIENT_ERRORS) or _TRANSIENT_CODES.search(text):
            return Transient(f"{where} cannot take this now: {text}")
        return CycleFailed(f"{where}: {text}")


def _round_trip(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """The reply to each command; error replies are among them, but that the login is refused is raised."""
    # Packed by hiredis: redis-py's own packing of a call with hundreds of arguments takes 10 µs a document.
    connection.send_packed_command([b"".join([hiredis.pack_command(command) for command in commands])])  # type: ignore[arg-type]
    return [_reply(connection) for _ in commands]


def _flat(replies: Sequence[Any]) -> Iterator[Any]:
    """All replies, and those inside an EXEC, in order: the first error is the one that explains."""
    for reply in replies:
        yield reply
        if isinstance(reply, list):
            yield from (inner for inner in reply if isinstance(inner, Exception))


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
