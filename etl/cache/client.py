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
"""Time limit for one Sentinel to answer before the next one is asked."""

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
_UNAVAILABLE: Final = (
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
    """A pool of connections, which are opened at their first use.

    Args:
        url: the address of Redis, and the options of its connections.
        timeout_seconds: time limit for connecting and for each reply.
        sentinel: the Sentinels that know the address of the primary, instead of the address in `url`.

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
    options = {
        name: value for name, value in pool.connection_kwargs.items() if name not in {"host", "port", "path"}
    }
    # One short attempt for each Sentinel: one often fails together with the machine of the primary.
    limit = min(timeout_seconds, _SENTINEL_SECONDS)
    sentinel_options = {
        **{name: value for name, value in options.items() if name.startswith("ssl_")},
        "ssl": scheme == "rediss",
        "username": sentinel.username,
        "password": sentinel.password,
        "socket_timeout": limit,
        "socket_connect_timeout": limit,
        "retry": Retry(NoBackoff(), 0),
    }
    untyped: Any = Sentinel
    sentinels = untyped([*sentinel.nodes], sentinel_kwargs=sentinel_options)
    primary: Any = sentinels.master_for(sentinel.service, ssl=scheme == "rediss", **options)
    primary_pool: redis.ConnectionPool = primary.connection_pool
    return primary_pool


def _check_files(options: Mapping[str, Any]) -> None:
    """Check the files of TLS: redis-py would report an unreadable one as a server that does not answer.

    Raises:
        ConfigurationError: a file cannot be read, or has another format. The message names it.
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
            # An empty password: for None, OpenSSL would ask on the terminal.
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
        options = self._pool.connection_kwargs
        if isinstance(self._pool, SentinelConnectionPool):
            return f"{self._pool.service_name} of the Sentinels"
        return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands in one pipeline, and return their replies if none is an error.

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
        """The maximum length of an argument in bytes; the default of Redis if the user may not ask for it.

        Redis does not answer a longer argument with an error: it closes the connection, which fails the whole batch.
        """
        try:
            [reply] = self.exchange([("CONFIG", "GET", "proto-max-bulk-len")])
        except (ConfigurationError, CycleFailed):  # CONFIG is denied, or was renamed
            reply = []
        return int(reply[1]) if reply else _LONGEST_ARGUMENT

    def now(self) -> int:
        """The clock of Redis in microseconds since the epoch."""
        return micros(self.exchange([("TIME",)])[0])

    def primaries(self) -> frozenset[str]:
        """The replication id of each primary; a failover and most restarts change it.

        Empty if the user may not ask for it, as on managed servers.
        """
        with self._translated_errors():
            return replication_ids([self._pool])

    def nodes(self) -> list["Wire"]:
        """This server; in a cluster a wire to each node, replicas included, which share the connections of this one."""
        return [self]

    def groups(self, keys: Sequence[str], size: int) -> Iterator[Sequence[int]]:
        """The indices of the keys, in groups of at most `size` keys that one script call may use."""
        for start in range(0, len(keys), size):
            yield range(start, min(start + size, len(keys)))

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
        if (problem := _settings_problem(text)) is not None:
            return ConfigurationError(f"{where} {problem}")
        if isinstance(error, _UNAVAILABLE):
            return RedisUnavailable(
                f"{where} does not answer: {text.rstrip('.')} (is it running, and is redis.url right?)"
            )
        if isinstance(error, _TRANSIENT_ERRORS) or _TRANSIENT_CODES.search(text):
            return TransientError(f"{where} cannot take this now: {text}")
        return CycleFailed(f"{where}: {text}")


def _settings_problem(text: str) -> str | None:
    """The problem with the settings that this message of an error shows, if any."""
    return next((problem for words, problem in _SETTINGS.items() if words in text), None)


def _no_primary(where: str, text: str, pool: Any) -> EtlError:
    """The error if the Sentinels name no primary; `text` contains the class of the error of each Sentinel."""
    if "AuthenticationError" in text:
        return ConfigurationError(
            f"{where}: the Sentinels refuse the login (check redis.sentinel.username and redis.sentinel.password)"
        )
    if issubclass(pool.connection_class, redis.SSLConnection):
        for sentinel in pool.sentinel_manager.sentinels:
            try:
                sentinel.ping()
            except (redis.RedisError, OSError) as error:  # the reason is not in `text`
                if (problem := _settings_problem(str(error))) is not None:
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
            # A restarted or promoted server has no scripts. Every command that is sent with a script may be repeated.
            loaded = _sent(connection, [("SCRIPT", "LOAD", script.source) for script in SCRIPTS.values()])
            # If the user may not load scripts, return that error: "no matching script" would be retried.
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
    """The replication id of each server; empty if the user may not ask for it."""
    ids = set()
    for pool in pools:
        [reply] = round_trip(pool, [("INFO", "replication")])
        if isinstance(reply, redis.exceptions.NoPermissionError) or "unknown command" in str(reply):
            return frozenset()  # denied or renamed, as on managed servers
        if isinstance(reply, redis.RedisError):
            raise reply
        ids.update(re.findall(r"master_replid:(\w+)", reply))
    return frozenset(ids)


def micros(time: Sequence[str]) -> int:
    """A reply to `TIME` in microseconds since the epoch."""
    return int(time[0]) * 1_000_000 + int(time[1])


def mapping(reply: Sequence[str]) -> dict[str, str]:
    """The reply to a command such as HGETALL, in which fields and values alternate, as a mapping."""
    return dict(zip(reply[::2], reply[1::2], strict=True))
