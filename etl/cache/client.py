"""Redis clients: pipelines of commands, and errors translated by what the caller should do.

Only this module and `cluster` open Redis connections: this one to a single server or to the primary that Sentinel
names. A pipeline is one round trip: all commands are sent at once, then one reply per command is read. Only
commands that a cluster redirects are sent again here; the caller decides what else is safe to retry.
"""

import contextlib
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from etl.cache import slots
from etl.cache.scripts import SCRIPTS
from etl.errors import ConfigurationError, CycleFailed, EtlError, RedisUnavailable, TransientError

Command = slots.Command
"""A command and its arguments."""

OLDEST: Final = (6, 2)
"""The oldest supported version of Redis."""

_LONGEST_ARGUMENT: Final = 512 * 1024 * 1024

_SENTINEL_SECONDS: Final = 2.0
"""How long one Sentinel is waited for before the next one is asked."""

_TRANSIENT_ERRORS: Final = (
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.NoScriptError,
    redis.exceptions.ClusterError,
)
# Codes that redis-py has no class for, or that a script before Redis 7 wraps into its own error.
_TRANSIENT_CODES: Final = re.compile(
    r"(?:^|-)(?:OOM|LOADING|READONLY|MISCONF|BUSY|MASTERDOWN|NOREPLICAS|TRYAGAIN|CLUSTERDOWN) "
)
# A cluster raises RedisClusterException, which is no RedisError, if slots are not served or no node answers.
_AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    MasterNotFoundError,
    RedisClusterException,
    OSError,
)
_CREDENTIALS: Final = (
    redis.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)
# Redis wraps the denial of a command in a script into an error of the script.
_DENIED: Final = re.compile(
    r"^(?:NOAUTH|WRONGPASS|NOPERM)|-NOPERM|ACL failure in script|can't run this command or subcommand|No permission"
)

# Errors that only a change of the settings fixes, by a part of the message from the server or from Python.
_SETTINGS: Final = {
    "certificate verify failed": "has a certificate that is not trusted: see ssl_ca_certs in redis.url",
    "DB index is out of range": "has no such database: correct the number in redis.url",
    "invalid DB index": "has no such database: correct the number in redis.url",
    "in protected mode": "is in protected mode and answers its own machine only: set requirepass or protected-mode no",
}


class SentinelService(NamedTuple):
    """The name of a primary, and the Sentinels that know its address."""

    service: str
    nodes: Sequence[tuple[str, int]]
    username: str | None = None
    """For the Sentinels themselves, as is the password."""
    password: str | None = None


def open_pool(
    url: str, timeout_seconds: float, sentinel: SentinelService | None = None
) -> redis.ConnectionPool:
    """A pool for `url`, or for the primary that Sentinel names with the options of `url`; it does not connect yet.

    Raises:
        ConfigurationError: the URL is malformed. The message does not contain the URL.
    """
    scheme = urlsplit(url).scheme
    try:
        pool = redis.ConnectionPool.from_url(url, **connection_options(scheme, timeout_seconds))
        pool.connection_class(**pool.connection_kwargs)  # connects to nothing, but refuses unknown options
    except TypeError:
        raise ConfigurationError("redis.url: an option after the ? is unknown") from None
    except (ValueError, redis.RedisError) as error:
        reason = str(error) if scheme not in {"redis", "rediss", "unix"} else "not a Redis URL"
        raise ConfigurationError(f"redis.url: {reason}") from None
    _check_files(pool.connection_kwargs)
    if sentinel is None:
        return pool
    kept = {
        name: value for name, value in pool.connection_kwargs.items() if name not in {"host", "port", "path"}
    }
    # Asked once each, and not for long: a Sentinel often fails with the machine of the primary.
    soon = min(timeout_seconds, _SENTINEL_SECONDS)
    own = {
        **{name: value for name, value in kept.items() if name.startswith("ssl_")},
        "ssl": scheme == "rediss",
        "username": sentinel.username,
        "password": sentinel.password,
        "socket_timeout": soon,
        "socket_connect_timeout": soon,
        "retry": Retry(NoBackoff(), 0),
    }
    make: Any = Sentinel  # which has no annotations
    sentinels = make([*sentinel.nodes], sentinel_kwargs=own)
    named: Any = sentinels.master_for(sentinel.service, ssl=scheme == "rediss", **kept)
    found: redis.ConnectionPool = named.connection_pool
    return found


def _check_files(options: Mapping[str, Any]) -> None:
    """Check the files of TLS: redis-py would report an unreadable one as a server that does not answer.

    Raises:
        ConfigurationError: a file cannot be read, or is not what it should be. The message names it.
    """
    if not any(name.startswith("ssl_") for name in options):
        return
    folder = options.get("ssl_ca_path")
    if folder is not None and not Path(folder).is_dir():
        raise ConfigurationError(f"redis.url: ssl_ca_path: {folder} is no folder")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities, certificate, key = map(options.get, ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
    name, file = "ssl_ca_certs", authorities
    try:
        if authorities is not None:
            context.load_verify_locations(authorities)
        if certificate is not None:
            name, file = "ssl_certfile, ssl_keyfile", f"{certificate}, {key or certificate}"
            # An empty password, as OpenSSL would ask on the terminal for one.
            context.load_cert_chain(certificate, key, options.get("ssl_password") or "")
    except OSError as error:
        problem = "no such PEM file" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(f"redis.url: {name}: {file}: {problem}") from None
    try:
        context.set_ciphers(options.get("ssl_ciphers") or "DEFAULT")
    except ssl.SSLError:
        raise ConfigurationError("redis.url: ssl_ciphers: OpenSSL knows no such cipher") from None


def connection_options(scheme: str, timeout_seconds: float) -> dict[str, Any]:
    """The options of every connection to a URL of this scheme."""
    tcp = {} if scheme == "unix" else {"socket_keepalive": True, "socket_connect_timeout": timeout_seconds}
    return {
        "socket_timeout": timeout_seconds,
        "protocol": 2,
        "decode_responses": True,
        "encoding_errors": "replace",
        "retry": Retry(NoBackoff(), 0),
        "client_name": "promptcontent-etl",
        **tcp,
    }


class Wire:
    """Sends commands over the connections of a pool; may be shared between threads."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool

    @property
    def address(self) -> str:
        """The address of Redis without credentials."""
        known = self._pool.connection_kwargs
        if isinstance(self._pool, SentinelConnectionPool):
            return f"{self._pool.service_name} of the Sentinels"
        return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands, read all replies, and return them when none is an error.

        Raises:
            TransientError: Redis does not answer, is loading, full or failing over. The commands may or may not have
                been executed.
            ConfigurationError: Redis refuses the login or a command.
            CycleFailed: any other error reply, such as a key of the wrong type.
        """
        with self._translated_errors():
            replies = round_trip(self._pool, commands)
            for reply in replies:
                if isinstance(reply, redis.RedisError):
                    raise reply
        return replies

    def longest_argument(self) -> int:
        """Bytes that Redis takes as one argument, as it says itself; its default where it may not be asked.

        Beyond that it does not answer with an error but closes the connection, whatever else is in the batch.
        """
        try:
            [found] = self.exchange([("CONFIG", "GET", "proto-max-bulk-len")])
        except (ConfigurationError, CycleFailed):  # CONFIG is denied, or was renamed
            found = []
        return int(found[1]) if found else _LONGEST_ARGUMENT

    def now(self) -> int:
        """The clock of Redis in microseconds since the epoch."""
        return micros(self.exchange([("TIME",)])[0])

    def primaries(self) -> frozenset[str]:
        """The replication id of each primary, which a failover and most restarts change.

        Empty where the user may not ask for it, as on managed servers.
        """
        with self._translated_errors():
            return replication_ids([self._pool])

    def nodes(self) -> list["Wire"]:
        """This server; in a cluster one wire to each node, replicas too, that share its connections."""
        return [self]

    def together(self, keys: Sequence[str], most: int) -> Iterator[Sequence[int]]:
        """Groups of indices of keys that one script call may use, each of at most `most` keys."""
        for start in range(0, len(keys), most):
            yield range(start, min(start + most, len(keys)))

    def close(self) -> None:
        """Close all connections."""
        self._pool.disconnect()

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate the errors of Redis into those of `etl.errors`."""
        try:
            yield
        except (redis.RedisError, RedisClusterException, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> EtlError:
        where = f"Redis at {self.address}"
        text = str(error).replace("\n", " ")
        if isinstance(error, MasterNotFoundError):
            return _no_primary(where, text, self._pool)
        if isinstance(error, _CREDENTIALS) or _DENIED.search(text):
            return ConfigurationError(f"{where} refuses: {text} (check user, password and ACL in redis.url)")
        problem = next((problem for words, problem in _SETTINGS.items() if words in text), None)
        if problem is not None:
            return ConfigurationError(f"{where} {problem}")
        if isinstance(error, _AWAY):
            return RedisUnavailable(
                f"{where} does not answer: {text.rstrip('.')} (is it running, and is redis.url right?)"
            )
        if isinstance(error, _TRANSIENT_ERRORS) or _TRANSIENT_CODES.search(text):
            return TransientError(f"{where} cannot take this now: {text}")
        return CycleFailed(f"{where}: {text}")


def _no_primary(where: str, text: str, pool: Any) -> EtlError:
    """What to do about Sentinels that name no primary; `text` has the class of the error of each that was asked."""
    if "AuthenticationError" in text:
        return ConfigurationError(
            f"{where}: the Sentinels refuse the login (check redis.sentinel.username and redis.sentinel.password)"
        )
    if issubclass(pool.connection_class, redis.SSLConnection):
        for one in pool.sentinel_manager.sentinels:
            try:
                one.ping()
            except (redis.RedisError, OSError) as error:  # the reason is not in `text`
                problem = next((problem for words, problem in _SETTINGS.items() if words in str(error)), None)
                if problem is not None:
                    return ConfigurationError(f"{where}: a Sentinel {problem}")
    return RedisUnavailable(
        f"{where} does not answer: no Sentinel names a primary (are redis.sentinel.service and .nodes right?)"
    )


def round_trip(pool: redis.ConnectionPool, commands: Sequence[Command]) -> list[Any]:
    """The reply to each command over one connection of the pool; an error reply is returned, not raised."""
    connection: Any = pool.get_connection()
    try:
        replies = _sent(connection, commands)
        if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):
            # A restarted or promoted server has no scripts. Every command sent with a script may be repeated.
            loaded = _sent(connection, [("SCRIPT", "LOAD", script.source) for script in SCRIPTS.values()])
            # A user without the right to load is told so; "no matching script" would be retried.
            denied = [reply for reply in loaded if isinstance(reply, redis.RedisError)]
            replies = denied[:1] * len(commands) if denied else _sent(connection, commands)
    except BaseException:
        connection.disconnect()  # unread replies would be taken for those of the next commands
        raise
    finally:
        pool.release(connection)
    return replies


def _sent(connection: Any, commands: Sequence[Command]) -> list[Any]:
    # Packed by hiredis: redis-py takes 10 µs per document to pack a call with hundreds of arguments.
    connection.send_packed_command([b"".join([hiredis.pack_command(command) for command in commands])])  # type: ignore[arg-type]
    return [_reply(connection) for _ in commands]


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def replication_ids(pools: Iterable[redis.ConnectionPool]) -> frozenset[str]:
    """The replication id of each server; empty where the user may not ask for it."""
    found = set()
    for pool in pools:
        [reply] = round_trip(pool, [("INFO", "replication")])
        if isinstance(reply, redis.exceptions.NoPermissionError) or "unknown command" in str(reply):
            return frozenset()  # denied or renamed, as on managed servers
        if isinstance(reply, redis.RedisError):
            raise reply
        found.update(re.findall(r"master_replid:(\w+)", reply))
    return frozenset(found)


def micros(time: Sequence[str]) -> int:
    """A reply to `TIME` in microseconds since the epoch."""
    return int(time[0]) * 1_000_000 + int(time[1])


def mapping(reply: Sequence[str]) -> dict[str, str]:
    """The reply to a command such as HGETALL, in which fields and values alternate, as a mapping."""
    return dict(zip(reply[::2], reply[1::2], strict=True))
