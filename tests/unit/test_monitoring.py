"""The files in config/ for Prometheus and Grafana name existing metrics."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

import etl as package
from etl.cli.main import etl
from etl.monitoring.health import HealthSnapshot
from etl.monitoring.metrics import Metrics
from etl.settings import Settings
from etl.sync.follow import Followed
from tests.support.statuses import status
from tests.unit.test_alerts import promtool

CONFIG = Path(package.__file__).parents[1] / "config"
OF_PROMETHEUS = {"up"}


def exported() -> str:
    """All metrics of a daemon with a healthy status."""
    metrics = Metrics(Settings())
    metrics.followed("promptContent", Followed({"insert": 1}, None, "connection"))
    body, _ = metrics.text(HealthSnapshot([status()]))
    return body.decode()


def series() -> dict[str, set[str]]:
    """The name of each series, with its labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exported()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def names_in(expression: str) -> set[str]:
    """The metrics in an expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on) \([^)]*\)", "", expression)
    words = set(re.findall(r"[a-z_][a-z0-9_]*(?!\w|\s*\()", bare))
    return words - {"or", "unless", "and", "on", "by"}


def labels_in(expression: str) -> set[str]:
    """The labels that it groups or selects by."""
    lists = re.findall(r"\bby \(([^)]*)\)", expression) + [
        ",".join(re.findall(r"(\w+)\s*=~?", inside)) for inside in re.findall(r"\{([^}]*)\}", expression)
    ]
    return {label.strip() for text in lists for label in text.split(",") if label.strip()}


def dashboard() -> dict[str, Any]:
    """The dashboard for Grafana."""
    found: dict[str, Any] = json.loads((CONFIG / "grafana-dashboard.json").read_text("utf-8"))
    return found


def panels() -> Iterator[tuple[str, str]]:
    """Each expression of the dashboard, with the title of its panel."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def alerts() -> list[dict[str, Any]]:
    """The alert rules."""
    groups = yaml.safe_load((CONFIG / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_and_panels_use_exported_metrics_and_labels() -> None:
    known = series()
    everywhere = {"instance", "job"}  # what Prometheus adds
    asked = [*panels(), *((rule["alert"], rule["expr"]) for rule in alerts())]
    assert len(asked) > 25
    for where, expression in asked:
        names = names_in(expression)
        assert names, where
        assert names <= known.keys() | OF_PROMETHEUS, where
        labels = set().union(*(known.get(name, set()) for name in names), everywhere)
        assert labels_in(expression) <= labels, where


def test_every_metric_is_on_the_dashboard() -> None:
    """A metric without a panel would not be seen."""
    shown = set().union(*(names_in(expression) for _, expression in panels()))
    measured = {name for name in series() if name.startswith("etl_")}
    assert measured - shown == set()


def test_panels_do_not_overlap() -> None:
    """Each has an id, a position and a description."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        assert panel["description"]
        taken |= cells
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_important_metrics_have_alerts() -> None:
    """The commands in their descriptions exist."""
    asked = {name for rule in alerts() for name in names_in(rule["expr"])}
    assert asked >= {
        *("etl_seconds_since_success", "etl_lag_seconds"),
        *("etl_dead_letters", "etl_unreachable_documents"),
    }
    for rule in alerts():
        notes = rule["annotations"]
        assert notes.keys() == {"summary", "description"}
        commands = re.findall(r"\betl ([a-z-]+)", " ".join(notes.values()))
        assert set(commands) <= etl.commands.keys()


def test_prometheus_config_scrapes_the_default_address() -> None:
    content = yaml.safe_load((CONFIG / "prometheus.yml").read_text("utf-8"))
    http = Settings().http
    [scrape] = content["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"{http.host}:{http.port}"]}]
    assert scrape["job_name"] == "etl"
    assert all((CONFIG / name).is_file() for name in content["rule_files"])


def test_prometheus_accepts_the_metrics() -> None:
    """`promtool` also checks the names."""
    assert promtool("check", "metrics", given=exported()) == ""


def test_metrics_page_lists_every_metric() -> None:
    """With type, labels and help."""
    rows = []
    for family in text_string_to_metric_families(exported()):
        labels = sorted(set().union(*(sample.labels for sample in family.samples)) - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        marked = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {marked} | {family.documentation} |")
    page = (CONFIG.parent / "docs" / "metrics.md").read_text("utf-8").splitlines()
    assert [row for row in rows if row.startswith("| `etl_")] == [row for row in page if "| `etl_" in row]


def test_operations_page_lists_every_action_of_the_log() -> None:
    code = " ".join(path.read_text("utf-8") for path in (CONFIG.parent / "etl").rglob("*.py"))
    used = set(re.findall(r'logs\.event\(\s*"([a-z]+)"', code))
    page = (CONFIG.parent / "docs" / "operations.md").read_text("utf-8")
    table = page.split("| action | when |\n|---|---|\n", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
    explained = {name for row in table.splitlines() for name in re.findall(r"`([a-z]+)`", row.split("|")[1])}
    assert explained == used
