"""The wire to Redis: pipelines of commands, every reply read, every error sorted.

The only module that imports `redis`. A batch is one round trip: all commands are packed, sent,
and then exactly as many replies are read. Nothing here retries; the caller knows what is safe.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import DefaultParser
from redis.retry import Retry

from etl.cache.resp import Command, Replies, Sent, pack, pack_one
from etl.errors import CacheAway, CycleFailed, EtlError, Misconfigured, Transient
from etl.model.encoded import Packed

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


class Script:
    """A Lua script beside the code; its header names each key and its type."""

    def __init__(self, name: str) -> None:
        self.source = files("etl.cache").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
        """The command that runs it, by the digest under which the wire has loaded it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


SCRIPTS: Final = {name: Script(name) for name in ("acquire", "renew", "release", "commit", "enqueue", "look")}


def open_pool(url: str, timeout_seconds: float) -> redis.ConnectionPool:
    """A pool for `url`; nothing is connected before its first use.

    Raises:
        Misconfigured: the URL is malformed. The message never holds the URL.
    """
    try:
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            socket_keepalive=True,
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",
            retry=Retry(NoBackoff(), 0),
            client_name="promptcontent-etl",
            parser_class=_Parser,
        )
        pool.connection_class(
            **pool.connection_kwargs
        )  # it connects to nothing, but refuses what it does not know
    except TypeError:
        raise Misconfigured("redis.url: an option after the ? is unknown") from None
    except (ValueError, redis.RedisError) as error:
        scheme = urlsplit(url).scheme
        reason = str(error) if scheme not in {"redis", "rediss", "unix"} else "not a Redis URL"
        raise Misconfigured(f"redis.url: {reason}") from None
    return pool


class _Parser(DefaultParser):  # type: ignore[misc,valid-type]
    """redis-py's own parser for the handshake; what follows is read many replies at a time.

    A batch of 500 documents has 2,000 replies, and one call of `Connection.read_response` for each of
    them took 1.6 µs more than this: a tenth of the time of a backfill.
    """

    def on_connect(self, connection: Any, **options: Any) -> None:
        """Begin with nothing read."""
        super().on_connect(connection, **options)
        self._replies = Replies(self.parse_error)

    def read(self, count: int) -> list[Any]:
        """The next replies; raises the first error among them, once all are read."""
        try:
            replies = self._replies.read(self._sock, count)
        except EOFError:
            raise redis.ConnectionError("Connection closed by server.") from None
        for error in self._replies.errors:
            raise error
        return replies


class Wire:
    """One connection to Redis, made anew after any failure. Not to be shared between threads."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        self._connection: Any = None
        self.generation = 0

    @property
    def address(self) -> str:
        """Where Redis is, without credentials."""
        known = self._pool.connection_kwargs
        return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")

    def exchange(self, commands: Sequence[Sent], generation: int | None = None) -> list[Any]:
        """Send all commands, read all replies, and return them when none is an error.

        Args:
            commands: what to send, in one go.
            generation: the connection this must go over, where a WATCH binds it to one.

        Raises:
            Transient: Redis is away, loading, full or failing over, or the connection that
                `generation` names is gone. What was sent may or may not have been carried out.
            Misconfigured: Redis refuses the login or a command.
            CycleFailed: any other error reply, such as a key of the wrong type.
        """
        with self._told():
            if self._connection is not None and _is_stale(self._connection):
                self._drop()
            if generation is not None and (self._connection is None or generation != self.generation):
                raise Transient(f"the connection to Redis at {self.address} was lost")
            return self._roundtrip(commands)

    def close(self) -> None:
        """Give the connection back; the next exchange makes a new one."""
        if self._connection is not None:
            self._pool.release(self._connection)
            self._connection = None

    def _roundtrip(self, commands: Sequence[Sent]) -> list[Any]:
        connection = self._connected()
        # Joined, because redis-py makes a system call of each piece: that took a third of a cycle.
        connection.send_packed_command([b"".join(map(_bytes, commands))])
        return _replies(connection, sum(c.length if isinstance(c, Packed) else 1 for c in commands))

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._pool.get_connection()
            self.generation += 1
            self._load_scripts(self._connection)
        return self._connection

    def _load_scripts(self, connection: Any) -> None:
        loads: list[Command] = [("SCRIPT", "LOAD", script.source) for script in SCRIPTS.values()]
        connection.send_packed_command([pack(loads)])
        for _ in loads:
            connection.read_response()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Drop the connection on any failure (its replies are out of step), and sort the error."""
        try:
            yield
        except EtlError:
            self._drop()
            raise
        except (redis.RedisError, OSError) as error:
            self._drop()
            raise self._sorted(error) from error
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self.close()

    def _sorted(self, error: Exception) -> EtlError:
        where = f"Redis at {self.address}"
        text = str(error).replace("\n", " ")
        if isinstance(error, _CREDENTIALS) or text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
            return Misconfigured(f"{where} refuses: {text} (check user, password and ACL in redis.url)")
        if "certificate verify failed" in text:
            return Misconfigured(
                f"{where} has a certificate nobody here trusts: see ssl_ca_certs in redis.url"
            )
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


def _is_stale(connection: Any) -> bool:
    """Whether the server has closed it while it was idle, as Redis with `timeout` and load balancers do."""
    try:
        return bool(connection.can_read(timeout=0))
    except (redis.RedisError, OSError):
        return True


def _bytes(sent: Sent) -> bytes:
    return sent.data if isinstance(sent, Packed) else pack_one(sent)


def _replies(connection: Any, count: int) -> list[Any]:
    """All replies; raises the first error among them, once all are read."""
    parser = connection._parser  # noqa: SLF001 (the one way to the replies that are there already)
    if isinstance(parser, _Parser):
        return parser.read(count)
    replies = [_reply(connection) for _ in range(count)]  # of a connection that is none, as tests have it
    for error in (reply for reply in _flat(replies) if isinstance(reply, Exception)):
        raise error
    return replies


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        if isinstance(error, _CREDENTIALS):
            raise
        return error


def _flat(replies: Sequence[Any]) -> Iterator[Any]:
    """All replies, and those inside an EXEC, in order: the first error is the one that explains."""
    for reply in replies:
        yield reply
        if isinstance(reply, list):
            yield from (inner for inner in reply if isinstance(inner, Exception))
