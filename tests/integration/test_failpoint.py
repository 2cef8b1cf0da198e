"""The fault injection of other tests: it fires, counts, and is removed."""

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, OperationFailure

from tests.support.failpoint import after, fail_command, times
from tests.support.types import Document

MAX_TIME_EXPIRED = 50  # an error that drivers do not retry


def test_failpoint_fails_the_named_command_once(
    mongo_client: MongoClient[Document], collection: Collection[Document]
) -> None:
    """With the given error code. One failure is counted."""
    with fail_command(mongo_client, "find", errorCode=MAX_TIME_EXPIRED) as failure:
        with pytest.raises(OperationFailure) as raised:
            collection.find_one()
        assert raised.value.code == MAX_TIME_EXPIRED
        assert collection.find_one() is None
        assert failure.injected() == 1


def test_failpoint_closes_the_connection(
    mongo_client: MongoClient[Document], collection: Collection[Document]
) -> None:
    """The retry of the driver counts as a second failure."""
    with fail_command(mongo_client, "find", mode=times(2), closeConnection=True) as failure:
        with pytest.raises(AutoReconnect):
            collection.find_one()
        assert failure.injected() == 2


def test_failpoint_after_a_count_lets_commands_pass_first(
    mongo_client: MongoClient[Document], collection: Collection[Document]
) -> None:
    with fail_command(mongo_client, "find", mode=after(2), errorCode=MAX_TIME_EXPIRED):
        collection.find_one()
        collection.find_one()
        for _ in range(2):
            with pytest.raises(OperationFailure):
                collection.find_one()


def test_failpoint_without_a_failure_fails_the_test(mongo_client: MongoClient[Document]) -> None:
    """The error names the commands."""
    with (
        pytest.raises(AssertionError, match="no find or getMore came to be failed"),
        fail_command(mongo_client, "find", "getMore", errorCode=MAX_TIME_EXPIRED),
    ):
        mongo_client.admin.command("ping")


def test_failpoint_is_removed_after_the_block(
    mongo_client: MongoClient[Document], collection: Collection[Document]
) -> None:
    """Also if the block raised an error."""
    with (
        pytest.raises(OperationFailure),
        fail_command(mongo_client, "find", mode=after(0), errorCode=MAX_TIME_EXPIRED),
    ):
        collection.find_one()

    assert collection.find_one() is None
