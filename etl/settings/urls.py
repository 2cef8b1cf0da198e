"""Server addresses: validation, and display without secrets.

Addresses are validated before a driver parses them, because a driver's error message may quote a part of the password.
"""

import re
from difflib import get_close_matches
from typing import Final

_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:\[\]]+)(:\d{1,5})?")
_DATABASE = re.compile(r"(/\d{0,9})?([?#].*)?")
_VALUE = re.compile(r"(?<=[?&])[A-Za-z]+=[^&]*")
_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:pass|token|secret|properties)[^=&]*=)[^&]*", re.IGNORECASE)

_LAST_PORT: Final = 65_535

LONGEST_TIMEOUT: Final = 86_400.0
"""Seconds: a socket cannot wait much longer than three weeks."""

# The options of redis-py that may be in an address.
_SOCKET: Final = ("db", "username", "password", "client_name", "socket_timeout", "health_check_interval")
_TCP: Final = (*_SOCKET, "socket_connect_timeout", "socket_keepalive")
_TLS: Final = (
    *(
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_ca_data",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
    ),
    *(
        "ssl_check_hostname",
        "ssl_min_version",
        "ssl_ciphers",
        "ssl_validate_ocsp",
        "ssl_validate_ocsp_stapled",
    ),
)
_OPTIONS: Final = {"unix": _SOCKET, "redis": _TCP, "rediss": (*_TCP, *_TLS)}
_SECONDS: Final = frozenset({"socket_timeout", "socket_connect_timeout"})
_VALUES: Final = {
    "db": r"\d{1,9}",
    "socket_timeout": r"\d+(\.\d+)?",
    "socket_connect_timeout": r"\d+(\.\d+)?",
    "health_check_interval": r"\d{1,9}",
    "ssl_cert_reqs": "none|optional|required",
    "ssl_min_version": "771|772",  # TLS 1.2 and 1.3, as Python's ssl.TLSVersion numbers them
}
# Options of redis-py that the ETL sets itself.
_RESERVED: Final = frozenset(
    {
        *("protocol", "legacy_responses", "decode_responses", "encoding", "encoding_errors", "parser_class"),
        *("max_connections", "timeout", "retry", "retry_on_timeout", "retry_on_error", "connection_class"),
        *("host", "port", "path", "socket_read_size", "socket_type"),
    }
)


def problem(uri: str, schemes: tuple[str, ...]) -> str | None:
    """The problem of `uri`, without quoting it; None if it is valid."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in schemes:
        return "expected an address that begins with " + " or ".join(f"{name}://" for name in schemes)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    # An option may contain @; elsewhere a second @ means an unescaped password.
    if "@" in _VALUE.sub("", path) or authority.count("@") > 1:
        return "a user name or password that holds any of @ : / ? # % must be percent-encoded"
    hosts = authority.rpartition("@")[2]
    if scheme == "unix":
        if hosts or not re.match(r"/[^?#]", path):
            return "expected unix:///path/to/redis.sock?db=0, with three slashes"
    elif not all(_is_host(host) for host in hosts.split(",")):
        return f"expected {scheme}://user:password@host:port/…, with a number as the port"
    elif scheme.startswith("redis") and not _DATABASE.fullmatch(path):
        return f"expected {scheme}://host:port/0, with a number as the database"
    return _option_problem(scheme, path) if scheme in _OPTIONS else None


def _is_host(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and 0 < int((found[2] or ":1")[1:]) <= _LAST_PORT


def _option_problem(scheme: str, path: str) -> str | None:
    """The problem of the options of a Redis address; an unknown name may be a secret, so it is not quoted."""
    for option in filter(None, path.partition("#")[0].partition("?")[2].split("&")):
        name, _, value = option.partition("=")
        if name in _RESERVED:
            return f"leave {name} out: the ETL decides it"
        if name.startswith("ssl_") and scheme != "rediss":
            return "options that begin with ssl_ go with rediss://"
        if name not in _OPTIONS[scheme]:
            return f"an option after the ? is unknown, {nearest(name, _OPTIONS[scheme])}"
        if not re.fullmatch(_VALUES.get(name, ".+"), value):
            return f"the option {name} has a wrong value, or none"
        if name in _SECONDS and not 0 < float(value) <= LONGEST_TIMEOUT:
            return f"the option {name} takes more than 0 and at most {LONGEST_TIMEOUT:.0f} seconds"
    return None


def nearest(name: str, known: tuple[str, ...]) -> str:
    """A suggestion for a misspelt name: `did you mean …?`, or all known names."""
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
