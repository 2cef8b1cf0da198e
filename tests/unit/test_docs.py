"""The README and the settings file say what the code does."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from etl.cli.main import etl, run
from etl.errors import EtlError, LeaseHeldError, Misconfigured
from etl.model.report import Report
from etl.settings import CollectionSettings, FamilySettings, Settings, load
from schemas.documents import FAMILIES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def table_under(heading: str) -> list[str]:
    """The rows of the first table below a heading of the README, without its head."""
    section = README.split(f"\n## {heading}\n", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting: its path as the README writes it, and its definition."""
    for section, field in Settings.model_fields.items():
        if field.annotation is str:
            yield section, field
            continue
        for path, model in _models(section, field.annotation):
            for name, setting in model.model_fields.items():
                yield f"{path}.{name}", setting


def _models(section: str, annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield section, annotation
    elif CollectionSettings in get_args(annotation):
        yield f"{section}[]", CollectionSettings
    else:
        yield f"{section}.FAMILY", FamilySettings


def default(path: str, setting: FieldInfo) -> str:
    """A setting's default as the README writes it."""
    if path.startswith("families."):
        return "see above"
    if path == "collections[].name":
        return "`promptContent`"
    value = setting.get_default()
    return f"`{value.get_secret_value() if isinstance(value, SecretStr) else value}`"


def test_the_readme_has_every_setting() -> None:
    """Its table of settings is exactly what the code defines: path, default, meaning."""
    rows = [f"| `{path}` | {default(path, s)} | {s.description} |" for path, s in settings()]
    assert table_under("Settings") == rows


def test_the_readme_has_every_family() -> None:
    """Its table of families is exactly the contract."""

    def life(ttl: int | None) -> str:
        return "none" if ttl is None else str(ttl)

    rows = [f"| `{f.pattern}` | {f.type} | {life(f.ttl)} | {f.source} |" for f in FAMILIES.values()]
    assert table_under("What is in Redis") == rows


def test_the_readme_has_every_command() -> None:
    """Each command has one row, and each row is a command."""
    named = [re.findall(r"`etl ([a-z-]+)", row)[0] for row in table_under("Commands")]
    assert sorted(named) == sorted(etl.commands)


def test_the_readme_has_every_field_of_a_report() -> None:
    """What `etl sync --json` prints is listed in its order."""
    paragraph = README.split("`etl sync --json` prints", maxsplit=1)[1].split("ten documents", maxsplit=1)[0]
    listed = re.findall(r"`([a-z_]+)`", paragraph)
    values = {"ok", "failed", "locked", "delta", "cold_start"}
    assert [name for name in listed if name not in values] == list(Report("c").as_dict())


def test_the_readme_has_every_exit_code() -> None:
    """The exit codes of the errors are explained."""
    explained = {int(row.split("|")[1]) for row in table_under("Exit codes")}
    assert explained >= {0, EtlError.exit_code, Misconfigured.exit_code, LeaseHeldError.exit_code, 130}


@pytest.mark.parametrize("command", etl.commands.values(), ids=str)
def test_the_readme_shows_no_option_that_is_not_there(command: click.Command) -> None:
    """Every `etl COMMAND … --option` in the README is an option of that command."""
    known = {name for parameter in command.params for name in parameter.opts}
    shared = {name for parameter in etl.params for name in parameter.opts} | {"--help"}
    for line in re.findall(rf"etl {command.name}\b[^`\n|]*", README):
        assert set(re.findall(r"--[a-z-]+", line)) <= known | shared


def test_the_settings_file_holds_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """config/etl.yaml changes nothing."""
    for name in [name for name in os.environ if name.startswith("ETL_")]:
        monkeypatch.delenv(name)
    assert load(ROOT / "config" / "etl.yaml") == Settings()


def test_the_settings_file_names_every_setting() -> None:
    """Nothing that can be set is missing from config/etl.yaml."""
    content = yaml.safe_load((ROOT / "config" / "etl.yaml").read_text("utf-8"))
    content["collections[]"] = content["collections"][0]
    written = {f"{section}.{name}" for section, values in content.items() for name in values} | content.keys()
    assert {path for path, _ in settings() if not path.startswith("families.")} <= written
    lives = content["families"].values()
    assert {name for life in lives for name in life} == set(FamilySettings.model_fields)
    timed = {family.name for family in FAMILIES.values() if family.ttl is not None}
    assert content["families"].keys() == timed


def test_the_package_prints_the_settings_file(capsys: pytest.CaptureFixture[str]) -> None:
    """`etl config --example` gives whoever has no checkout the same file, byte for byte."""
    assert run(["config", "--example"]) == 0
    assert capsys.readouterr().out == (ROOT / "config" / "etl.yaml").read_text("utf-8")


def test_the_demo_shows_the_samples_of_the_contract() -> None:
    """The packaged documents are the users' own, byte for byte."""
    packaged = ROOT / "etl" / "cli" / "demo_documents.json"
    assert packaged.read_bytes() == (ROOT / "tests" / "data" / "sample_documents.json").read_bytes()
