"""`etl doctor` on real servers: healthy, clocks, TTLs, servers that do not answer."""

import re

import pytest

from etl.cli import run
from etl.demo import MongoServer
from tests.support.diagnosis import FOUND, HEALTHY, Doctor
from tests.support.pipeline import Clock


@pytest.mark.usefixtures("collection")
def test_a_healthy_setup_has_no_findings(doctor: Doctor) -> None:
    seen = doctor()
    assert (seen.code, seen.findings) == (HEALTHY, [])
    assert seen.said("persistence")["level"] == "note"
    assert {check["check"] for check in seen.checks} == {
        *("ttl", "connection", "version", "role", "index", "dates"),
        *("mode", "eviction", "persistence", "keys", "clocks"),
    }


def test_the_report_prints_the_command_to_type(
    doctor: Doctor, mongod: MongoServer, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the table of what is well, each finding has the line to type."""
    doctor()
    code = run(["--set", f"mongo.uri={mongod.uri}", "--set", f"redis.url={redis_url}", "doctor"])
    answer = capsys.readouterr()
    assert code == FOUND
    assert answer.err == ""
    assert re.search(r"^ok +connection +Redis +answers$", answer.out, re.MULTILINE)
    assert re.search(
        r"^  remedy, in mongosh: db\.getSiblingDB\('campaigns'\).+createIndex", answer.out, re.MULTILINE
    )


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("ahead", [5, -5])
def test_clock_skew_is_found(doctor: Doctor, clock: Clock, ahead: int) -> None:
    """MongoDB's clock is moved in the application's own eyes, as a server's cannot be."""
    clock.forward(ahead)
    seen = doctor()
    assert "set-ntp" in seen.remedy("clocks")
    assert f"MongoDB {ahead:+}.0 s" in seen.said("clocks")["text"]


@pytest.mark.usefixtures("collection")
def test_a_ttl_shorter_than_the_cycle_is_found(doctor: Doctor) -> None:
    setting = "families={'mcp:server:status': {refresh_seconds: null}}"
    assert "refresh_seconds: 240" in doctor(setting).remedy("ttl")


def test_each_server_that_does_not_answer_is_a_finding(doctor: Doctor) -> None:
    """Each with its address; the checks that need them are left out, and nothing raises."""
    seen = doctor(
        "mongo.timeout_seconds=0.2",
        mongo="mongodb://127.0.0.1:1/?directConnection=true",
        redis="redis://127.0.0.1:1/0",
    )
    assert seen.code == FOUND
    assert [(finding["check"], finding["subject"]) for finding in seen.findings] == [
        *(("connection", "MongoDB"), ("connection", "Redis")),
    ]
    assert all("127.0.0.1:1" in finding["text"] for finding in seen.findings)
