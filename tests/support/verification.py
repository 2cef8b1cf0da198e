"""Documents and reports for tests of verification."""

from collections.abc import Callable, Mapping

from etl.app import App, VerifyReport
from schemas.families import CAMPAIGN_MESSAGES, GENERATION_META

Applied = Callable[..., App]


def messages(number: int, segmento: str = "s") -> str:
    """The key of the messages of the campaign `c{number}`."""
    return CAMPAIGN_MESSAGES.key(campana_id=f"c{number}", segmento=segmento)


def meta(number: int, segmento: str = "s") -> str:
    """The key of its metadata."""
    return GENERATION_META.key(campana_id=f"c{number}", segmento=segmento)


def found(report: VerifyReport) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("matching", "different", "missing", "expired", "orphaned", "deferred", "pending", "left_alone")
    return {name: count for name in names if (count := getattr(report, name))}


def named(report: VerifyReport) -> Mapping[str, set[str]]:
    """The reported keys by verdict."""
    return {name: {one.key for one in examples} for name, examples in report.keys.items()}
