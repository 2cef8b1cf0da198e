"""The Spanish pages have the structure and the names of the English ones."""

import re

import pytest

from tests.support.docs import PAGES, tables, without_figures

TRANSLATIONS = [("README.md", "README.es.md"), ("docs/operations.md", "docs/es/operacion.md")]


def headings(page: str) -> list[int]:
    """The level of each heading."""
    return [len(marks) for marks in re.findall(r"^(#+) ", PAGES[page], re.MULTILINE)]


def code_lines(page: str) -> list[str]:
    """The indented lines of code, without comments."""
    lines = re.findall(
        r"^ {4,}(\S.*)$",
        re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.DOTALL | re.MULTILINE),
        re.MULTILINE,
    )
    return [line.split("  #")[0].rstrip() for line in lines]


def names(page: str) -> set[str]:
    """Everything in backticks: commands, settings, options, keys, actions, fields."""
    return set(re.findall(r"`([^`\n]+)`", without_figures(PAGES[page])))


@pytest.mark.parametrize(("english", "spanish"), TRANSLATIONS)
def test_translation_has_the_same_headings_and_tables(english: str, spanish: str) -> None:
    """The same number, levels and lengths."""
    assert headings(spanish) == headings(english)
    assert [len(rows) for rows in tables(PAGES[spanish])] == [len(rows) for rows in tables(PAGES[english])]


@pytest.mark.parametrize(("english", "spanish"), TRANSLATIONS)
def test_translation_has_the_same_names_and_code(english: str, spanish: str) -> None:
    assert names(spanish) == names(english)
    assert code_lines(spanish) == code_lines(english)


@pytest.mark.parametrize(("english", "spanish"), TRANSLATIONS)
def test_translation_has_the_same_first_columns(english: str, spanish: str) -> None:
    """Of each table, where they are names or codes."""
    for rows, translated in zip(tables(PAGES[english]), tables(PAGES[spanish]), strict=True):
        assert _first(translated) == _first(rows)


def _first(rows: list[str]) -> list[str]:
    """The names and codes of the first column."""
    cells = [row.split("|")[1].strip() for row in rows]
    return [" ".join(re.findall(r"`[^`]+`|^\d+$", cell)) for cell in cells]
