"""`etl doctor` on real servers: healthy setup, clocks, TTLs, unreachable servers."""

import re

import pytest

from etl.cli import run
from etl.demo import MongoServer
from tests.support.diagnosis import FOUND, HEALTHY, Doctor
from tests.support.pipeline import Clock


@pytest.mark.usefixtures("collection")
def test_healthy_setup_has_no_findings(doctor: Doctor) -> None:
    diagnosis = doctor()
    assert (diagnosis.code, diagnosis.findings) == (HEALTHY, [])
    assert diagnosis.said("persistence")["level"] == "note"
    assert {check["check"] for check in diagnosis.checks} == {
        *("ttl", "connection", "version", "role", "index", "dates"),
        *("mode", "eviction", "persistence", "keys", "clocks"),
    }


def test_report_prints_the_command_of_each_remedy(
    doctor: Doctor, mongod: MongoServer, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the table of checks."""
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
def test_clock_skew_is_a_finding(doctor: Doctor, clock: Clock, ahead: int) -> None:
    """The clock of MongoDB is faked, as that of a server cannot be set."""
    clock.forward(ahead)
    diagnosis = doctor()
    assert "set-ntp" in diagnosis.remedy("clocks")
    assert f"MongoDB {ahead:+}.0 s" in diagnosis.said("clocks")["text"]


@pytest.mark.usefixtures("collection")
def test_ttl_shorter_than_the_cycle_is_a_finding(doctor: Doctor) -> None:
    setting = "families={'mcp:server:status': {refresh_seconds: null}}"
    assert "refresh_seconds: 240" in doctor(setting).remedy("ttl")


def test_unreachable_servers_are_findings(doctor: Doctor) -> None:
    """With their addresses; the checks that need them are left out."""
    diagnosis = doctor(
        "mongo.timeout_seconds=0.2",
        mongo="mongodb://127.0.0.1:1/?directConnection=true",
        redis="redis://127.0.0.1:1/0",
    )
    assert diagnosis.code == FOUND
    assert [(finding["check"], finding["subject"]) for finding in diagnosis.findings] == [
        *(("connection", "MongoDB"), ("connection", "Redis")),
    ]
    assert all("127.0.0.1:1" in finding["text"] for finding in diagnosis.findings)
