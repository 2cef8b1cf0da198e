"""The fault injection that later tests trust: it fires, it counts, and it is not left behind."""

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, OperationFailure

from tests.support.failpoint import after, fail_command, times
from tests.support.types import Document

MAX_TIME_EXPIRED = 50  # an error that drivers do not try again by themselves


def test_the_named_command_fails(
    mongo_client: MongoClient[Document], collection: Collection[Document]
) -> None:
    """The first `find` fails with the code asked for, the second does not, and one failure is counted."""
    with fail_command(mongo_client, "find", errorCode=MAX_TIME_EXPIRED) as failure:
        with pytest.raises(OperationFailure) as raised:
            collection.find_one()
        assert raised.value.code == MAX_TIME_EXPIRED
        assert collection.find_one() is None
        assert failure.injected() == 1


def test_the_connection_closes(mongo_client: MongoClient[Document], collection: Collection[Document]) -> None:
    """A closed connection counts for the command and for the driver's own second attempt."""
    with fail_command(mongo_client, "find", mode=times(2), closeConnection=True) as failure:
        with pytest.raises(AutoReconnect):
            collection.find_one()
        assert failure.injected() == 2


def test_a_failpoint_lets_some_commands_pass_first(
    mongo_client: MongoClient[Document], collection: Collection[Document]
) -> None:
    """After two that pass, every later one fails."""
    with fail_command(mongo_client, "find", mode=after(2), errorCode=MAX_TIME_EXPIRED):
        collection.find_one()
        collection.find_one()
        for _ in range(2):
            with pytest.raises(OperationFailure):
                collection.find_one()


def test_a_failpoint_that_injected_nothing_fails_the_test(mongo_client: MongoClient[Document]) -> None:
    """Leaving without a single failure is an error that names the commands."""
    with (
        pytest.raises(AssertionError, match="no find or getMore came to be failed"),
        fail_command(mongo_client, "find", "getMore", errorCode=MAX_TIME_EXPIRED),
    ):
        mongo_client.admin.command("ping")


def test_a_failpoint_is_removed_on_leaving(
    mongo_client: MongoClient[Document], collection: Collection[Document]
) -> None:
    """Commands work again on leaving, also when the body ended with an error of its own."""
    with (
        pytest.raises(OperationFailure),
        fail_command(mongo_client, "find", mode=after(0), errorCode=MAX_TIME_EXPIRED),
    ):
        collection.find_one()

    assert collection.find_one() is None
