from pathlib import Path
from typing import Protocol

import pytest

from etl.errors import Misconfigured
from etl.settings import Settings, effective, load, load_with_origins, masked


class Write(Protocol):
    """What the fixture `write` is."""

    def __call__(self, text: str, name: str = "etl.yaml") -> Path:
        """Write a settings file; its path."""


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable and no file but those of the test."""
    for name in ("ETL_CONFIG", "ETL_MONGO__URI", "ETL_REDIS__URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A settings file in the test's own folder."""

    def write_file(text: str, name: str = "etl.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


def refusal(path: Path | None = None, **overrides: object) -> str:
    """The one line that refuses these settings."""
    with pytest.raises(Misconfigured) as refused:
        load(path, overrides)
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return line


class TestOrder:
    """Which of four places a value is taken from."""

    def test_defaults_are_those_of_the_design(self) -> None:
        """With nothing given, every default is the documented one."""
        settings = load()
        assert settings.mongo.uri.get_secret_value() == "mongodb://localhost:27017"
        assert settings.redis.url.get_secret_value() == "redis://localhost:6379/0"
        assert settings.schedule.cycle_seconds == 660
        assert [collection.name for collection in settings.collections] == ["promptContent"]
        assert settings.collection("promptContent").overlap_seconds == 120
        assert settings.ttl("mcp:tool") == 1800
        assert settings.families["mcp:server:status"].refresh_seconds == 240
        assert settings.ttl("queue:ai_generation") is None
        assert settings.longest_ttl() == 10800

    def test_each_level_overrides_the_one_below(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        """Command line over environment over file over default, value by value."""
        path = write("mongo: {database: from_file, timeout_seconds: 3}\nhttp: {port: 1}\nlease: {seconds: 7}")
        monkeypatch.setenv("ETL_MONGO__DATABASE", "from_environment")
        monkeypatch.setenv("ETL_HTTP__PORT", "2")
        settings = load(path, {"http": {"port": 3}})
        assert settings.mongo.database == "from_environment"
        assert settings.http.port == 3
        assert settings.lease.seconds == 7
        assert settings.mongo.timeout_seconds == 3
        assert settings.retry.seconds == 20

    def test_the_file_is_searched_in_three_places(
        self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`--config` comes before `ETL_CONFIG`, and that before config/etl.yaml in the current folder."""
        (tmp_path / "config").mkdir()
        write("http: {port: 1}", "config/etl.yaml")
        assert load().http.port == 1
        monkeypatch.setenv("ETL_CONFIG", str(write("http: {port: 2}", "variable.yaml")))
        assert load().http.port == 2
        assert load(write("http: {port: 3}", "option.yaml")).http.port == 3

    def test_collections_come_from_the_environment_as_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A list is replaced as a whole, by a JSON variable."""
        monkeypatch.setenv("ETL_COLLECTIONS", '[{"name": "a"}, {"name": "b", "tipo": "cliente_mcp"}]')
        assert [(c.name, c.tipo) for c in load().collections] == [("a", "generacion"), ("b", "cliente_mcp")]

    def test_a_list_of_the_file_is_hidden_by_one_of_the_environment(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing of the file's collections shines through, neither as value nor as source."""
        path = write("collections: [{name: a, page_size: 7}, {name: b}]")
        monkeypatch.setenv("ETL_COLLECTIONS", '[{"name": "c"}]')
        loaded = load_with_origins(path, {})
        assert [(c.name, c.page_size) for c in loaded.settings.collections] == [("c", 500)]
        assert loaded.origins.of(("collections", 0, "page_size")) == "default"
        assert loaded.origins.of(("collections", 0, "name")) == "environment ETL_COLLECTIONS"

    def test_a_wrong_section_is_not_hidden(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        """`mongo: ADDRESS` in a file is refused, also where a variable gives some value of `mongo`."""
        path = write("mongo: mongodb://somewhere")
        monkeypatch.setenv("ETL_MONGO__DATABASE", "d")
        assert refusal(path) == f"mongo: expected a mapping of settings (file {path})"

    @pytest.mark.parametrize("text", ["", "# nothing\n", "mongo:\n  # uri: mongodb://elsewhere\nfamilies:\n"])
    def test_what_is_left_empty_is_not_given(self, write: Write, text: str) -> None:
        """A file whose lines are commented out leaves the defaults."""
        assert load(write(text)) == Settings()

    def test_an_empty_variable_is_not_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`ETL_MONGO__URI=` leaves the default, as a compose file with an unset variable would."""
        monkeypatch.setenv("ETL_MONGO__URI", "")
        assert load() == Settings()

    def test_settings_themselves_read_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only `load` looks at the environment; a `Settings` made in a program or a test does not."""
        monkeypatch.setenv("ETL_HTTP__PORT", "1")
        assert Settings().http.port == 8088


class TestFamilies:
    """How long the entries of a family live."""

    def test_one_value_keeps_the_others(self, write: Write) -> None:
        """Setting a family's `ttl` keeps its refresh interval, and the other families."""
        settings = load(write('families: {"mcp:server:status": {ttl: 600}}'))
        assert settings.families["mcp:server:status"].ttl == 600
        assert settings.families["mcp:server:status"].refresh_seconds == 240
        assert settings.ttl("config:api") == 3600

    def test_the_published_position_lives_two_cycles(self, write: Write) -> None:
        """`etl:last_sync` follows the cycle, unless it is set."""
        assert load(write("schedule: {cycle_seconds: 60}")).ttl("etl:last_sync") == 120
        assert load(write('families: {"etl:last_sync": {ttl: 2000}}')).ttl("etl:last_sync") == 2000

    @pytest.mark.parametrize(
        ("family", "life", "expected"),
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
    def test_nonsense_is_refused(self, write: Write, family: str, life: str, expected: str) -> None:
        """What cannot be, or cannot be together, is refused with the family's path and the file."""
        path = write(f'families: {{"{family}": {life}}}')
        line = refusal(path)
        assert line.startswith(f"families.{family}")
        assert expected in line
        assert f"(file {path})" in line


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
            ("mongo: {timeout_seconds: .inf}", "mongo.timeout_seconds: expected a finite number"),
            ("mongo: {database: a.b}", "mongo.database: "),
            ("http: {port: 70000}", "http.port: expected less than or equal to 65535"),
            ("5: x", "5: unknown setting"),
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
            ("ETL_COLLECTIONS", "promptContent", "environment ETL_COLLECTIONS: expected JSON"),
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
        with pytest.raises(Misconfigured, match="unknown collection 'x'; the settings name: promptContent"):
            Settings().collection("x")


SECRET = "hunter2"


class TestSecrets:
    """Passwords stay where they are."""

    @pytest.mark.parametrize(
        "uri",
        [
            "mongo://app:hunter2@db",
            "app:hunter2@db",
            "hunter2",
            "mongodb://app:hunter2",
            "mongodb://app:hunt/hunter2@db",
            "mongodb://app:x@hunter2@db",
            "mongodb://app:x?hunter2@db",
            "mongodb://app:x#hunter2@db",
            "mongodb://app:hunter2@db:port",
            "mongodb://",
        ],
    )
    def test_a_malformed_address_is_refused_without_quoting_it(
        self, write: Write, monkeypatch: pytest.MonkeyPatch, uri: str
    ) -> None:
        """However a URI is broken, the refusal names its path and source and nothing of its value."""
        path = write(f"mongo: {{uri: '{uri}'}}")
        line = refusal(path)
        assert line.startswith("mongo.uri: ")
        assert str(path) in line
        assert SECRET not in line
        monkeypatch.setenv("ETL_MONGO__URI", uri)
        line = refusal()
        assert "environment ETL_MONGO__URI" in line
        assert SECRET not in line

    @pytest.mark.parametrize(
        "variable",
        [
            ("ETL_MONGO", "hunter2"),
            ("ETL_MONGO", '{"uri": "hunter2'),
            ("ETL_MONGO", '{"uri": ["hunter2"]}'),
            ("ETL_MONGO", '["hunter2"]'),
            ("ETL_COLLECTIONS", "hunter2"),
            ("ETL_REDIS__URL", "http://hunter2"),
        ],
    )
    def test_no_refusal_quotes_a_variable(
        self, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
    ) -> None:
        """A secret in the wrong place or shape is not repeated either."""
        monkeypatch.setenv(*variable)
        line = refusal()
        assert SECRET not in line
        assert variable[0] in line

    @pytest.mark.parametrize(
        "uri",
        [
            "mongodb://localhost",
            "mongodb://app:p%40ss@a:27017,b:27018/db?replicaSet=rs0&tls=true",
            "mongodb+srv://app:pass@cluster0.example.net/?retryWrites=true",
            "mongodb://[::1]:27017",
        ],
    )
    def test_well_formed_addresses_pass(self, uri: str) -> None:
        """Replica sets, SRV, options, escapes and IPv6 are all accepted."""
        assert load(None, {"mongo": {"uri": uri}}).mongo.uri.get_secret_value() == uri

    @pytest.mark.parametrize(
        "url", ["redis://:pass@host/1", "rediss://u:p@host:6380", "unix:///run/redis.sock?db=1"]
    )
    def test_well_formed_redis_addresses_pass(self, url: str) -> None:
        """Passwords without user, TLS and sockets are all accepted."""
        assert load(None, {"redis": {"url": url}}).redis.url.get_secret_value() == url

    @pytest.mark.parametrize(
        "url", ["redis://:hunter2@h/hunter2", "redis://:hunt/hunter2@h", "redis://:hunter2@h:p"]
    )
    def test_a_malformed_redis_address_is_refused(self, url: str) -> None:
        """The driver would take some of these for another database or another password."""
        line = refusal(redis={"url": url})
        assert line.startswith("redis.url: ")
        assert SECRET not in line

    def test_a_representation_shows_no_secret(self) -> None:
        """Neither `repr` nor `str` nor the effective settings hold the password."""
        given = {"mongo": {"uri": f"mongodb://app:{SECRET}@db"}, "redis": {"url": f"redis://:{SECRET}@cache"}}
        loaded = load_with_origins(None, given)
        shown = repr(loaded) + str(loaded.settings) + repr(effective(loaded))
        assert SECRET not in shown
        assert "mongodb://app:***@db" in shown

    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            (
                "mongodb://app:hunter2@db:27017/x?authSource=admin",
                "mongodb://app:***@db:27017/x?authSource=admin",
            ),
            ("mongodb://app:a@b/c@db", "mongodb://app:***@db"),
            ("redis://:hunter2@host:6379/0", "redis://:***@host:6379/0"),
            ("redis://hunter2@host", "redis://***@host"),
            ("redis://host?password=hunter2&db=1", "redis://host?password=***&db=1"),
            (
                "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:x",
                "mongodb://h/?authMechanismProperties=***",
            ),
            ("mongodb://localhost:27017", "mongodb://localhost:27017"),
        ],
    )
    def test_an_address_is_shown_without_its_password(self, uri: str, shown: str) -> None:
        """User, host, database and harmless options stay visible; passwords and tokens do not."""
        assert masked(uri) == shown


class TestEffective:
    """What `etl config` has to tell."""

    def test_every_value_has_its_source(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        """The effective settings tell default, file, variable and command line apart, value by value."""
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
