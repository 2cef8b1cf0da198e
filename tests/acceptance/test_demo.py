import re
import socket
import time

from etl.cli.demo import NEW_TEXT
from tests.support.command import Etl, StartEtl, interrupt


def is_listening(address: str) -> bool:
    """Whether a server listens at `host:port`."""
    host, port = address.split(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


def test_demo_shows_keys_watermark_and_a_second_cycle(etl: Etl) -> None:
    """Six documents, their keys with type, TTL and value; the second cycle processes one."""
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
    assert not any(is_listening(address) for address in re.findall(r"127\.0\.0\.1:\d+", result.out))


def test_demo_ignores_the_settings(etl: Etl) -> None:
    """It does not connect to the servers of the user."""
    assert etl("demo", ETL_MONGO__URI="mongodb://127.0.0.1:1", ETL_REDIS__URL="redis://127.0.0.1:1").code == 0


def test_demo_keep_runs_the_servers_until_ctrl_c(start_etl: StartEtl, etl: Etl) -> None:
    """It prints the variables to export."""
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
    assert not any(is_listening(a) for a in re.findall(r"127\.0\.0\.1:\d+", repr(variables)))
