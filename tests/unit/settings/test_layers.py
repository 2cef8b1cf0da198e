from pathlib import Path

import pytest

from etl.settings import Settings, effective, load, load_with_origins
from tests.unit.settings.files import Write, refusal


class TestPrecedence:
    """Default, file, environment and command line."""

    def test_defaults_are_those_of_the_design(self) -> None:
        """Without file, variables and options."""
        settings = load()
        assert settings.mongo.uri.get_secret_value() == "mongodb://localhost:27017"
        assert settings.redis.url.get_secret_value() == "redis://localhost:6379/0"
        assert settings.schedule.cycle_seconds == 660
        assert [collection.name for collection in settings.collections] == ["promptContent"]
        assert settings.collection("promptContent").overlap_seconds == 120
        assert settings.families["mcp:tool"].ttl == 1800
        assert settings.families["mcp:server:status"].refresh_seconds == 240
        assert settings.families["queue:ai_generation"].ttl is None
        assert settings.longest_ttl() == 10800

    def test_each_source_overrides_the_lower_ones(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Value by value: command line, environment, file, default."""
        path = write("mongo: {database: from_file, timeout_seconds: 3}\nhttp: {port: 1}\nlease: {seconds: 7}")
        monkeypatch.setenv("ETL_MONGO__DATABASE", "from_environment")
        monkeypatch.setenv("ETL_HTTP__PORT", "2")
        settings = load(path, {"http": {"port": 3}})
        assert settings.mongo.database == "from_environment"
        assert settings.http.port == 3
        assert settings.lease.seconds == 7
        assert settings.mongo.timeout_seconds == 3
        assert settings.retry.seconds == 20

    def test_settings_file_is_searched_in_three_places(
        self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`--config`, then `ETL_CONFIG`, then config/etl.yaml in the current folder."""
        (tmp_path / "config").mkdir()
        write("http: {port: 1}", "config/etl.yaml")
        assert load().http.port == 1
        monkeypatch.setenv("ETL_CONFIG", str(write("http: {port: 2}", "variable.yaml")))
        assert load().http.port == 2
        assert load(write("http: {port: 3}", "option.yaml")).http.port == 3

    def test_setting_without_section_has_a_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`namespace` is the only one."""
        monkeypatch.setenv("ETL_NAMESPACE", "staging")
        loaded = load_with_origins(None, {})
        assert loaded.settings.namespace == "staging"
        assert loaded.origins.of(("namespace",)) == "environment ETL_NAMESPACE"

    def test_collections_variable_is_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It replaces the whole list."""
        monkeypatch.setenv("ETL_COLLECTIONS", '[{"name": "a"}, {"name": "b", "tipo": "cliente_mcp"}]')
        assert [(c.name, c.tipo) for c in load().collections] == [("a", "generacion"), ("b", "cliente_mcp")]

    def test_list_in_the_environment_replaces_that_of_the_file(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither values nor sources of the file remain."""
        path = write("collections: [{name: a, page_size: 7}, {name: b}]")
        monkeypatch.setenv("ETL_COLLECTIONS", '[{"name": "c"}]')
        loaded = load_with_origins(path, {})
        assert [(c.name, c.page_size) for c in loaded.settings.collections] == [("c", 500)]
        assert loaded.origins.of(("collections", 0, "page_size")) == "default"
        assert loaded.origins.of(("collections", 0, "name")) == "environment ETL_COLLECTIONS"

    def test_invalid_section_is_refused_beside_a_variable(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`mongo: ADDRESS` in the file is refused even if a variable sets a value of `mongo`."""
        path = write("mongo: mongodb://somewhere")
        monkeypatch.setenv("ETL_MONGO__DATABASE", "d")
        assert refusal(path) == f"mongo: expected a mapping of settings (file {path})"

    @pytest.mark.parametrize("text", ["", "# nothing\n", "mongo:\n  # uri: mongodb://elsewhere\nfamilies:\n"])
    def test_empty_file_or_section_keeps_the_defaults(self, write: Write, text: str) -> None:
        """Also if all lines are commented out."""
        assert load(write(text)) == Settings()

    def test_empty_variable_keeps_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A compose file passes an unset variable as `ETL_MONGO__URI=`."""
        monkeypatch.setenv("ETL_MONGO__URI", "")
        assert load() == Settings()

    def test_settings_class_does_not_read_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only `load` does."""
        monkeypatch.setenv("ETL_HTTP__PORT", "1")
        assert Settings().http.port == 8088


class TestFamilies:
    """TTL and refresh interval of the families."""

    def test_setting_a_ttl_keeps_the_other_values(self, write: Write) -> None:
        """The refresh interval and the other families."""
        settings = load(write('families: {"mcp:server:status": {ttl: 600}}'))
        assert settings.families["mcp:server:status"].ttl == 600
        assert settings.families["mcp:server:status"].refresh_seconds == 240
        assert settings.families["config:api"].ttl == 3600

    def test_ttl_of_last_sync_is_two_cycles(self, write: Write) -> None:
        """Unless it is set."""
        assert load(write("schedule: {cycle_seconds: 60}")).families["etl:last_sync"].ttl == 120
        assert load(write('families: {"etl:last_sync": {ttl: 2000}}')).families["etl:last_sync"].ttl == 2000

    @pytest.mark.parametrize(
        ("family", "values", "expected"),
        [
            ("mcp:tol", "{ttl: 1}", "expected one of: mcp:tool, "),
            ("mcp:tool", "{tll: 1}", "unknown setting, did you mean ttl?"),
            ("mcp:tool", "{ttl: 0}", "greater than or equal to 1"),
            ("mcp:tool", "{ttl: null}", "an entry must not outlive its document"),
            ("mcp:tool", "1800", "expected a mapping of settings"),
            ("mcp:server:status", "{ttl: 240}", "must be less than its ttl (240)"),
            ("mcp:server:status", "{refresh_seconds: 300}", "must be less than its ttl (300)"),
            ("lock:content_generation", "{refresh_seconds: 5}", "cannot be warmed again"),
            ("queue:ai_generation", "{refresh_seconds: 5}", "cannot be warmed again"),
            ("queue:ai_generation", "{ttl: 60}", "lives until it is consumed"),
            ("etl:last_sync", "{ttl: 660}", "must be more than schedule.cycle_seconds (660)"),
        ],
    )
    def test_invalid_ttl_or_interval_is_refused(
        self, write: Write, family: str, values: str, expected: str
    ) -> None:
        """Alone or together; the line has the path of the family and the file."""
        path = write(f'families: {{"{family}": {values}}}')
        line = refusal(path)
        assert line.startswith(f"families.{family}")
        assert expected in line
        assert f"(file {path})" in line


class TestEffective:
    """The rows of `etl config`."""

    def test_every_value_has_its_source(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        """Default, file, variable or command line."""
        path = write('mongo: {database: d}\nfamilies: {"mcp:tool": {ttl: 60}}')
        monkeypatch.setenv("ETL_REDIS__URL", "redis://cache")
        shown = {entry.path: entry for entry in effective(load_with_origins(path, {"http": {"port": 9}}))}
        assert shown["mongo.database"].source == f"file {path}"
        assert shown["families.mcp:tool.ttl"].value == 60
        assert shown["families.mcp:tool.ttl"].source == f"file {path}"
        assert shown["families.config:api.ttl"].source == "default"
        assert shown["redis.url"].value == "redis://cache"
        assert shown["redis.url"].source == "environment ETL_REDIS__URL"
        assert shown["http.port"].source == "command line"
        assert shown["http.host"].source == "default"
        assert shown["collections.0.name"].value == "promptContent"
