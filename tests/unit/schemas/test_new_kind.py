"""The extension point: a new kind of document is one file and one line."""

import subprocess
import sys
from pathlib import Path
from shutil import copytree

import schemas

NEW_KIND = '''
"""`tipo: plantilla`: an example of a kind that somebody adds."""

from typing_extensions import TypedDict

from schemas.documents.fields import Name, TextField, WholeField
from schemas.documents.one_hash import one_hash
from schemas.families import Family

TEMPLATE = Family(
    name="ai:template",
    pattern="ai:template:{nombre}",
    type="hash",
    ttl=60,
    fields=("texto", "usos"),
    source="tipo: plantilla",
)


class Identity(TypedDict):
    nombre: Name


class Fields(TypedDict):
    texto: TextField
    usos: WholeField


KIND = one_hash(tipo="plantilla", family=TEMPLATE, identity=Identity, fields=Fields, name_field="nombre")
'''
USE_IT = """
from schemas.documents import FAMILIES, project
print(FAMILIES["ai:template"].ttl)
print(project({"tipo": "plantilla", "nombre": "a b", "texto": "hola", "usos": 2.0}, "generacion"))
print(project({"tipo": "plantilla", "nombre": "a b", "eliminado": True}, "generacion"))
bare = project({"tipo": "plantilla", "nombre": "a b"}, "generacion")
print([error.field for error in bare.errors])
"""


def test_a_new_kind_is_one_file_and_one_line(tmp_path: Path) -> None:
    """In a copy of the package, one new file and one line bring a kind with a family of its own."""
    package = tmp_path / "schemas"
    copytree(Path(schemas.__file__).parent, package)
    (package / "documents" / "plantilla.py").write_text(NEW_KIND, encoding="utf-8")
    registration = package / "documents" / "__init__.py"
    text = registration.read_text(encoding="utf-8")
    assert text.count('    "cliente_mcp",\n') == 1
    registration.write_text(
        text.replace('    "cliente_mcp",\n', '    "cliente_mcp",\n    "plantilla",\n'), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE_IT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    put, evict = "{'texto': 'hola', 'usos': '2'}", "Evict(family='ai:template', key='ai:template:a%20b')"
    assert done.stdout.splitlines() == [
        "60",
        f"Projection(entries=(Put(family='ai:template', key='ai:template:a%20b', value={put}),), lock=None)",
        f"Projection(entries=({evict},), lock=None)",
        "['texto', 'usos']",
    ]
