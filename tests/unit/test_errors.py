"""Errors, sorted by what the caller should do."""

import pytest

from etl.errors import (
    ConfigurationError,
    CycleFailed,
    EtlError,
    Interrupted,
    LeaseHeldError,
    LeaseLost,
    TransientError,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [(TransientError, 1), (CycleFailed, 1), (ConfigurationError, 2), (Interrupted, 130)],
)
def test_each_error_has_an_exit_code(kind: type[EtlError], code: int) -> None:
    """Exit codes, as the README has them."""
    assert kind("why").exit_code == code
    assert str(kind("why")) == "why"


def test_a_lease_that_is_held_names_its_holder_and_for_how_long() -> None:
    """A person can see who it is, and a program that it may come back."""
    error = LeaseHeldError("host:1:ab", 12.3)
    assert error.exit_code == 75
    assert str(error).startswith("host:1:ab is at work on it (its lease lasts 12 s more)")


@pytest.mark.parametrize(
    ("newest", "said"),
    [
        ("8:host:2:cd", "host:2:cd has taken over"),
        ("", "gone from Redis, which was flushed or has evicted it"),
        (None, "gone from Redis, which was flushed or has evicted it"),
    ],
)
def test_a_lost_lease_says_how_it_was_lost(newest: str | None, said: str) -> None:
    """A fence that is gone is no other holder."""
    assert LeaseLost(newest).exit_code == 1
    assert said in str(LeaseLost(newest))


def test_a_lost_lease_ends_the_cycle() -> None:
    """Whoever gives up a cycle for any reason gives it up for this one too, and does not try again."""
    assert issubclass(LeaseLost, CycleFailed)
    assert not issubclass(LeaseLost, TransientError)
