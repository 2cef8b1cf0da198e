import atexit
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import dns.exception
import dns.resolver
import pytest

from etl.errors import ConfigurationError, EtlError, TransientError
from etl.mongo.client import address, connect, end_without_waiting, translated_errors


def refusal(uri: str) -> str:
    """The error for a URI, before any connection."""
    with pytest.raises(ConfigurationError) as raised:
        connect(uri, connect=False)
    return str(raised.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("compressors=snappy,zlib", "You must install the python-snappy module"),
        ("compressors=geheim", "Unsupported compressor"),
        ("directConnection=geheim", "must be 'true' or 'false'"),
        ("zlibCompressionLevel=99", "must be between -1 and 9"),
        ("tlsCAFile=/missing.pem", "/missing.pem"),
        ("geheim=1", "an option after the ? is unknown or has a wrong value"),
        ("authMechanismProperties=geheim", "an option after the ? is unknown or has a wrong value"),
    ],
)
def test_invalid_uri_option_is_refused_in_the_words_of_the_driver(option: str, message: str) -> None:
    """Unless these might quote a secret."""
    line = refusal(f"mongodb://u:p@h/?{option}")
    assert line.startswith("mongo.uri: ")
    assert message in line
    assert "geheim" not in line


def failed(uri: str) -> EtlError:
    """The error of the first command."""
    client = connect(uri, 0.2, connect=False)
    with client, pytest.raises(EtlError) as raised, translated_errors(client, "d.c"):
        client.admin.command("ping")
    return raised.value


def test_server_of_another_replica_set_is_named_by_its_address(mongod: Any) -> None:
    """The driver has removed it from its topology by then."""
    error = failed(f"mongodb://{mongod.address}/?replicaSet=wrong")
    assert isinstance(error, TransientError)
    assert str(error).startswith(f"MongoDB at {mongod.address} does not answer: No replica set members")


@pytest.mark.parametrize(
    ("dns_error", "kind"),
    [
        (dns.exception.Timeout, TransientError),
        (dns.resolver.LifetimeTimeout, TransientError),
        (dns.resolver.NoNameservers, TransientError),
        (dns.resolver.NXDOMAIN, ConfigurationError),
        (dns.resolver.NoAnswer, ConfigurationError),
    ],
)
def test_dns_outage_is_transient(dns_error: Callable[[], Exception], kind: type[EtlError]) -> None:
    """An unknown host name is an error in the settings."""
    with patch("dns.resolver.Resolver.resolve", side_effect=dns_error):
        error = failed("mongodb+srv://cluster.example.com/")
    assert type(error) is kind
    assert "cluster.example.com" in str(error)


def test_address_has_no_secret() -> None:
    """Before the first connection it is that of the URI."""
    with connect("mongodb://u:p@h:5,i/d?appName=@x@", connect=False) as client:
        assert address(client) == "h:5, i:27017"


def test_exit_hook_of_the_driver_is_unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found in every supported version; it would wait for the monitor threads."""
    hooks: list[object] = []
    monkeypatch.setattr(atexit, "unregister", hooks.append)
    end_without_waiting()
    [hook] = hooks
    assert callable(hook)
