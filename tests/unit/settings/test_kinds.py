"""Kinds from outside the package: loading and refusal."""

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
    """Write a module that can be imported; the kinds that it registers are removed after the test."""
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
    """Return the error for these kinds."""
    with pytest.raises(ConfigurationError) as error:
        load(overrides={"kinds": [*names]})
    return str(error.value)


def test_module_registers_a_kind_and_its_family(module: Module) -> None:
    """The family has settings, and the fields of the kind are read."""
    module("acme_one", EXAMPLE)
    settings = load(overrides={"kinds": ["acme_one"], "families": {"ai:template": {"ttl": 60}}})
    assert settings.families["ai:template"].ttl == 60
    assert load(overrides={"kinds": ["acme_one"]}).families["ai:template"].ttl == 3600
    assert {"nombre", "texto", "usos"} <= {*fields()}
    assert isinstance(project({"tipo": "plantilla", "nombre": "a", "texto": "b"}, "generacion"), Projection)
    named = {"name": "c", "tipo": "plantilla", "fields": {"texto": "$contenido"}}
    assert load(overrides={"kinds": ["acme_one"], "collections": [named]}).collections[0].tipo == "plantilla"


def test_module_registers_several_kinds(module: Module) -> None:
    other = EXAMPLE.replace("plantilla", "otra").replace("ai:template", "ai:other")
    module("acme_two", other)
    module("acme_both", EXAMPLE + "\nimport acme_two\nKINDS = (KIND, acme_two.KIND)\n")
    load(overrides={"kinds": ["acme_both"]})
    assert {"plantilla", "otra"} <= KINDS.keys()
    assert {"ai:template", "ai:other"} <= FAMILIES.keys()


@pytest.mark.parametrize("value", ["acme_installed", "acme_installed:KIND", "acme_installed:ALL"])
def test_entry_point_of_an_installed_package_registers_its_kinds(
    value: str, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a setting. The entry point names a module, a kind, or a list of kinds."""
    module("acme_installed", EXAMPLE + "\nALL = [KIND]\n")
    monkeypatch.setattr(kinds, "_installed", lambda: (("acme", value),))
    assert "ai:template" in Settings().families


def test_entry_points_are_looked_up_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_invalid_kind_is_refused(old: str, new: str, reason: str, module: Module) -> None:
    """In one line that names the setting. Nothing is registered."""
    assert EXAMPLE.count(old) == 1
    module("acme_wrong", EXAMPLE.replace(old, new))
    before = [*KINDS], [*FAMILIES]
    assert refused("acme_wrong") == f"kinds.0: acme_wrong cannot be used: {reason} (command line)"
    assert ([*KINDS], [*FAMILIES]) == before


def test_second_of_two_conflicting_kinds_is_refused(module: Module) -> None:
    """The same kind twice is no conflict."""
    module("acme_first", EXAMPLE)
    module("acme_second", EXAMPLE.replace('tipo="plantilla"', 'tipo="otra"'))
    load(overrides={"kinds": ["acme_first", "acme_first"]})
    assert refused("acme_first", "acme_second").startswith(
        "kinds.1: acme_second cannot be used: the keys ai:template"
    )


def test_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_invalid_mapping_is_refused_by_path(fields: object, reason: str) -> None:
    collection = {"name": "c", "timestamp_field": "meta.updated", "fields": fields}
    with pytest.raises(ConfigurationError) as error:
        load(overrides={"collections": [collection]})
    assert str(error.value) == f"{reason} (command line)"


def test_mapping_is_refused_beside_a_kind_without_fields(module: Module) -> None:
    """Without its fields the projection is unknown."""
    bare = "\nfrom dataclasses import replace\nKIND = replace(KIND, fields=())\n"
    module("acme_bare", EXAMPLE + bare)
    with pytest.raises(ConfigurationError) as error:
        load(overrides={"kinds": ["acme_bare"], "collections": [{"name": "c", "fields": {"estado": "$a"}}]})
    assert "a mapping needs the fields of every kind, and plantilla does not name its own" in str(error.value)
