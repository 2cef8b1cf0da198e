from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.settings import Settings, load
from tests.unit.settings.files import Write, refusal


class TestRefusals:
    """Invalid settings and their error messages."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "collections: [{name: a, overlap_seconds: -1}]",
                "collections.0.overlap_seconds: expected greater",
            ),
            (
                "collections: [{name: a, overlap_seconds: soon}]",
                "collections.0.overlap_seconds: expected a valid",
            ),
            (
                "collections: [{name: a, overlap_seconds: true}]",
                "collections.0.overlap_seconds: expected a number",
            ),
            ("collections: [{name: a}, {name: a}]", "collections.1.name: collections.0 has this name too"),
            ("collections: [{tipo: generacion}]", "collections.0.name: required, but not given"),
            ("collections: [{name: a, tipo: otro}]", "collections.0.tipo: expected one of: generacion, "),
            (
                "collections: [{name: a, cold_start: warm}]",
                "collections.0.cold_start: expected 'full', 'recent' or",
            ),
            ("collections: []", "collections: "),
            ("collections: promptContent", "collections: expected"),
            ("schedule: {cycle_seconds: [660]}", "schedule.cycle_seconds: expected a valid integer"),
            ("schedule: 660", "schedule: expected a mapping of settings"),
            ("shedule: {cycle_seconds: 1}", "shedule: unknown setting, did you mean schedule?"),
            ("mongo: {url: x}", "mongo.url: unknown setting, did you mean uri?"),
            ("mongo: {timeout_seconds: .nan}", "mongo.timeout_seconds: expected "),
            ("mongo: {database: a.b}", "mongo.database: "),
            ("http: {port: 70000}", "http.port: expected less than or equal to 65535"),
            ("5: x", "5: unknown setting"),
            (
                "redis: {sentinel: {service: a, nodes: ['b:1'], nodez: 1}}",
                "redis.sentinel.nodez: unknown setting, did",
            ),
            (
                "redis: {sentinel: {service: a, nodes: [b]}}",
                "redis.sentinel.nodes.0: expected text that matches",
            ),
            (
                "families: {'config:api': {tll: 5}}",
                "families.config:api.tll: unknown setting, did you mean ttl?",
            ),
            (
                "collections: [{name: a, pagesize: 5}]",
                "collections.0.pagesize: unknown setting, did you mean page_",
            ),
            ("2025-01-01: x", "2025-01-01: unknown setting"),
            ("collections: {name: a}", "collections: expected a list"),
            (
                "redis: {timeout_seconds: 1e+300}",
                "redis.timeout_seconds: expected less than or equal to 86400",
            ),
            ("mongo: {timeout_seconds: 1e+6}", "mongo.timeout_seconds: expected less than or equal to 86400"),
            ("retry: {seconds: 1e+300}", "retry.seconds: expected less than or equal to 86400"),
            ("lease: {seconds: 100000}", "lease.seconds: expected less than or equal to 86400"),
            (
                "collections: [{name: a, overlap_seconds: 1000000000000000000000}]",
                "collections.0.overlap_seconds: expected less than or equal to 3153600000",
            ),
            (
                "families: {'config:api': {ttl: 100000000000000000}}",
                "families.config:api.ttl: expected less than or equal to 3153600000",
            ),
            (
                "schedule: {cycle_seconds: 10000000000}",
                "schedule.cycle_seconds: expected less than or equal to ",
            ),
            (
                "reconcile: {interval_seconds: 10000000000}",
                "reconcile.interval_seconds: expected less than or ",
            ),
            ("namespace: {x: 1}", "namespace: expected a valid string"),
            ("namespace: a b", "namespace: "),
        ],
    )
    def test_invalid_value_in_a_file_is_refused_by_path(self, write: Write, text: str, expected: str) -> None:
        """The line has path, expectation and file."""
        path = write(text)
        line = refusal(path)
        assert line.startswith(expected)
        assert line.endswith(f"(file {path})")

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            (
                "ETL_MONGO__URL",
                "x",
                "mongo.url: unknown setting, did you mean uri? (environment ETL_MONGO__URL)",
            ),
            ("ETL_HTTP__PORT", "x", "(environment ETL_HTTP__PORT)"),
            (
                "ETL_REDIS_URL",
                "x",
                "environment ETL_REDIS_URL: unknown setting, did you mean ETL_REDIS__URL?",
            ),
            ("ETL_MONGOO__URI", "x", "did you mean ETL_MONGO__URI?"),
            ("ETL_NAMESPACE__X", "x", "environment ETL_NAMESPACE__X: unknown setting"),
            ("ETL_COLLECTIONS", "promptContent", "environment ETL_COLLECTIONS: expected JSON"),
            ("ETL_REDIS__SENTINEL__NODES", "a:1", "environment ETL_REDIS__…: expected JSON"),
        ],
    )
    def test_invalid_variable_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
    ) -> None:
        """With the nearest variable that exists."""
        monkeypatch.setenv(name, value)
        assert expected in refusal()

    @pytest.mark.parametrize(
        "name", ["ETL_SERVICE_HOST", "ETL_PORT_8088_TCP", "ETL_REDIS_SERVICE_HOST", "ETLX"]
    )
    def test_variables_of_other_programs_are_ignored(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """Kubernetes sets some of them for services called `etl` or `etl-redis`."""
        monkeypatch.setenv(name, "10.0.0.1")
        assert load() == Settings()

    def test_all_problems_are_reported_together(self, write: Write) -> None:
        line = refusal(write("http: {port: x}\nmongo: {url: y}"))
        assert "mongo.url: " in line
        assert "http.port: " in line

    @pytest.mark.parametrize("text", ["collections: [{name: 5}]", "collections: [{nome: a}, 5]"])
    def test_problems_caused_by_others_are_not_reported(self, write: Write, text: str) -> None:
        """A list with invalid items is not reported as too short."""
        assert "at least 1 item" not in refusal(write(text))

    def test_invalid_option_is_attributed_to_the_command_line(self) -> None:
        assert refusal(http={"port": -1}).endswith("(command line)")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("mongo:\n  uri: [\n", "etl.yaml:3: "),
            ("mongo:\n\turi: x\n", "etl.yaml:2: "),
            ("http:\n  port: 1\n  port: 2\n", "etl.yaml:3: port is set twice"),
            ("just text", "expected settings, such as"),
            ("- a\n- b\n", "expected settings, such as"),
            ("mongo: *hunter2", "etl.yaml:1: found undefined alias '…'"),
            (
                "mongo:\n  uri: {{ MONGO_URI }}",
                "etl.yaml:2: expected the name of a setting; what begins with {",
            ),
            ("mongo:\n  ? [a, b]\n  : c", "etl.yaml:2: expected the name of a setting"),
            ("? {a: b}\n: c", "etl.yaml:1: expected the name of a setting"),
            ("mongo: &a {uri: *a}", "etl.yaml:1: not valid YAML, or nested too deeply"),
            ("mongo: " + "[" * 2000, "etl.yaml:1: not valid YAML, or nested too deeply"),
            ("mongo: " + "{a: " * 900 + "1" + "}" * 900, "etl.yaml:1: not valid YAML, or nested too deeply"),
        ],
    )
    def test_invalid_yaml_is_refused_by_line(self, write: Write, text: str, expected: str) -> None:
        """With file name and line; the message quotes nothing."""
        assert expected in refusal(write(text))

    def test_unreadable_file_is_refused(self, tmp_path: Path) -> None:
        """A missing file, a directory, or a file that is no UTF-8."""
        assert "No such file" in refusal(tmp_path / "none.yaml")
        assert "directory" in refusal(tmp_path)
        (tmp_path / "latin1.yaml").write_bytes(b"mongo: {database: caf\xe9}")
        assert "expected UTF-8 text" in refusal(tmp_path / "latin1.yaml")

    def test_unknown_collection_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(
            ConfigurationError, match="unknown collection 'x'; the settings name: promptContent"
        ):
            Settings().collection("x")
