"""The nine families compared with the users' design document."""

import re
from pathlib import Path
from typing import Any

import pytest

from schemas.documents import FAMILIES, KINDS
from schemas.families import CAMPAIGN_MESSAGES, CONTRACT, GENERATION_LOCK, GENERATION_QUEUE, Family

DESIGN = (Path(__file__).parents[2] / "data" / "cache-design.txt").read_text(encoding="utf-8")
_FAMILY = re.compile(
    r"^(?P<pattern>[a-z]+:[a-z:_]*\{.+\})\n"
    r"  Tipo: (?P<type>\w+).*\n"
    r"  TTL: (?P<ttl>\w+).*\n"
    r"(?P<rest>(?:  .*\n?)*)",
    re.MULTILINE,
)


def _designed() -> list[dict[str, Any]]:
    return [match.groupdict() for match in _FAMILY.finditer(DESIGN)]


def test_patterns_are_those_of_the_design_in_its_order() -> None:
    assert [family.pattern for family in CONTRACT] == [family["pattern"] for family in _designed()]
    assert len(CONTRACT) == 9


@pytest.mark.parametrize(
    ("family", "design"),
    list(zip(CONTRACT, _designed(), strict=True)),
    ids=[family.name for family in CONTRACT],
)
def test_family_has_the_designed_type_ttl_and_fields(family: Family, design: dict[str, Any]) -> None:
    assert family.type == design["type"].lower()
    assert family.ttl == (None if design["ttl"] == "none" else int(design["ttl"]))
    fields = re.findall(r"^    (\w+): ", design["rest"], re.MULTILINE)
    first_member = re.search(r"'(\{.*)'", design["rest"])
    members = re.findall(r'"(\w+)":', first_member[1]) if first_member else []
    assert list(family.fields) == fields + members


@pytest.mark.parametrize("family", CONTRACT, ids=lambda family: family.name)
def test_prefix_is_the_name_and_a_colon(family: Family) -> None:
    assert family.prefix == f"{family.name}:"


def test_only_server_status_is_refreshed_before_it_expires() -> None:
    """Every 240 s; its TTL is 300 s."""
    (family,) = [family for family in CONTRACT if family.refresh_seconds is not None]
    assert (family.name, family.refresh_seconds, family.ttl) == ("mcp:server:status", 240, 300)


def test_every_family_filled_from_documents_has_a_kind() -> None:
    for family in CONTRACT:
        if family.source.startswith("tipo: "):
            tipo = family.source.removeprefix("tipo: ").partition(",")[0]
            assert family in KINDS[tipo].families


def test_families_begins_with_the_nine_of_the_design() -> None:
    assert list(FAMILIES.values())[:9] == list(CONTRACT)
    assert FAMILIES["ai:campaign_messages"] is CAMPAIGN_MESSAGES


def test_lock_is_a_bare_string_and_queues_do_not_expire() -> None:
    assert (GENERATION_LOCK.type, GENERATION_LOCK.ttl, GENERATION_LOCK.fields) == ("string", 30, ())
    assert (GENERATION_QUEUE.type, GENERATION_QUEUE.ttl) == ("list", None)
