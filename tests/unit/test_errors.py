"""Errors, by what the caller should do."""

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
    assert kind("why").exit_code == code
    assert str(kind("why")) == "why"


def test_lease_held_error_names_holder_and_remaining_time() -> None:
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
def test_lease_lost_names_the_reason(newest: str | None, said: str) -> None:
    """A missing fence does not mean another holder."""
    assert LeaseLost(newest).exit_code == 1
    assert said in str(LeaseLost(newest))


def test_lease_lost_is_cycle_failed_but_not_transient() -> None:
    """It ends the cycle, and is not retried."""
    assert issubclass(LeaseLost, CycleFailed)
    assert not issubclass(LeaseLost, TransientError)
