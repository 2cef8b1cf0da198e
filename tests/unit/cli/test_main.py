import json
import subprocess
import sys
from pathlib import Path

import pytest

from etl.errors import LeaseHeldError
from tests.support.command import Etl
from tests.unit.cli.fake_app import FakeApp

COMMANDS = ("sync", "show", "refresh", "config", "demo")


def test_alone_it_helps(etl: Etl) -> None:
    """`etl` and `etl --help` list every command."""
    for arguments in ((), ("--help",)):
        result = etl(*arguments)
        assert result.code == 0
        assert all(f"\n  {command} " in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(etl: Etl, command: str) -> None:
    """`--help` after a command says what it does, in lines that fit a terminal."""
    result = etl(command, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: etl {command}")
    assert max(map(len, result.out.splitlines())) <= 100


def test_the_version_is_told(etl: Etl) -> None:
    """`etl --version` prints it."""
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
    """Exit code 2, one line, the command that helps; nothing that was typed as a value."""
    result = etl(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert expected in result.err
    assert "--help)" in result.err
    assert result.err.count("\n") == 1
    assert "hunter2" not in result.err


def test_with_json_an_error_is_a_document(etl: Etl) -> None:
    """Also wrong usage leaves exactly one JSON document on stdout."""
    result = etl("sync", "--json", "--nonsense")
    assert result.code == 2
    assert "No such option" in json.loads(result.out)["error"]


def test_an_error_ends_with_its_own_exit_code(etl: Etl) -> None:
    """The class of an error decides: 75 for a collection that another holder is syncing."""
    result = etl("show", "config:api:x", app=FakeApp(LeaseHeldError("host:1:ab", 7.4)))
    assert result.code == 75
    line = "error: host:1:ab is at work on it (its lease lasts 7 s more): try again when it is done\n"
    assert result.err == line


def test_an_unforeseen_error_is_one_line_too(etl: Etl) -> None:
    """A bug tells its kind and place, but not its message; `--verbose` shows the traceback."""
    app = FakeApp(RuntimeError("hunter2"))
    result = etl("show", "config:api:x", app=app)
    assert result.code == 1
    assert result.err.startswith("error: unforeseen RuntimeError in fake_app.py:")
    assert "hunter2" not in result.err
    assert "Traceback" in etl("show", "config:api:x", "--verbose", app=app).err


def test_settings_are_given_before_or_after_the_command(etl: Etl, tmp_path: Path) -> None:
    """`--config` and `--set` work in both places, the command line over the file."""
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


def test_config_tells_value_and_source(etl: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting has one line, with its source; the password is masked."""
    monkeypatch.setenv("ETL_MONGO__URI", "mongodb://app:hunter2@db:27017")
    result = etl("config", "--set", "http.port=9")
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in result.out.splitlines()}
    assert lines["mongo.uri"] == ["mongodb://app:***@db:27017", "environment ETL_MONGO__URI"]
    assert lines["http.port"] == ["9", "command line"]
    assert lines["families.config:api.ttl"] == ["3600", "default"]
    assert lines["families.queue:ai_generation.ttl"] == ["null", "default"]
    assert "hunter2" not in result.out


def test_config_as_json(etl: Etl) -> None:
    """`--json` gives path, value and source of every setting."""
    settings = json.loads(etl("config", "--json").out)["settings"]
    assert {"path": "schedule.cycle_seconds", "value": 660, "source": "default"} in settings


def test_wrong_settings_stop_a_command(etl: Etl, tmp_path: Path) -> None:
    """Exit code 2 and one line, before anything is started."""
    (tmp_path / "bad.yaml").write_text("http: {prt: 1}")
    app = FakeApp()
    result = etl("sync", "--config", "bad.yaml", app=app)
    assert result.code == 2
    assert result.err == "error: http.prt: unknown setting, did you mean port? (file bad.yaml)\n"
    assert app.settings is None


def test_a_reader_that_leaves_is_no_error() -> None:
    """`etl config | head -0` ends without a word on stderr."""
    command = [sys.executable, "-m", "etl", "config"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_a_poor_terminal_gets_escapes() -> None:
    """Where stdout can only show ASCII, JSON stays valid and text is escaped instead of failing."""
    command = [sys.executable, "-m", "etl", "config", "--json", "--set", "mongo.database=ñ"]
    answer = subprocess.run(
        command, capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""}
    )
    values = [setting["value"] for setting in json.loads(answer.stdout)["settings"]]
    assert "ñ" in values


def test_what_a_command_does_not_need_is_not_loaded() -> None:
    """Neither driver for a look at the settings, and rich on a terminal only: each would take long."""
    script = (
        "import sys, etl.cli; etl.cli.run(['config']);"
        " print({'pymongo', 'redis', 'rich', 'uvicorn'} & sys.modules.keys(), file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stderr == "set()\n"
    assert "mongo.uri" in answer.stdout
