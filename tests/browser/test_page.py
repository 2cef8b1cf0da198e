"""The page in a real browser, for healthy and failing daemons."""

import re
import time
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains

from etl.demo.process import HOST
from etl.monitoring.server import Serving
from tests.browser.scenes import HOSTILE, Scene, ago, dead_letter, healthy, past, run
from tests.browser.visit import OpenPage
from tests.support.statuses import endpoints
from tests.support.waiting import eventually

PHONE: dict[str, Any] = {"width": 360}
WITHOUT_REDIS = {"redis": "Redis at redis:6379 does not answer"}
LETTERS = [
    dead_letter(1, HOSTILE, f"invalid {HOSTILE}", (f"mensajes.{HOSTILE}", "expected text")),
    dead_letter(2, '{"$oid": "65a5000000000000000000a1"}', "nested too deeply"),
]
WAITING = [
    {"id": f"ObjectId('{n:024x}')", "lock": f"lock:content_generation:{HOSTILE}", "since": ago(50 + n)}
    for n in range(3)
]
BACKFILL = {"mode": "backfill", "done": 1000, "total": 4000, "began": ago(90), "holder": "worker-1:4711"}


def troubled() -> Scene:
    """A collection with every kind of problem, and hostile text in every field from documents."""
    one = healthy(
        dead_letters=2,
        dead_letters_beyond=7,
        deferred=WAITING,
        deferred_count=14,
        unreachable=2,
        last_id=HOSTILE,
        scans=[BACKFILL],
    )
    return Scene([one, healthy("mcpResults")], [past(letters=LETTERS), past("mcpResults", count=5)])


def many(count: int = 30) -> Scene:
    """Many collections, one of them failing."""
    names = [f"coleccion_{number:02}" for number in range(count)]
    failing = {"seconds_since_success": 2000.0}
    shown = [healthy(name, **(failing if name.endswith("07") else {})) for name in names]
    return Scene(shown, [past(name) for name in names])


def test_healthy_collection_has_one_colour_and_one_sentence(open_page: OpenPage) -> None:
    """With a running countdown to the next cycle."""
    visit = open_page()
    assert visit.level() == "ok"
    first = visit.sentence()
    assert re.fullmatch(r"In sync; next cycle in [78]:\d\d", first), first
    assert eventually(lambda: visit.sentence() < first, seconds=4)
    body = visit.read()
    for text in ("etl-7d9c:1", "156 records in 55 ms", "7 wrong, 7 repaired", "2 min "):
        assert text in body
    assert visit.text("#servers").split() == ["MongoDB", "answers", "Redis", "answers"]
    assert (visit.text("#alarm"), visit.console_errors(), visit.browser.get_cookies()) == ("", [], [])
    asked = visit.requests()
    assert asked
    assert [url for url in asked if not url.startswith((visit.serving.url, "about:", "data:"))] == []


@pytest.mark.parametrize(
    ("changes", "level", "sentence"),
    [
        ({"lag_seconds": 3.0}, "ok", r"In sync, \d s behind; next cycle in [78]:\d\d"),
        ({"lease_holder": "here:1"}, "ok", "In sync; a cycle is running"),
        ({"lag_seconds": 1500.0}, "warn", r"Behind: the oldest change has waited 25 min( \d s)?; .*"),
        (
            {"last_cycle": run(60, 0, 20_000, status="failed", error="Redis is full")},
            *("warn", r"The last cycle failed: Redis is full; next cycle in [78]:\d\d"),
        ),
        ({"seconds_since_success": 1500.0}, "bad", r"No successful cycle for 25 min.*"),
        ({"next_cycle": ago(120)}, "warn", r"The next cycle is overdue by \d+ min.*"),
        ({"error": "this user may not read it", "lag_seconds": None}, "warn", "MongoDB: this user may not.*"),
        (
            {
                "last_cycle": None,
                "seconds_since_success": None,
                "next_cycle": None,
                "leader": None,
                "last_timestamp": None,
                "last_id": None,
                "lag_seconds": None,
                "unreachable": None,
                "reconciliation": None,
                "queues": {},
            },
            *("unknown", "No cycle has finished yet"),
        ),
        (
            {
                "seconds_since_success": None,
                "scans": [BACKFILL | {"mode": "cold_start", "total": 900}],
            },
            *("work", "First read: 1,000 of about 1,000 documents"),
        ),
    ],
)
def test_sentence_describes_the_worst_problem(
    open_page: OpenPage, changes: dict[str, Any], level: str, sentence: str
) -> None:
    """The colour agrees, also if most values are unknown."""
    visit = open_page(Scene([healthy(**changes)], [past(count=0)]))
    assert re.fullmatch(sentence, visit.sentence()), visit.sentence()
    assert visit.level() == level
    assert visit.console_errors() == []


def test_hostile_text_is_shown_as_text(open_page: OpenPage) -> None:
    """In ids, reasons, fields and locks; it is neither markup nor executed."""
    visit = open_page(troubled())
    text = visit.read()
    assert text.count(HOSTILE) >= 6
    assert "ObjectId('65a5000000000000000000a1')" in text
    assert "7 refusals more were counted only" in text
    assert "and 11 more" in text
    assert visit.find(".collection img") == []
    assert "hacked" not in visit.browser.title
    assert visit.console_errors() == []


def test_page_refreshes_itself(open_page: OpenPage) -> None:
    """Within seconds; open sections stay open."""
    visit = open_page()
    visit.find(".runs summary")[0].click()
    visit.scene.collections[0] = healthy(dead_letters=12, deferred_count=1)
    expected = ["dead letters: 12", "deferred: 1"]
    assert eventually(lambda: visit.text(".badges").split("\n") == expected, seconds=8)
    assert len(visit.find(".runs[open]")) == 1


def test_page_without_redis_keeps_the_last_values(open_page: OpenPage) -> None:
    """And updates again when Redis answers."""
    visit = open_page()
    visit.scene.away = WITHOUT_REDIS
    assert eventually(lambda: "Redis at redis:6379 does not answer" in visit.text("#servers"), seconds=8)
    assert "MongoDB answers" in visit.text("#servers").replace("\n", " ")
    assert (visit.level(), visit.sentence()) == ("bad", "Not known: Redis does not answer")
    assert "156 records in 55 ms" in visit.read()
    assert "There is no status: Redis at redis:6379" in visit.text("#alarm")
    visit.scene.away = {}
    assert eventually(lambda: visit.level() == "ok", seconds=8)
    assert visit.text("#alarm") == ""


def test_page_can_be_opened_without_redis(open_page: OpenPage) -> None:
    """Collections and TTLs are known from the settings."""
    visit = open_page(Scene(away=WITHOUT_REDIS))
    assert (visit.level(), visit.sentence()) == ("bad", "Not known: Redis does not answer")
    visit.find("section > details > summary")[0].click()
    assert "mcp:server:status\t5 min\t4 min" in visit.text("#families")


def test_page_reports_that_mongodb_is_unreachable(open_page: OpenPage) -> None:
    """As a warning: the caches are still served."""
    away = "MongoDB at mongo:27017 does not answer"
    visit = open_page(Scene([healthy(lag_seconds=None, error=away)], away={"mongodb": away}))
    assert visit.level() == "warn"
    assert visit.sentence().startswith("MongoDB does not answer; last success 2 min ")
    assert away in visit.text("#servers")


def test_page_reports_a_stopped_daemon_until_it_answers(open_page: OpenPage) -> None:
    """With the time of the values that are still shown."""
    visit = open_page()
    port = int(visit.serving.url.rpartition(":")[2])
    visit.serving.stop()
    message = "The daemon does not answer. What is below is from"
    assert eventually(lambda: message in visit.text("#alarm"), seconds=15)
    assert "156 records in 55 ms" in visit.read()
    again = Serving(endpoints(visit.scene.snapshot, visit.scene.read).app(), HOST, port)
    again.start()
    try:
        assert eventually(lambda: visit.text("#alarm") == "", seconds=8)
    finally:
        again.stop()


def test_thirty_collections_are_a_list_that_opens_by_keyboard(open_page: OpenPage) -> None:
    """Only the failing one is open; the summary counts them."""
    visit = open_page(many())
    assert len(visit.find(".collection[open]")) == 1
    assert visit.card("coleccion_07").get_dom_attribute("open") is not None
    assert visit.text("#summary").split() == ["1", "failing", "29", "in", "sync"]
    assert visit.browser.title == "✕ promptContent ETL"
    visit.script("document.querySelector('.collection > summary').focus()")
    visit.press("ENTER")
    assert len(visit.find(".collection[open]")) == 2
    assert (visit.console_errors(), visit.overflow()) == ([], 0)


@pytest.mark.parametrize("scene", [troubled, many])
def test_page_fits_the_width_of_a_phone(open_page: OpenPage, scene: Any) -> None:
    """360 pixels, in the longer of the two languages."""
    visit = open_page(scene(), locale="es-CR", **PHONE)
    visit.script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert "Se refresca cada" in visit.text("main")
    assert visit.overflow() == 0
    assert visit.console_errors() == []


@pytest.mark.parametrize(
    ("scene", "context"),
    [
        (troubled, {"scheme": "light"}),
        (troubled, {"scheme": "dark"}),
        (troubled, {"locale": "es-ES", **PHONE}),
        (lambda: many(4), {"scheme": "dark"}),  # axe takes minutes for thirty
        (lambda: Scene(away=WITHOUT_REDIS), {"scheme": "light"}),
        (lambda: Scene(away=WITHOUT_REDIS), {"scheme": "dark"}),
    ],
)
def test_axe_finds_no_serious_violation(open_page: OpenPage, scene: Any, context: dict[str, Any]) -> None:
    visit = open_page(scene(), **context)
    visit.script("[...document.querySelectorAll('details')].slice(-8).forEach(d => { d.open = true })")
    assert visit.violations() == []


@pytest.mark.parametrize(
    ("locale", "sentence", "language"),
    [("es-CR", "Al día; próximo ciclo en 8:", "es"), ("en-GB", "In sync", "en"), ("fr-FR", "In sync", "en")],
)
def test_page_is_in_the_language_of_the_browser(
    open_page: OpenPage, locale: str, sentence: str, language: str
) -> None:
    """Spanish or English; English for all others."""
    visit = open_page(locale=locale)
    assert visit.sentence().startswith(sentence)
    assert visit.script("return document.documentElement.lang") == language


def test_both_languages_have_every_text(open_page: OpenPage) -> None:
    """With the same placeholders; every text that the code uses exists."""
    visit = open_page()
    english, spanish = visit.script("return [TEXT.en, TEXT.es]")
    assert english.keys() == spanish.keys()
    for name, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", spanish[name])), name
    script = files("etl.monitoring.page").joinpath("page.js").read_text("utf-8")
    asked = set(re.findall(r'text\("(\w+)"', script)) | set(re.findall(r'\["(\w+)", ', script))
    known = english.keys() | {
        "d",
        "h",
        "min",
        "s",
        "mongodb",
        "redis",
        "bad",
        "unknown",
        "work",
        "warn",
        "ok",
    }
    assert asked <= known


def test_chart_shows_figures_for_pointer_and_keyboard(open_page: OpenPage) -> None:
    """Of the newest run without either; arrow keys move between runs, also for a screen reader."""
    visit = open_page()
    [chart] = visit.find("[role=slider][aria-label='promptContent: Records per run']")
    runs = visit.scene.past[0]["runs"]

    def figures() -> str:
        return visit.text("figcaption span")

    assert figures().startswith(f"{runs[0]['records_processed']} · ok · ")
    visit.script("arguments[0].focus()", chart)
    visit.press("ARROW_LEFT")
    assert figures().startswith(f"{runs[1]['records_processed']} · ok")
    assert chart.get_dom_attribute("aria-valuetext") == figures()
    visit.press("HOME")
    assert figures().startswith(f"{runs[59]['records_processed']} · ok")
    width = chart.size["width"]
    failed = round(width * (59 - 12 + 0.5) / 60 - width / 2)  # from the middle
    ActionChains(visit.browser).move_to_element_with_offset(chart, failed, 0).perform()
    assert figures().startswith("0 · failed · ")


def test_unusual_run_does_not_flatten_the_chart(open_page: OpenPage) -> None:
    """A cold start of a million documents and a failure are clipped, and have other colours."""
    found = [run(900 - n, 100, 40) for n in range(5)]
    found += [run(2000, 1_000_000, 60_000, mode="cold_start"), run(3000, 0, 20_000, status="failed")]
    visit = open_page(Scene([healthy()], [past() | {"runs": found}]))
    heights = [float(bar.get_dom_attribute("height")) for bar in visit.find(".collection .plot rect")]
    assert heights[:7] == [2, 100, 96, 96, 96, 96, 96], "records"
    assert heights[7:] == [100, 100, 96, 96, 96, 96, 96], "duration"
    assert len(visit.find("rect.whole")) == len(visit.find("rect.failed")) == 2


def test_queue_is_shown_over_time(open_page: OpenPage) -> None:
    """Each queue once, with its current length."""
    visit = open_page(troubled())
    captions = [figure.text.replace("\n", " ") for figure in visit.find("#queues figure")]
    assert [caption.partition(" · ")[0] for caption in captions] == [
        "queue:ai_generation:alta 12 requests",
        "queue:ai_generation:media 140 requests",
    ]
    assert len(visit.find("#queues path.line")) == 2


def test_backfill_shows_progress_and_time_left(open_page: OpenPage) -> None:
    """Computed from the observed speed; an interrupted one has no time left."""
    visit = open_page(troubled())
    assert "1,000 of about 4,000 documents · 25% · by worker-1:4711" in visit.read()
    began = time.monotonic()

    def moved() -> bool:
        done = 1000 + int(100 * (time.monotonic() - began))
        visit.scene.collections[0] = replace(visit.scene.collections[0], scans=[BACKFILL | {"done": done}])
        return "left · by worker-1:4711" in visit.read()

    assert eventually(moved, seconds=15)
    left = re.search(r"about (\d+) s left", visit.read())
    assert left
    assert 10 < int(left[1]) < 100  # 30 on an idle machine
    visit.scene.collections[0] = healthy(scans=[BACKFILL | {"holder": None}])
    assert eventually(lambda: "interrupted: the same command resumes it" in visit.read(), seconds=8)


@pytest.mark.parametrize(
    ("follow", "shown"),
    [
        (None, None),
        (
            {"state": "following", "lag_seconds": 0.0, "holder": "etl-7d9c:1:0123456789ab"},
            "followed\netl-7d9c:1",
        ),
        ({"state": "behind", "lag_seconds": 75.0, "holder": "etl-7d9c:1"}, "1 min 15 s behind\netl-7d9c:1"),
        ({"state": "stopped", "lag_seconds": 0.0, "holder": None}, "not followed now"),
    ],
)
def test_change_stream_is_shown_if_configured(
    open_page: OpenPage, follow: dict[str, Any] | None, shown: str | None
) -> None:
    """With state, lag and holder."""
    visit = open_page(Scene([healthy(follow=follow)]))
    facts = [one.text for one in visit.find("dl > div") if one.text.startswith("Change stream")]
    assert facts == ([f"Change stream\n{shown}"] if shown else [])


def test_countdown_uses_the_clock_of_the_daemon(open_page: OpenPage) -> None:
    """The clock of the browser is two hours ahead."""
    visit = open_page(before="const real = Date.now; Date.now = () => real() + 7_200_000")
    assert re.fullmatch(r"In sync; next cycle in [78]:\d\d", visit.sentence()), visit.sentence()
