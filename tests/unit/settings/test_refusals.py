from pathlib import Path

import pytest

from etl.errors import ConfigurationError
from etl.settings import Settings, load
from tests.unit.settings.files import Write, refusal


class TestRefusals:
    """What is refused, and in which words."""

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
    def test_a_wrong_file_is_refused_by_path(self, write: Write, text: str, expected: str) -> None:
        """The line names the key's path, what is expected and the file."""
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
    def test_a_wrong_variable_is_refused_by_name(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
    ) -> None:
        """The line names the variable, and the nearest one that exists."""
        monkeypatch.setenv(name, value)
        assert expected in refusal()

    @pytest.mark.parametrize(
        "name", ["ETL_SERVICE_HOST", "ETL_PORT_8088_TCP", "ETL_REDIS_SERVICE_HOST", "ETLX"]
    )
    def test_variables_of_others_are_left_alone(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """What Kubernetes sets for services called `etl` or `etl-redis` stops nothing."""
        monkeypatch.setenv(name, "10.0.0.1")
        assert load() == Settings()

    def test_every_problem_is_named_at_once(self, write: Write) -> None:
        """Two mistakes are told in one line, not in two attempts."""
        line = refusal(write("http: {port: x}\nmongo: {url: y}"))
        assert "mongo.url: " in line
        assert "http.port: " in line

    @pytest.mark.parametrize("text", ["collections: [{name: 5}]", "collections: [{nome: a}, 5]"])
    def test_what_follows_from_a_problem_is_none(self, write: Write, text: str) -> None:
        """A list whose items are wrong is not too short besides."""
        assert "at least 1 item" not in refusal(write(text))

    def test_the_command_line_is_named(self) -> None:
        """A wrong value typed with the command is reported as such."""
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
    def test_no_yaml_is_refused_by_line(self, write: Write, text: str, expected: str) -> None:
        """A file that cannot be read as settings is refused with its name and line, quoting nothing."""
        assert expected in refusal(write(text))

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        """A file that was asked for by name must exist, be a file and be text."""
        assert "No such file" in refusal(tmp_path / "none.yaml")
        assert "directory" in refusal(tmp_path)
        (tmp_path / "latin1.yaml").write_bytes(b"mongo: {database: caf\xe9}")
        assert "expected UTF-8 text" in refusal(tmp_path / "latin1.yaml")

    def test_an_unknown_collection_is_refused_with_the_known_ones(self) -> None:
        """Asking for a collection that no settings name tells which ones they do."""
        with pytest.raises(
            ConfigurationError, match="unknown collection 'x'; the settings name: promptContent"
        ):
            Settings().collection("x")
