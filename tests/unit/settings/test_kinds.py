"""Kinds from outside the package: which are taken, and which are refused."""

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.settings import Settings, kinds, load
from schemas.documents import FAMILIES, KINDS, fields, project
from schemas.operations import Projection

EXAMPLE = (Path(__file__).parents[3] / "examples" / "plantillas" / "acme_plantillas.py").read_text("utf-8")

PATTERN = "ai:template:{nombre}"
OWN = "may be the ETL's own: begin with another word"
NO_KIND = "expected KIND, or KINDS, made by schemas.documents.kind.Kind"

Module = Callable[[str, str], None]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Write a module that can be imported; the kinds that it registers are gone after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before, families, loaded = dict(KINDS), dict(FAMILIES), {*sys.modules}

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text, "utf-8")

    yield write
    for registry, content in ((KINDS, before), (FAMILIES, families)):
        registry.clear()
        registry.update(content)  # type: ignore[arg-type]
    for name in {*sys.modules} - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def refused(*names: str) -> str:
    """Why these kinds are refused."""
    with pytest.raises(ConfigurationError) as error:
        load(overrides={"kinds": [*names]})
    return str(error.value)


def test_a_module_brings_a_kind_and_its_family(module: Module) -> None:
    """With settings of its own, and its fields among those that are read."""
    module("acme_one", EXAMPLE)
    settings = load(overrides={"kinds": ["acme_one"], "families": {"ai:template": {"ttl": 60}}})
    assert settings.families["ai:template"].ttl == 60
    assert load(overrides={"kinds": ["acme_one"]}).families["ai:template"].ttl == 3600
    assert {"nombre", "texto", "usos"} <= {*fields()}
    assert isinstance(project({"tipo": "plantilla", "nombre": "a", "texto": "b"}, "generacion"), Projection)
    named = {"name": "c", "tipo": "plantilla", "fields": {"texto": "$contenido"}}
    assert load(overrides={"kinds": ["acme_one"], "collections": [named]}).collections[0].tipo == "plantilla"


def test_a_module_may_bring_several_kinds(module: Module) -> None:
    """As `KINDS`."""
    other = EXAMPLE.replace("plantilla", "otra").replace("ai:template", "ai:other")
    module("acme_two", other)
    module("acme_both", EXAMPLE + "\nimport acme_two\nKINDS = (KIND, acme_two.KIND)\n")
    load(overrides={"kinds": ["acme_both"]})
    assert {"plantilla", "otra"} <= KINDS.keys()
    assert {"ai:template", "ai:other"} <= FAMILIES.keys()


@pytest.mark.parametrize("value", ["acme_installed", "acme_installed:KIND", "acme_installed:ALL"])
def test_an_installed_package_needs_no_setting(
    value: str, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry point names the module, a kind or several."""
    module("acme_installed", EXAMPLE + "\nALL = [KIND]\n")
    monkeypatch.setattr(kinds, "_installed", lambda: (("acme", value),))
    assert "ai:template" in Settings().families


def test_installed_packages_are_found_by_their_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by no other."""

    def found(*, group: str) -> list[EntryPoint]:
        return [EntryPoint("acme", "acme.module", group)]

    monkeypatch.setattr(kinds, "entry_points", found)
    assert kinds._installed.__wrapped__() == (("acme", "acme.module"),)  # noqa: SLF001 (without its cache)
    assert kinds.GROUP == "promptcontent_etl.kinds"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('tipo="plantilla"', 'tipo="generacion"', "another kind has the tipo generacion"),
        (PATTERN, "config:api:{nombre}", "the keys config:api:{nombre} may be those of the family config:api"),
        (PATTERN, "mcp:{nombre}:a:b:c", "the keys mcp:{nombre}:a:b:c may be those of the family mcp:tool"),
        ('name="ai:template"', 'name="config:api"', f"the keys {PATTERN} may be those of the family config:api"),
        (PATTERN, "etl:record:{nombre}", f"the keys etl:record:{{nombre}} {OWN}"),
        (PATTERN, "{nombre}", f"the keys {{nombre}} {OWN}"),
        ("KIND =", "kind =", NO_KIND),
        ("KIND = ", "KIND = [3]\nkind = ", NO_KIND),
        ("from typing import", "from no_such_package import", "No module named 'no_such_package'"),
    ],
    ids=["tipo", "pattern", "overlap", "family", "own", "anything", "none", "other", "import"],
)  # fmt: skip
def test_a_kind_that_cannot_be_used_is_refused(old: str, new: str, reason: str, module: Module) -> None:
    """In one line that names the setting; nothing of it is registered."""
    assert EXAMPLE.count(old) == 1
    module("acme_wrong", EXAMPLE.replace(old, new))
    before = [*KINDS], [*FAMILIES]
    assert refused("acme_wrong") == f"kinds.0: acme_wrong cannot be used: {reason} (command line)"
    assert ([*KINDS], [*FAMILIES]) == before


def test_two_kinds_from_outside_may_not_clash(module: Module) -> None:
    """The second one is refused; the same one twice is not."""
    module("acme_first", EXAMPLE)
    module("acme_second", EXAMPLE.replace('tipo="plantilla"', 'tipo="otra"'))
    load(overrides={"kinds": ["acme_first", "acme_first"]})
    assert refused("acme_first", "acme_second").startswith(
        "kinds.1: acme_second cannot be used: the keys ai:template"
    )


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its entry point: nothing in the settings is wrong."""
    monkeypatch.setattr(kinds, "_installed", lambda: (("acme", "no_such_package"),))
    with pytest.raises(ConfigurationError, match=r"^kinds: the entry point acme cannot be used: No module"):
        load()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"campana": "$a"},
            "collections.0.fields.campana: no field of the contract, did you mean campana_id?",
        ),
        ({"_id": "$a"}, "collections.0.fields._id: the index orders documents by it, so it cannot be mapped"),
        (
            {"meta": "$a"},
            "collections.0.fields.meta: the index orders documents by it, so it cannot be mapped",
        ),
        ({"estado": {1: "$a"}}, "collections.0.fields.estado: expected a MongoDB expression"),
        ({"estado": object()}, "collections.0.fields.estado: expected a MongoDB expression"),
        ("estado", "collections.0.fields: expected a mapping of settings"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(fields: object, reason: str) -> None:
    """With the path of the field."""
    collection = {"name": "c", "timestamp_field": "meta.updated", "fields": fields}
    with pytest.raises(ConfigurationError) as error:
        load(overrides={"collections": [collection]})
    assert str(error.value) == f"{reason} (command line)"


def test_a_mapping_needs_kinds_that_name_their_fields(module: Module) -> None:
    """Else it could not be told what else is to be read."""
    bare = "\nfrom dataclasses import replace\nKIND = replace(KIND, fields=())\n"
    module("acme_bare", EXAMPLE + bare)
    with pytest.raises(ConfigurationError) as error:
        load(overrides={"kinds": ["acme_bare"], "collections": [{"name": "c", "fields": {"estado": "$a"}}]})
    assert "a mapping needs the fields of every kind, and plantilla does not name its own" in str(error.value)
