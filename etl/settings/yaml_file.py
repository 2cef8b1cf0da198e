"""Reads the settings file; invalid YAML and duplicate keys are refused with file and line."""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from etl.errors import ConfigurationError


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, of which YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 (the signature of PyYAML)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "expected the name of a setting; what begins with { or [ belongs in quotes"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"{key.value} is set twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """The content of a settings file; an empty section counts as not given.

    Raises:
        ConfigurationError: the file is missing, unreadable, or not a YAML mapping; the message has file and line.
    """
    try:
        content = parse(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"settings file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"settings file {path}: expected UTF-8 text") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}:{_line(error)}: {_problem(error)}") from None
    if not isinstance(content, dict | None):
        raise ConfigurationError(f"settings file {path}: expected settings, such as `mongo: {{uri: …}}`")
    return {str(name): section for name, section in (content or {}).items() if section is not None}


def parse(text: str) -> Any:
    """One YAML value; None for an empty text.

    Raises:
        yaml.YAMLError: the text is not YAML, or has duplicate keys, or an alias that contains itself.
    """
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
        json.dumps(content, default=str, skipkeys=True)  # fails on an alias that contains itself
    except (RecursionError, ValueError):
        raise yaml.YAMLError from None
    return content


def _line(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None)
    return mark.line + 1 if mark else 1


def _problem(error: yaml.YAMLError) -> str:
    """The parser's message without its quotes from the file, which may be part of a secret."""
    problem = getattr(error, "problem", None) or "not valid YAML, or nested too deeply"
    return re.sub(r"'[^'<>]*\w[^'<>]*'", "'…'", problem)
