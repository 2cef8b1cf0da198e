"""`docs/contract.md`: its table of families, and its example of a new kind."""

import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import schemas
from schemas.families import CONTRACT

# The example of the page is executed.
ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
(NEW_KIND,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
USE_IT = """
from schemas.documents import FAMILIES, project
print(FAMILIES["ai:template"].ttl)
print(project({"tipo": "plantilla", "nombre": "a b", "texto": "hola", "usos": 2.0}, "generacion"))
print(project({"tipo": "plantilla", "nombre": "a b", "eliminado": True}, "generacion"))
bare = project({"tipo": "plantilla", "nombre": "a b"}, "generacion")
print([error.field for error in bare.errors])
"""


def test_new_kind_is_one_file_and_one_line(tmp_path: Path) -> None:
    """Tried in a copy of the package."""
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
        "3600",
        f"Projection(entries=(Put(family='ai:template', key='ai:template:a%20b', value={put}),), lock=None)",
        f"Projection(entries=({evict},), lock=None)",
        "['texto']",
    ]


def test_page_shows_the_example() -> None:
    assert (ROOT / "examples" / "plantillas" / "acme_plantillas.py").read_text(encoding="utf-8") == NEW_KIND


def test_page_lists_every_family() -> None:
    """With key, type, TTL and fields."""
    for family in CONTRACT:
        fields = ", ".join(f"`{field}`" for field in family.fields)
        cells = [f"`{family.name}`", f"`{family.pattern}`", family.type, str(family.ttl or "none"), fields]
        assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in PAGE
