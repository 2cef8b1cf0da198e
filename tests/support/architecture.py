"""Which module imports which, and which of those arrows must not be.

Read from the source text, so that an arrow counts wherever it is: in a function, for types only, or in a
module nobody imports.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import eq
from pathlib import Path

Graph = Mapping[str, frozenset[str]]  # module -> the modules it imports, of the project and of others

PACKAGES = ("etl", "schemas")
ROOT = "etl.app"  # the composition root, and where it puts the stages together: there MongoDB and Redis meet
ROOTS = frozenset({ROOT, "etl.assembly"})
HEART = ("etl.apply", "etl.backfill", "etl.batch", "etl.cycle", "etl.pipeline", "etl.scan")
DRIVERS = {
    "pymongo": ("etl.mongo_client", "etl.source"),
    "redis": ("etl.redis_wire",),
    "hiredis": ("etl.resp",),
}
COMMAND_LINE = "etl.cli"
ENTRANCE = "etl.__main__"  # `python -m etl`


def read_graph(folder: Path) -> Graph:
    """The imports of every module of the project below `folder`."""
    paths = {_name(folder, path): path for package in PACKAGES for path in (folder / package).rglob("*.py")}
    return {name: frozenset(_imports(path, name, paths.keys())) for name, path in paths.items()}


def wrong_arrows(graph: Graph) -> list[str]:
    """Every import that the architecture forbids, as a sentence."""
    checks = (_schemas, _drivers, _heart, _meetings, _command_line, _cycles)
    return [sentence for check in checks for sentence in check(graph)]


def _schemas(graph: Graph) -> Iterator[str]:
    for module, imported in _arrows(graph):
        if _inside(module, "schemas") and _inside(imported, "etl"):
            yield f"{module} imports {imported}: schemas knows nothing of etl"


def _drivers(graph: Graph) -> Iterator[str]:
    for module, imported in _arrows(graph):
        for driver, owners in DRIVERS.items():
            if _inside(imported, driver) and module not in owners:
                yield f"{module} imports {imported}: only {' and '.join(owners)} may"


def _heart(graph: Graph) -> Iterator[str]:
    for module in HEART:
        for driver in DRIVERS:
            if path := _path_into(graph, module, driver):
                yield f"{' -> '.join(path)}: the heart knows no driver"


def _meetings(graph: Graph) -> Iterator[str]:
    """Only the root knows both databases; others do so through it."""
    others = {module: imported for module, imported in graph.items() if module not in ROOTS}
    for module in others:
        if _path_into(others, module, "pymongo") and _path_into(others, module, "redis"):
            yield f"{module} knows both MongoDB and Redis: only {ROOT} may"


def _command_line(graph: Graph) -> Iterator[str]:
    for module, imported in _arrows(graph):
        if _inside(imported, COMMAND_LINE) and not _inside(module, COMMAND_LINE) and module != ENTRANCE:
            yield f"{module} imports {imported}: nothing imports the command line"


def _cycles(graph: Graph) -> Iterator[str]:
    for module in graph:
        for imported in graph[module]:
            if path := _path(graph, imported, partial(eq, module)):
                yield f"{' -> '.join([module, *path])}: a cycle"


def _arrows(graph: Graph) -> Iterator[tuple[str, str]]:
    return ((module, imported) for module in graph for imported in sorted(graph[module]))


def _inside(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _path_into(graph: Graph, start: str, package: str) -> list[str]:
    return _path(graph, start, lambda module: _inside(module, package))


def _path(graph: Graph, start: str, is_goal: Callable[[str], bool]) -> list[str]:
    """The shortest chain of imports from `start` to a goal; empty when there is none."""
    before = {start: ""}
    queue = [start]
    for module in queue:
        if is_goal(module):
            return _back(before, module)
        for imported in sorted(graph.get(module, frozenset()) - before.keys()):
            before[imported] = module
            queue.append(imported)
    return []


def _back(before: Mapping[str, str], module: str) -> list[str]:
    path = [module]
    while before[path[0]]:
        path.insert(0, before[path[0]])
    return path


def _name(folder: Path, path: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, module: str, known: Iterable[str]) -> Iterator[str]:
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, package)
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                yield submodule if submodule in known else origin


def _origin(node: ast.ImportFrom, package: str) -> str:
    """The module of `from … import`, a relative one resolved against `package`."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])
