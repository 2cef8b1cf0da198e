import re
import socket
import time

from etl.cli.demo import NEW_TEXT
from tests.support.command import Etl, StartEtl, interrupt


def answers(address: str) -> bool:
    """Whether anybody listens at `host:port`."""
    host, port = address.split(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


def test_the_demo_tells_the_whole_story(etl: Etl) -> None:
    """Six documents, their keys with type, TTL and value, the watermark, a second cycle of exactly one."""
    began = time.monotonic()
    result = etl("demo")

    assert (result.code, result.err) == (0, "")
    assert time.monotonic() - began < 30
    cycles = re.findall(r"promptContent +ok +(\w+) +(\d+)", result.out)
    assert cycles == [("cold_start", "6"), ("delta", "1")]
    for shown in ("list, 10800 s left", "hash, 300 s left", "etl:last_sync:promptContent", "no TTL"):
        assert shown in result.out
    before, after = result.out.split(f"  {NEW_TEXT}\n")
    assert "Domina Arenal con energía" in before
    assert NEW_TEXT in after
    assert "\x1b" not in result.out
    assert not any(answers(address) for address in re.findall(r"127\.0\.0\.1:\d+", result.out))


def test_the_demo_ignores_the_settings(etl: Etl) -> None:
    """Somebody's own servers are not touched, not even looked at."""
    assert etl("demo", ETL_MONGO__URI="mongodb://127.0.0.1:1", ETL_REDIS__URL="redis://127.0.0.1:1").code == 0


def test_the_demo_keeps_its_servers_until_ctrl_c(start_etl: StartEtl, etl: Etl) -> None:
    """`--keep` prints what to export, the servers answer, and Ctrl-C ends them."""
    process = start_etl("demo", "--keep", PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    variables: dict[str, str] = {}
    for line in process.stdout:
        variables |= re.findall(r"export (ETL_\w+)='(.*)'", line)
        if line.strip() == "etl sync":
            break

    report = etl("sync", "--json", **variables, ETL_MONGO__DATABASE="campaigns").json["collections"][0]
    assert (report["status"], report["records_processed"]) == ("ok", 0)
    result = interrupt(process)

    assert (result.code, result.err) == (0, "")
    assert not any(answers(a) for a in re.findall(r"127\.0\.0\.1:\d+", repr(variables)))
