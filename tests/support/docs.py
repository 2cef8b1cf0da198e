"""The pages of the project, read as text."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
PAGES = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in _FILES}


def without_figures(text: str) -> str:
    """A page without the tables that `make bench` writes: they are in the English README only."""
    return re.sub(r"<!-- python.*?<!-- end of figures -->", "", text, flags=re.DOTALL)


def tables(text: str) -> Iterator[list[str]]:
    """The rows of each table, without its head."""
    for table in re.findall(r"(?:^\|.*\n)+", without_figures(text), re.MULTILINE):
        yield table.splitlines()[2:]
