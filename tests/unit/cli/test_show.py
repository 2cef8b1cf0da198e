import json

import pytest

from etl.app import Shown
from tests.support.command import Etl
from tests.unit.cli.fake_app import FakeApp

API = Shown(
    key="config:api:openai",
    type="hash",
    ttl_ms=3_599_001,
    value={"status": "active", "endpoints": '[{"servicio":"image_generation","modelos":["dall-e-3"]}]'},
)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("config:api", "openai"), "config:api:openai"),
        (("config:api:openai",), "config:api:openai"),
        (("etl:last_sync", "promptContent"), "etl:last_sync:promptContent"),
        (("queue:ai_generation", "alta"), "queue:ai_generation:alta"),
        (
            ("mcp:tool", "content", "getContent", '{"limit":10,"query":"Arenal"}'),
            "mcp:tool:content:getContent:e5fbee6da516e78b169e6711704b03ab",
        ),
        (
            ("ai:campaign_messages", "camp_2025_tech", "Costa Rica_28-40_masculino"),
            "ai:campaign_messages:camp_2025_tech:f6b35068c7d8b26da3ac7573d2658ca0",
        ),
        (("{etl:last_sync:promptContent}:checkpoint",), "{etl:last_sync:promptContent}:checkpoint"),
    ],
)
def test_entry_is_named_by_parts_or_by_key(etl: Etl, words: tuple[str, ...], key: str) -> None:
    """Parts are encoded and hashed; a full key is used unchanged."""
    app = FakeApp(API)
    assert etl("show", *words, app=app).code == 0
    assert app.asked == [("show", key)]


def test_hash_is_shown_with_its_fields(etl: Etl) -> None:
    """Below its key, type and TTL; JSON is decoded."""
    lines = etl("show", "config:api", "openai", app=FakeApp(API)).out.splitlines()
    assert lines == [
        "config:api:openai",
        "  hash, 3600 s left",
        "  status     active",
        '  endpoints  [{"servicio":"image_generation","modelos":["dall-e-3"]}]',
    ]


def test_list_is_shown_in_order(etl: Etl) -> None:
    """Its members are numbered and decoded."""
    shown = Shown("queue:ai_generation:alta", "list", None, ['{"campana_id":"ñ"}', "no json {"])
    lines = etl("show", shown.key, app=FakeApp(shown)).out.splitlines()
    assert lines[1:] == ["  list, no TTL", '  1.  {"campana_id":"ñ"}', "  2.  no json {"]


def test_long_json_is_indented(etl: Etl) -> None:
    shown = Shown("mcp:tool:a:b:c", "hash", 1, {"result": json.dumps(["x" * 60, "y" * 60])})
    lines = etl("show", shown.key, app=FakeApp(shown)).out.splitlines()
    assert lines[2] == "  result  ["
    assert lines[3].strip() == f'"{"x" * 60}",'
    assert lines[3].index('"') == 12


def test_json_is_one_document(etl: Etl) -> None:
    result = etl("show", "--json", "config:api", "openai", app=FakeApp(API))
    assert json.loads(result.out) == {
        "key": "config:api:openai",
        "family": "config:api",
        "type": "hash",
        "ttl_ms": 3_599_001,
        "value": {
            "status": "active",
            "endpoints": [{"servicio": "image_generation", "modelos": ["dall-e-3"]}],
        },
    }


def test_escape_sequences_in_values_are_escaped(etl: Etl) -> None:
    shown = Shown("lock:content_generation:c", "string", 1, "\x1b]0;owned\x07\u009b2J")
    assert "\\x1b]0;owned\\x07\\x9b2J" in etl("show", shown.key, app=FakeApp(shown)).out


def test_absent_key_is_an_error(etl: Etl) -> None:
    result = etl("show", "config:api", "nobody")
    assert result.code == 1
    assert result.err.startswith("error: config:api:nobody: no such key")
    assert result.err.count("\n") == 1
    assert "config:api:nobody" in json.loads(etl("show", "--json", "config:api", "nobody").out)["error"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("config:apy", "openai"), "unknown family 'config:apy'; the families are: mcp:tool, "),
        (("user:1",), "unknown family 'user:1'"),
        (("config:api",), "config:api takes 1 part: etl show config:api PROVIDER_NAME"),
        (("config:api", "a", "b"), "config:api takes 1 part: "),
        (("mcp:tool", "a", "b"), "mcp:tool takes 3 parts: etl show mcp:tool SERVER TOOL PARAMS"),
        (("mcp:tool", "a", "b", "limit=10"), "params must be JSON"),
        (("mcp:tool", "a", "b", "NaN"), "mcp:tool: "),
    ],
)
def test_invalid_name_is_a_usage_error(etl: Etl, words: tuple[str, ...], expected: str) -> None:
    """The message shows how to name a key; Redis is not asked."""
    app = FakeApp(API)
    result = etl("show", *words, app=app)
    assert result.code == 2
    assert expected in result.err
    assert app.asked == []
