"""Server addresses: what is wrong with one, and how to show it without its secrets.

A URI is checked here, before any driver sees it, because a driver's own complaint about a malformed
one may quote a piece of the password.
"""

import re
from difflib import get_close_matches
from typing import Final

_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:\[\]]+)(:\d{1,5})?")
_DATABASE = re.compile(r"(/\d*)?([?#].*)?")
_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:pass|token|secret|properties)[^=&]*=)[^&]*", re.IGNORECASE)

LONGEST_TIMEOUT: Final = 86_400.0
"""Seconds: a socket cannot wait much longer than three weeks."""

# The options of redis-py that may be in an address. What it calls `ssl_…` is left to it.
_SOCKET: Final = ("db", "username", "password", "client_name", "socket_timeout", "health_check_interval")
_TCP: Final = (*_SOCKET, "socket_connect_timeout", "socket_keepalive")
_OPTIONS: Final = {"unix": _SOCKET, "redis": _TCP, "rediss": _TCP}
_SECONDS: Final = frozenset({"socket_timeout", "socket_connect_timeout"})
_OURS: Final = frozenset(
    {
        *("protocol", "legacy_responses", "decode_responses", "encoding", "encoding_errors", "parser_class"),
        *("max_connections", "timeout", "retry", "retry_on_timeout", "retry_on_error", "connection_class"),
        *("host", "port", "path", "socket_read_size", "socket_type"),
    }
)


def problem(uri: str, schemes: tuple[str, ...]) -> str | None:
    """What is wrong with `uri`, in words that quote nothing of it; None when it is well-formed."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in schemes:
        return "expected an address that begins with " + " or ".join(f"{name}://" for name in schemes)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    place = rest[len(authority) :]
    if "@" in place or authority.count("@") > 1:
        return "a user name or password that holds any of @ : / ? # % must be percent-encoded"
    hosts = authority.rpartition("@")[2]
    if scheme == "unix":
        if hosts or not re.match(r"/[^?#]", place):
            return "expected unix:///path/to/redis.sock?db=0, with three slashes"
    elif not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        return f"expected {scheme}://user:password@host:port/…, with a number as the port"
    elif scheme.startswith("redis") and not _DATABASE.fullmatch(place):
        return f"expected {scheme}://host:port/0, with a number as the database"
    return _option_problem(scheme, place) if scheme in _OPTIONS else None


def _option_problem(scheme: str, place: str) -> str | None:
    """What is wrong with the options of a Redis address; an unknown name may be a secret, and is not quoted."""
    for option in place.partition("#")[0].partition("?")[2].split("&"):
        name, equals, value = option.partition("=")
        if name in _OURS:
            return f"leave {name} out: the ETL decides it"
        if name.startswith("ssl_") and scheme != "rediss":
            return "options that begin with ssl_ go with rediss://"
        if option and name not in _OPTIONS[scheme] and not name.startswith("ssl_"):
            return f"an option after the ? is unknown, {nearest(name, _OPTIONS[scheme])}"
        if option and not (equals and value):
            return f"the option {name} has no value"
        if name in _SECONDS and not _is_seconds(value):
            return f"{name}: expected seconds, more than 0 and at most {LONGEST_TIMEOUT:.0f}"
    return None


def _is_seconds(text: str) -> bool:
    try:
        return 0 < float(text) <= LONGEST_TIMEOUT
    except ValueError:
        return False


def nearest(name: str, known: tuple[str, ...]) -> str:
    """A way out for a misspelt name: `did you mean …?`, or all the known ones."""
    spelling = {known_name.lower(): known_name for known_name in known}
    close = get_close_matches(name.lower(), spelling, n=1)
    return f"did you mean {spelling[close[0]]}?" if close else "expected one of: " + ", ".join(known)


def masked(uri: str) -> str:
    """`uri` with every secret replaced by `***`; user and host stay visible.

    The last @ counts as the end of the credentials, so a password with an unescaped @ or / in it is
    hidden whole. A lone `secret@host` is hidden too: in a Redis URL that is most often a password.
    """
    scheme, separator, rest = uri.partition("://")
    credentials, at, address = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{user if colon else ''}{colon}***@" if at else ""
    return _SECRET_OPTION.sub(r"\1***", f"{scheme}{separator}{shown}{address}")
