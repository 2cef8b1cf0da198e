"""Errors, sorted by what the caller should do."""

import pytest

from etl.errors import CycleFailed, EtlError, Interrupted, LeaseLost, Locked, Misconfigured, Transient


@pytest.mark.parametrize(
    ("kind", "code"),
    [(Transient, 1), (CycleFailed, 1), (LeaseLost, 1), (Misconfigured, 2), (Locked, 75), (Interrupted, 130)],
)
def test_each_says_what_a_command_ends_with(kind: type[EtlError], code: int) -> None:
    """Exit codes, as the README has them."""
    assert kind("why").exit_code == code
    assert str(kind("why")) == "why"


def test_a_lost_lease_ends_the_cycle() -> None:
    """Whoever gives up a cycle for any reason gives it up for this one too, and does not try again."""
    assert issubclass(LeaseLost, CycleFailed)
    assert not issubclass(LeaseLost, Transient)
