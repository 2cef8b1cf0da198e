"""The arrows between modules point one way, as the layout promises."""

from itertools import chain
from pathlib import Path

import pytest

import etl
from tests.support.architecture import DRIVERS, HEART, ROOT, read_graph, wrong_arrows

# What every tree below starts from: the layout in small, with nothing wrong.
SOUND = {
    "schemas/values.py": "import json",
    "etl/errors.py": "",
    "etl/mongo_client.py": "import pymongo\nfrom etl.errors import EtlError",
    "etl/source.py": "import pymongo\nfrom etl.mongo_client import told",
    "etl/resp.py": "import hiredis",
    "etl/redis_wire.py": "import redis\nfrom etl.resp import pack",
    "etl/cache.py": "from etl.redis_wire import Wire",
    "etl/batch.py": "from schemas.values import text",
    "etl/scan.py": "",
    "etl/cycle.py": "from etl import batch, scan",
    "etl/app.py": "from etl import cache, cycle, source",
    "etl/cli/main.py": "def main():\n    from etl.app import App",
    "etl/cli/sync.py": "from .main import main",
    "etl/__main__.py": "from etl.cli.main import main",
}


def wrong_in(folder: Path, files: dict[str, str]) -> list[str]:
    """What is wrong in a tree made of the sound one and `files`."""
    for name, text in {**SOUND, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return wrong_arrows(read_graph(folder))


def test_the_arrows_of_this_project_point_one_way() -> None:
    """No module of this project imports what it must not."""
    graph = read_graph(Path(etl.__file__).parents[1])

    assert wrong_arrows(graph) == []
    assert graph.keys() >= {ROOT, *HEART, *chain.from_iterable(DRIVERS.values())}, (
        "a rule is about a module that is not there"
    )


def test_a_sound_tree_passes(tmp_path: Path) -> None:
    """The tree that the cases below spoil has nothing wrong itself."""
    assert wrong_in(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        (
            "schemas/values.py",
            "from etl.errors import EtlError",
            "schemas.values imports etl.errors: schemas knows nothing of etl",
        ),
        (
            "etl/scan.py",
            "def late():\n    from pymongo.errors import PyMongoError",
            "etl.scan imports pymongo.errors: only etl.mongo_client and etl.source may",
        ),
        ("etl/lease.py", "import redis.asyncio", "etl.lease imports redis.asyncio: only etl.redis_wire may"),
        ("etl/lease.py", "import hiredis", "etl.lease imports hiredis: only etl.resp may"),
        (
            "etl/scan.py",
            "if TYPE_CHECKING:\n    from etl.cache import Cache",
            "etl.scan -> etl.cache -> etl.redis_wire -> redis: the heart knows no driver",
        ),
        (
            "etl/scan.py",
            "from . import source",
            "etl.scan -> etl.source -> pymongo: the heart knows no driver",
        ),
        (
            "etl/verify.py",
            "from etl import cache, source",
            "etl.verify knows both MongoDB and Redis: only etl.app may",
        ),
        (
            "etl/errors.py",
            "import etl.cli.sync",
            "etl.errors imports etl.cli.sync: nothing imports the command line",
        ),
        ("etl/scan.py", "from etl.cycle import run", "etl.scan -> etl.cycle -> etl.scan: a cycle"),
    ],
)
def test_every_wrong_arrow_is_seen(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    """A sound tree with one wrong import is found out, by a sentence that names the way it takes."""
    assert sentence in wrong_in(tmp_path, {file: text})
