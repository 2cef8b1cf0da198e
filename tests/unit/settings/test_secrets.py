import pytest

from etl.settings import effective, load, load_with_origins, masked
from tests.unit.settings.files import Write, refusal

SECRET = "hunter2"


class TestSecrets:
    """Passwords appear in no message."""

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
    def test_malformed_mongodb_uri_is_refused_without_quoting_it(
        self, write: Write, monkeypatch: pytest.MonkeyPatch, uri: str
    ) -> None:
        """The error has path and source."""
        path = write(f"mongo: {{uri: '{uri}'}}")
        line = refusal(path)
        assert line.startswith("mongo.uri: ")
        assert str(path) in line
        assert SECRET not in line
        monkeypatch.setenv("ETL_MONGO__URI", uri)
        line = refusal()
        assert "environment ETL_MONGO__URI" in line
        assert SECRET not in line

    @pytest.mark.parametrize("place", ["/?appName=@x@", "/db?appName=a@b&w=1", "?appName=@"])
    def test_value_of_a_uri_option_may_contain_an_at_sign(self, write: Write, place: str) -> None:
        uri = f"mongodb://app:{SECRET}@db{place}"
        assert load(write(f"mongo: {{uri: '{uri}'}}")).mongo.uri.get_secret_value() == uri

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
    def test_invalid_variable_is_not_quoted(
        self, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
    ) -> None:
        """It may be a secret in the wrong place."""
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
    def test_well_formed_mongodb_uris_are_accepted(self, uri: str) -> None:
        """Replica sets, SRV, options, escapes and IPv6."""
        assert load(None, {"mongo": {"uri": uri}}).mongo.uri.get_secret_value() == uri

    @pytest.mark.parametrize(
        "url",
        [
            "redis://:pass@host/1",
            "rediss://u:p@host:6380",
            "unix:///run/redis.sock?db=1",
            "unix://u:p%40ss@/run/redis.sock?client_name=x",
            "redis://h?db=3&socket_timeout=2.5&socket_keepalive=False&health_check_interval=30",
            "rediss://h/0?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=False",
        ],
    )
    def test_well_formed_redis_urls_are_accepted(self, url: str) -> None:
        """Passwords without user, TLS, sockets and options."""
        assert load(None, {"redis": {"url": url}}).redis.url.get_secret_value() == url

    @pytest.mark.parametrize(
        "url", ["redis://:hunter2@h/hunter2", "redis://:hunt/hunter2@h", "redis://:hunter2@h:p"]
    )
    def test_malformed_redis_url_is_refused_without_quoting_it(self, url: str) -> None:
        """The driver would read some of these as another database or password."""
        line = refusal(redis={"url": url})
        assert line.startswith("redis.url: ")
        assert SECRET not in line

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("redis://h/0?protocol=3", "leave protocol out: the ETL decides it"),
            ("redis://h/0?decode_responses=False", "leave decode_responses out"),
            ("redis://h?max_connections=1", "leave max_connections out"),
            ("redis://h?sockettimeout=5", "an option after the ? is unknown, did you mean socket_timeout?"),
            ("redis://h?hunter2", "an option after the ? is unknown, expected one of: db, username, "),
            ("redis://h?hunter2=1", "an option after the ? is unknown, expected one of: db, username, "),
            ("redis://h?ssl_cert_reqs=none", "options that begin with ssl_ go with rediss://"),
            ("rediss://h?ssl_cert_reqs=hunter2", "the option ssl_cert_reqs has a wrong value, or none"),
            ("rediss://h?ssl_hunter2=1", "an option after the ? is unknown, "),
            ("rediss://h?ssl_min_version=99", "the option ssl_min_version has a wrong value, or none"),
            ("redis://h?socket_timeout=nan", "the option socket_timeout has a wrong value, or none"),
            ("redis://h?socket_timeout=0", "the option socket_timeout takes more than 0 and at most 86400"),
            (
                "redis://h?socket_timeout=1000000",
                "the option socket_timeout takes more than 0 and at most 86400",
            ),
            ("redis://h?db=-1", "the option db has a wrong value, or none"),
            ("redis://h?db=", "the option db has a wrong value, or none"),
            ("redis://h?password", "the option password has a wrong value, or none"),
            ("redis://h/99999999999999999999", "with a number as the database"),
            ("redis://h:0", "with a number as the port"),
            ("redis://h:99999/0", "with a number as the port"),
            (
                "unix:///tmp/x?socket_connect_timeout=5",
                "an option after the ? is unknown, did you mean socket_timeout",
            ),
            ("unix://tmp/x", "expected unix:///path/to/redis.sock?db=0, with three slashes"),
            ("unix:///", "expected unix:///path/to/redis.sock?db=0, with three slashes"),
            ("unix:///hunt@hunter2", "must be percent-encoded"),
        ],
    )
    def test_unsupported_redis_url_options_are_refused(self, url: str, expected: str) -> None:
        """Options that would change the replies or have no effect. The message names no value."""
        line = refusal(redis={"url": url})
        assert line.startswith(f"redis.url: {expected}") or expected in line
        assert SECRET not in line

    def test_settings_are_printed_without_secrets(self) -> None:
        """By `repr`, `str`, and in the effective settings."""
        given = {"mongo": {"uri": f"mongodb://app:{SECRET}@db"}, "redis": {"url": f"redis://:{SECRET}@cache"}}
        loaded = load_with_origins(None, given)
        shown = repr(loaded) + str(loaded.settings) + repr(effective(loaded))
        assert SECRET not in shown
        assert "mongodb://app:***@db" in shown

    def test_password_setting_is_printed_as_stars(self) -> None:
        sentinel = {"service": "main", "nodes": ["a:26379"], "username": "app", "password": SECRET}
        loaded = load_with_origins(None, {"redis": {"sentinel": sentinel}})
        shown = {one.path: one.value for one in effective(loaded)}
        assert (shown["redis.sentinel.username"], shown["redis.sentinel.password"]) == ("app", "***")
        assert SECRET not in repr(shown) + repr(loaded)

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
    def test_masked_removes_passwords_and_tokens(self, uri: str, shown: str) -> None:
        """User, host, database and harmless options stay visible."""
        assert masked(uri) == shown
