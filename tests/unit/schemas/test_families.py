"""The nine families against the users' design, read from their own document."""

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


def test_the_patterns_are_those_of_the_design_in_its_order() -> None:
    """Nine families, pattern for pattern, in the order the users wrote them."""
    assert [family.pattern for family in CONTRACT] == [family["pattern"] for family in _designed()]
    assert len(CONTRACT) == 9


@pytest.mark.parametrize(
    ("family", "design"),
    list(zip(CONTRACT, _designed(), strict=True)),
    ids=[family.name for family in CONTRACT],
)
def test_a_family_is_as_designed(family: Family, design: dict[str, Any]) -> None:
    """Type, TTL and the fields in their order are those of the users' document."""
    assert family.type == design["type"].lower()
    assert family.ttl == (None if design["ttl"] == "none" else int(design["ttl"]))
    fields = re.findall(r"^    (\w+): ", design["rest"], re.MULTILINE)
    first_member = re.search(r"'(\{.*)'", design["rest"])
    members = re.findall(r'"(\w+)":', first_member[1]) if first_member else []
    assert list(family.fields) == fields + members


@pytest.mark.parametrize("family", CONTRACT, ids=lambda family: family.name)
def test_the_name_is_the_prefix_without_its_colon(family: Family) -> None:
    """A family is called what its keys start with."""
    assert family.prefix == f"{family.name}:"


def test_only_the_server_status_refreshes_on_its_own_and_before_it_expires() -> None:
    """`mcp:server:status` is refreshed every 240 s, within its 300 s; no other family is."""
    (family,) = [family for family in CONTRACT if family.refresh_seconds is not None]
    assert (family.name, family.refresh_seconds, family.ttl) == ("mcp:server:status", 240, 300)


def test_every_family_of_documents_has_a_kind() -> None:
    """Each family that a `tipo` fills is filled by the kind of that `tipo`."""
    for family in CONTRACT:
        if family.source.startswith("tipo: "):
            tipo = family.source.removeprefix("tipo: ").partition(",")[0]
            assert family in KINDS[tipo].families


def test_families_are_found_by_name_those_of_the_design_first() -> None:
    """`FAMILIES` holds the nine under their names."""
    assert list(FAMILIES.values())[:9] == list(CONTRACT)
    assert FAMILIES["ai:campaign_messages"] is CAMPAIGN_MESSAGES


def test_the_lock_has_no_fields_and_the_queue_no_end() -> None:
    """The lock is a bare string that lasts 30 s; the queue waits until somebody pops it."""
    assert (GENERATION_LOCK.type, GENERATION_LOCK.ttl, GENERATION_LOCK.fields) == ("string", 30, ())
    assert (GENERATION_QUEUE.type, GENERATION_QUEUE.ttl) == ("list", None)
