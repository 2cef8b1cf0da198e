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
    """Why a URI is refused before anything is connected."""
    with pytest.raises(ConfigurationError) as raised:
        connect(uri, connect=False)
    return str(raised.value)


@pytest.mark.parametrize(
    ("option", "said"),
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
def test_an_option_that_the_driver_does_not_take_is_said_in_its_words(option: str, said: str) -> None:
    """Unless they might quote a secret."""
    line = refusal(f"mongodb://u:p@h/?{option}")
    assert line.startswith("mongo.uri: ")
    assert said in line
    assert "geheim" not in line


def failed(uri: str) -> EtlError:
    """What a first command ends with."""
    client = connect(uri, 0.2, connect=False)
    with client, pytest.raises(EtlError) as raised, translated_errors(client, "d.c"):
        client.admin.command("ping")
    return raised.value


def test_a_server_of_another_replica_set_is_named_by_its_address(mongod: Any) -> None:
    """The driver has forgotten it by then."""
    error = failed(f"mongodb://{mongod.address}/?replicaSet=wrong")
    assert isinstance(error, TransientError)
    assert str(error).startswith(f"MongoDB at {mongod.address} does not answer: No replica set members")


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (dns.exception.Timeout, TransientError),
        (dns.resolver.LifetimeTimeout, TransientError),
        (dns.resolver.NoNameservers, TransientError),
        (dns.resolver.NXDOMAIN, ConfigurationError),
        (dns.resolver.NoAnswer, ConfigurationError),
    ],
)
def test_a_name_server_that_is_away_may_come_back(
    trouble: Callable[[], Exception], kind: type[EtlError]
) -> None:
    """A name that there is not is a mistake in the settings."""
    with patch("dns.resolver.Resolver.resolve", side_effect=trouble):
        error = failed("mongodb+srv://cluster.example.com/")
    assert type(error) is kind
    assert "cluster.example.com" in str(error)


def test_the_address_names_no_secret() -> None:
    """Before a server was asked it is what the URI says."""
    with connect("mongodb://u:p@h:5,i/d?appName=@x@", connect=False) as client:
        assert address(client) == "h:5, i:27017"


def test_a_command_does_not_wait_for_the_monitors_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver has registered for the end of the process is found, whatever its version."""
    hooks: list[object] = []
    monkeypatch.setattr(atexit, "unregister", hooks.append)
    end_without_waiting()
    [hook] = hooks
    assert callable(hook)
