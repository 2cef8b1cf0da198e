import json
import subprocess
import sys
from pathlib import Path

import pytest

from etl.errors import LeaseHeldError
from tests.support.command import Etl
from tests.unit.cli.fake_app import FakeApp

COMMANDS = ("sync", "show", "refresh", "config", "demo")


def test_etl_without_arguments_lists_the_commands(etl: Etl) -> None:
    """`etl` and `etl --help` list every command."""
    for arguments in ((), ("--help",)):
        result = etl(*arguments)
        assert result.code == 0
        assert all(f"\n  {command} " in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(etl: Etl, command: str) -> None:
    """Its lines fit a terminal."""
    result = etl(command, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: etl {command}")
    assert max(map(len, result.out.splitlines())) <= 100


def test_version_is_printed(etl: Etl) -> None:
    assert etl("--version").out.startswith("etl 0.")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("snyc",), "No such command"),
        (("sync", "--jsn"), "No such option"),
        (("show",), "Missing argument"),
        (("--set", "x", "config"), "expected PATH=VALUE"),
        (("--set", "http.port=[hunter2", "config"), "the value of http.port is not YAML"),
    ],
)
def test_wrong_usage_is_one_line(etl: Etl, arguments: tuple[str, ...], expected: str) -> None:
    """Exit code 2, and a pointer to `--help`; the line quotes no value."""
    result = etl(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert expected in result.err
    assert "--help)" in result.err
    assert result.err.count("\n") == 1
    assert "hunter2" not in result.err


def test_error_with_json_is_one_document(etl: Etl) -> None:
    result = etl("sync", "--json", "--nonsense")
    assert result.code == 2
    assert "No such option" in json.loads(result.out)["error"]


def test_error_class_decides_the_exit_code(etl: Etl) -> None:
    result = etl("show", "config:api:x", app=FakeApp(LeaseHeldError("host:1:ab", 7.4)))
    assert result.code == 75
    line = "error: host:1:ab is at work on it (its lease lasts 7 s more): try again when it is done\n"
    assert result.err == line


def test_unexpected_error_is_one_line(etl: Etl) -> None:
    """It has the type and the place, but not the message; `--verbose` shows the traceback."""
    app = FakeApp(RuntimeError("hunter2"))
    result = etl("show", "config:api:x", app=app)
    assert result.code == 1
    assert result.err.startswith("error: unforeseen RuntimeError in fake_app.py:")
    assert "hunter2" not in result.err
    assert "Traceback" in etl("show", "config:api:x", "--verbose", app=app).err


def test_settings_options_work_before_and_after_the_command(etl: Etl, tmp_path: Path) -> None:
    """`--set` overrides `--config`."""
    path = tmp_path / "mine.yaml"
    path.write_text("http: {port: 1}\nlease: {seconds: 9}\n")
    for arguments in (
        ("--config", str(path), "--set", "http.port=2", "show", "config:api:x"),
        ("show", "config:api:x", "--config", str(path), "--set", "http.port=2"),
    ):
        app = FakeApp()
        etl(*arguments, app=app)
        assert app.settings is not None
        assert (app.settings.http.port, app.settings.lease.seconds) == (2, 9)


@pytest.mark.parametrize("group", [(), ("dead-letters",)])
def test_each_command_fits_its_line_of_the_help(
    etl: Etl, group: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 80 columns none is cut."""
    monkeypatch.setenv("COLUMNS", "80")
    assert "..." not in etl(*group, "--help").out.partition("Commands:")[2]


def test_config_prints_value_and_source(etl: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each setting; passwords are masked."""
    monkeypatch.setenv("ETL_MONGO__URI", "mongodb://app:hunter2@db:27017")
    result = etl("config", "--set", "http.port=9")
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in result.out.splitlines()}
    assert lines["mongo.uri"] == ["mongodb://app:***@db:27017", "environment ETL_MONGO__URI"]
    assert lines["http.port"] == ["9", "command line"]
    assert lines["families.config:api.ttl"] == ["3600", "default"]
    assert lines["families.queue:ai_generation.ttl"] == ["null", "default"]
    assert "hunter2" not in result.out


def test_config_json_has_path_value_and_source(etl: Etl) -> None:
    settings = json.loads(etl("config", "--json").out)["settings"]
    assert {"path": "schedule.cycle_seconds", "value": 660, "source": "default"} in settings


def test_invalid_settings_end_a_command_before_it_starts(etl: Etl, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("http: {prt: 1}")
    app = FakeApp()
    result = etl("sync", "--config", "bad.yaml", app=app)
    assert result.code == 2
    assert result.err == "error: http.prt: unknown setting, did you mean port? (file bad.yaml)\n"
    assert app.settings is None


def test_closed_pipe_prints_no_error() -> None:
    """As in `etl config | head -0`."""
    command = [sys.executable, "-m", "etl", "config"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_ascii_stdout_gets_valid_json() -> None:
    """Other characters are escaped instead of failing."""
    command = [sys.executable, "-m", "etl", "config", "--json", "--set", "mongo.database=ñ"]
    answer = subprocess.run(
        command, capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""}
    )
    values = [setting["value"] for setting in json.loads(answer.stdout)["settings"]]
    assert "ñ" in values


def test_config_loads_no_driver() -> None:
    """And `rich` on a terminal only: each import takes long."""
    script = (
        "import sys, etl.cli; etl.cli.run(['config']);"
        " print({'pymongo', 'redis', 'rich', 'uvicorn'} & sys.modules.keys(), file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stderr == "set()\n"
    assert "mongo.uri" in answer.stdout
