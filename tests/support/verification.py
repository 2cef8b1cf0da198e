"""Documents and reports for tests of verification."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from etl.app import App, VerifyReport
from schemas.families import CAMPAIGN_MESSAGES, GENERATION_META
from tests.support.pipeline import campaign
from tests.support.types import Document

Applied = Callable[..., App]


def generation(number: int, moment: datetime, **changes: Any) -> Document:
    """A document that fills a list and a hash."""
    return campaign(f"c{number}", moment, _id=number, metadata={"tokens_total": number}) | changes


def messages(number: int, segmento: str = "s") -> str:
    """The key of the messages of one."""
    return CAMPAIGN_MESSAGES.key(campana_id=f"c{number}", segmento=segmento)


def meta(number: int, segmento: str = "s") -> str:
    """The key of its metadata."""
    return GENERATION_META.key(campana_id=f"c{number}", segmento=segmento)


def found(report: VerifyReport) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("matching", "different", "missing", "expired", "orphaned", "deferred", "pending", "left_alone")
    return {name: count for name in names if (count := getattr(report, name))}


def named(report: VerifyReport) -> Mapping[str, set[str]]:
    """The keys that are named, by kind."""
    return {name: {one.key for one in examples} for name, examples in report.keys.items()}
