import os
from pathlib import Path

import pytest

from etl.settings import Settings
from etl.settings.cpus import usable_cpus


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A tree of control groups: a service in a slice."""
    (tmp_path / "system.slice" / "etl.service").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The group that this process is in."""
    path = tmp_path_factory.mktemp("proc") / "cgroup"
    path.write_text("0::/system.slice/etl.service\n")
    return path


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 8), ("nonsense", 8)],
)
def test_quota_limits_the_cpus(groups: Path, own: Path, quota: str, cpus: int) -> None:
    """Rounded up; without a quota the affinity of the process counts, not the machine."""
    (groups / "system.slice" / "etl.service" / "cpu.max").write_text(quota)
    assert usable_cpus(groups, own) == cpus


def test_quota_of_a_parent_group_counts(groups: Path, own: Path) -> None:
    """The smallest one."""
    (groups / "system.slice" / "cpu.max").write_text("300000 100000")
    (groups / "system.slice" / "etl.service" / "cpu.max").write_text("400000 100000")
    assert usable_cpus(groups, own) == 3


def test_quota_at_the_root_counts_in_a_container(tmp_path: Path) -> None:
    """There the name of the group is that of the host, or absent."""
    (tmp_path / "cpu.max").write_text("200000 100000")
    (tmp_path / "proc").write_text("0::/kubepods/pod1\n")
    assert usable_cpus(tmp_path, tmp_path / "proc") == 2
    assert usable_cpus(tmp_path, tmp_path / "nothing") == 2


def test_workers_default_to_the_usable_cpus() -> None:
    assert Settings().workers() == usable_cpus()
    assert Settings.model_validate({"transform": {"workers": 5}}).workers() == 5
