"""README, docs/ and the settings file agree with the code."""

import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

import etl as package
from etl.cli.main import etl, run
from etl.doctor import Finding
from etl.errors import ConfigurationError, EtlError, Interrupted, LeaseHeldError
from etl.model.report import RefreshReport, Report
from etl.model.state import DeadLetter
from etl.monitoring.status import CollectionStatus
from etl.settings import CollectionSettings, Effective, FamilySettings, Settings, load
from etl.transform.preview import Effect, Preview
from etl.verify.classify import Name
from etl.verify.report import VerifyReport
from etl.verify.trace import Trace
from schemas.documents import FAMILIES
from tests.support.docs import PAGES, ROOT, tables

README, COMMANDS, SETTINGS = PAGES["README.md"], PAGES["docs/commands.md"], PAGES["docs/settings.md"]
OPERATIONS, GLOSSARY = PAGES["docs/operations.md"], PAGES["docs/glossary.md"]


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#|\Z)", page, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


def code_in(rows: list[str], column: int = 1) -> list[str]:
    """The names in backticks in a column of a table."""
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[column])]


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting: its path as in docs/settings.md, and its definition."""
    for name, field in Settings.model_fields.items():
        if field.annotation in {str, tuple[str, ...]}:
            yield name, field
            continue
        for path, model in _models(name, field.annotation):
            for inner, setting in model.model_fields.items():
                yield f"{path}.{inner}", setting
                for deeper in get_args(setting.annotation):
                    if isinstance(deeper, type) and issubclass(deeper, BaseModel):
                        yield from ((f"{path}.{inner}.{n}", s) for n, s in deeper.model_fields.items())


def _models(name: str, annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield name, annotation
    elif CollectionSettings in get_args(annotation):
        yield f"{name}[]", CollectionSettings
    else:
        yield f"{name}.FAMILY", FamilySettings


def default(path: str, setting: FieldInfo) -> str:
    """The default of a setting as in docs/settings.md: as YAML."""
    if path.startswith("families."):
        return "see below"
    if path == "collections[].name":
        return "`promptContent`"
    if setting.is_required():
        return "required"
    value = setting.get_default()
    if isinstance(value, SecretStr):
        return f"`{value.get_secret_value()}`"
    return f"`{value}`" if value and isinstance(value, str) else f"`{json.dumps(value)}`"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that can be typed, with its full name: `etl dead-letters list`."""
    for command in etl.commands.values():
        yield f"etl {command.name}", command
        if isinstance(command, click.Group):
            for inner in command.commands.values():
                yield f"etl {command.name} {inner.name}", inner


def options(command: click.Command) -> list[str]:
    """The rows of a command's table of options: name, value, help."""
    return [
        f"| `{name}{_value(option)}` | {option.help} |"
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and option.name != "version"
        for name in option.opts
    ]


def _value(option: click.Option) -> str:
    match option.type:
        case _ if option.is_flag:
            return ""
        case click.Choice():
            return " NAME"
        case click.IntRange() | click.FloatRange():
            return " N"
        case kind:
            return f" {option.metavar or kind.name}"


def test_settings_page_lists_every_setting() -> None:
    """Path, default and description."""
    rows = [f"| `{path}` | {default(path, s)} | {s.description} |" for path, s in settings()]
    assert next(tables(section(SETTINGS, "All settings"))) == rows


def test_settings_page_lists_every_family() -> None:
    lives = Settings().families.items()
    rows = [f"| `{name}` | {life.ttl or 'none'} | {life.refresh_seconds or 'none'} |" for name, life in lives]
    assert next(tables(section(SETTINGS, "Families"))) == rows


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", SETTINGS, re.DOTALL | re.MULTILINE))
def test_examples_of_settings_are_accepted(text: str, tmp_path: Path) -> None:
    """Each is a complete settings file."""
    path = tmp_path / "etl.yaml"
    path.write_text(text, "utf-8")
    assert load(path) != Settings()


def test_readme_lists_every_family() -> None:
    rows = [f"| `{f.pattern}` | {f.type} | {f.ttl or 'none'} | {f.source} |" for f in FAMILIES.values()]
    assert next(tables(section(README, "What is in Redis"))) == rows


def test_readme_lists_every_command() -> None:
    rows = next(tables(section(README, "Commands")))
    assert sorted(code_in(rows)) == sorted(f"etl {name}" for name in etl.commands)


def test_readme_has_at_most_200_lines() -> None:
    """The reference is in docs/."""
    assert len(README.splitlines()) <= 200


def test_every_command_has_a_section() -> None:
    sections = re.findall(r"^##+ `(etl [a-z -]+)`$", COMMANDS, re.MULTILINE)
    assert sorted(sections) == sorted(name for name, _ in commands())


@pytest.mark.parametrize(("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in commands()])
def test_options_are_described_as_in_the_help(name: str, command: click.Command) -> None:
    """In the first table of the section, in order."""
    found = next(tables(section(COMMANDS, f"`{name}`")), [])
    assert [row for row in found if row.startswith("| `--")] == options(command)


def test_shared_options_are_described_first() -> None:
    assert next(tables(COMMANDS)) == [row for row in options(etl) if "--version" not in row]


@pytest.mark.parametrize(
    ("name", "fields_of"),
    [
        ("etl sync", list(Report("c").as_dict())),
        ("etl status", [field.name for field in fields(CollectionStatus)]),
        ("etl verify", list(VerifyReport("c").as_dict())),
        ("etl trace", [field.name for field in fields(Trace)]),
    ],
)
def test_json_fields_are_described(name: str, fields_of: list[str]) -> None:
    """In the second table of the section, once each."""
    _, rows = tables(section(COMMANDS, f"`{name}`"))
    assert sorted(code_in(rows)) == sorted(fields_of)


@pytest.mark.parametrize(
    ("name", "fields_of"),
    [
        ("etl refresh", list(RefreshReport("f", None).as_dict())),
        ("etl dead-letters list", ["collection", *(field.name for field in fields(DeadLetter)), "beyond"]),
        ("etl doctor", [field.name for field in fields(Finding)]),
        ("etl try", [field.name for kind in (Preview, Effect) for field in fields(kind)]),
        ("etl config", [field.name for field in fields(Effective)]),
    ],
)
def test_json_fields_are_named(name: str, fields_of: list[str]) -> None:
    """Where they have no table: in the sentence that begins with `With --json`."""
    text = section(COMMANDS, f"`{name}`").split("With `--json`", maxsplit=1)[1]
    assert set(fields_of) <= set(re.findall(r"`([a-z_]+)`", text))


def test_exit_codes_are_described() -> None:
    explained = {int(row.split("|")[1]) for row in next(tables(section(OPERATIONS, "Exit codes")))}
    classes = (EtlError, ConfigurationError, LeaseHeldError, Interrupted)
    assert explained == {0, 3, *(kind.exit_code for kind in classes)}


@pytest.mark.parametrize("command", etl.commands.values(), ids=str)
@pytest.mark.parametrize("page", sorted(PAGES))
def test_options_on_a_page_exist(page: str, command: click.Command) -> None:
    """Each `--option` after `etl COMMAND` is one of that command."""
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    known = {name for one in (command, etl, *inner) for parameter in one.params for name in parameter.opts}
    for line in re.findall(rf"etl {command.name}\b[^`\n|]*", PAGES[page]):
        assert set(re.findall(r"--[a-z-]+", line)) <= known | {"--help"}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_link_targets_exist(page: str) -> None:
    """Files and headings."""
    here = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (here / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(_anchor, headings), target


def _anchor(heading: str) -> str:
    """The anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_reachable_from_the_readme() -> None:
    """Spanish pages from the Spanish README."""
    for page in PAGES:
        start = "README.es.md" if page.startswith("docs/es/") else "README.md"
        assert page == start or f"]({page})" in PAGES[start], page


PYTHON = [
    pytest.param(text, id=page)
    for page in sorted(PAGES)
    for text in re.findall(r"^```python\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)
]


@pytest.mark.parametrize("text", PYTHON)
def test_python_examples_compile_and_can_be_imported(text: str) -> None:
    """Examples with servers are tested in `tests/integration/test_examples.py`."""
    compile(text, "page", "exec")
    for line in re.findall(r"^(?:from|import) .*$", text, re.MULTILINE):
        exec(line, {})  # noqa: S102 (a line of our own page)


def test_glossary_is_sorted_and_lists_each_term_once() -> None:
    terms = [row.split("|")[1].strip() for row in next(tables(GLOSSARY))]
    assert terms == sorted(set(terms), key=str.lower)


def test_glossary_has_the_words_of_reports() -> None:
    """The verdicts, and the columns of `etl sync`."""
    terms = {row.split("|")[1].strip() for row in next(tables(GLOSSARY))}
    assert terms >= {*get_args(Name), "processed", "written", "evicted", "enqueued"}


def test_python_page_lists_the_public_api() -> None:
    assert sorted(code_in(next(tables(PAGES["docs/python.md"])))) == sorted(package.__all__)


def test_settings_file_has_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ETL_")]:
        monkeypatch.delenv(name)
    assert load(ROOT / "config" / "etl.yaml") == Settings()


def test_settings_file_names_every_setting() -> None:
    content = yaml.safe_load((ROOT / "config" / "etl.yaml").read_text("utf-8"))
    content["collections[]"] = content["collections"][0]
    plain = {name for name, value in content.items() if not value or not isinstance(value, dict | list)}
    written = plain | {f"{s}.{name}" for s in content.keys() - plain for name in content[s]}
    asked = {path for path, _ in settings() if not path.startswith(("families.", "redis.sentinel."))}
    assert asked <= written
    lives = content["families"].values()
    assert {name for life in lives for name in life} == set(FamilySettings.model_fields)
    timed = {family.name for family in FAMILIES.values() if family.ttl is not None}
    assert content["families"].keys() == timed


def test_config_example_prints_the_settings_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--example"]) == 0
    assert capsys.readouterr().out == (ROOT / "config" / "etl.yaml").read_text("utf-8")


def test_demo_documents_are_the_samples_of_the_contract() -> None:
    packaged = ROOT / "etl" / "cli" / "demo_documents.json"
    assert packaged.read_bytes() == (ROOT / "tests" / "data" / "sample_documents.json").read_bytes()


CONTRIBUTING, MAKEFILE = PAGES["CONTRIBUTING.md"], (ROOT / "Makefile").read_text("utf-8")


def test_make_targets_are_described() -> None:
    """In CONTRIBUTING.md and at the top of the Makefile."""
    levels = re.findall(r"^LEVELS := (.*)$", MAKEFILE, re.MULTILINE)[0]
    targets = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].replace("$(LEVELS)", levels).split()
    explained = code_in(next(tables(section(CONTRIBUTING, "Checks"))))
    assert sorted(explained) == sorted(f"make {target}" for target in targets)
    top = MAKEFILE.split("\n\n", maxsplit=1)[0]
    assert all(target in top for target in targets)


def test_every_test_directory_is_in_a_make_target() -> None:
    levels = " ".join(re.findall(r"^(?:unit|integration|faults|acceptance) := (.*)$", MAKEFILE, re.MULTILINE))
    tests = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert tests <= set(re.findall(r"tests/(\w+)", levels))


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md", "docs/guarantees.md"]
)
def test_named_files_exist(page: str) -> None:
    """Paths in backticks; docs/guarantees.md omits `tests/`."""
    for path in re.findall(r"`((?:etl|schemas|tests|config|docs|examples)/[\w./-]+)`", PAGES[page]):
        assert (ROOT / path).exists(), path
    for path in re.findall(
        r"`((?:unit|integration|contract|faults|acceptance|property)/[\w./]*)`", PAGES[page]
    ):
        assert (ROOT / "tests" / path).exists(), path


def test_version_is_the_newest_of_the_changelog() -> None:
    """Also in the image and the Deployment; each version in the changelog has a date."""
    entries = re.findall(r"^## (\S+) - (\d{4}-\d\d-\d\d)$", PAGES["CHANGELOG.md"], re.MULTILINE)
    assert len(entries) == len(re.findall(r"^## ", PAGES["CHANGELOG.md"], re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == entries[0][0]
    named = [ROOT / "Dockerfile", *(ROOT / "config").rglob("*.yaml")]
    text = " ".join(path.read_text("utf-8") for path in named)
    versions = re.findall(r'(?:promptcontent-etl:|newTag: |image\.version=")(\d[\d.]*\d)', text)
    assert len(versions) > 2
    assert set(versions) == {project["version"]}
