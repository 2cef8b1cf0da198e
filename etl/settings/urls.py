"""Server addresses: what is wrong with one, and how to show it without its secrets.

A URI is checked here, before any driver sees it, because a driver's own complaint about a malformed
one may quote a piece of the password.
"""

import re

_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:\[\]]+)(:\d{1,5})?")
_DATABASE = re.compile(r"(/\d*)?([?#].*)?")
_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:pass|token|secret|properties)[^=&]*=)[^&]*", re.IGNORECASE)


def problem(uri: str, schemes: tuple[str, ...]) -> str | None:
    """What is wrong with `uri`, in words that quote nothing of it; None when it is well-formed."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in schemes:
        return "expected an address that begins with " + " or ".join(f"{name}://" for name in schemes)
    if scheme == "unix":
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(authority) :] or authority.count("@") > 1:
        return "a user name or password that holds any of @ : / ? # % must be percent-encoded"
    hosts = authority.rpartition("@")[2].split(",")
    if not all(_HOST.fullmatch(host) for host in hosts):
        return f"expected {scheme}://user:password@host:port/…, with a number as the port"
    if scheme.startswith("redis") and not _DATABASE.fullmatch(rest[len(authority) :]):
        return f"expected {scheme}://host:port/0, with a number as the database"
    return None


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
