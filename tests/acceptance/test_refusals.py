"""Errors are one clear line on stderr with the right exit code, and without passwords.

The commands run in this process; a process of its own would print the same.
"""

from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from urllib.parse import quote

import pytest
import redis
from pymongo.collection import Collection

from etl.demo import RedisServer
from tests.support.command import Etl, Result
from tests.support.daemons import key, provider
from tests.support.types import Document, StartMongo, StartRedis

SECRET = "hunter2"
SHORT_TIMEOUTS = {"ETL_RETRY__SECONDS": "0.5", "ETL_MONGO__TIMEOUT_SECONDS": "0.5"}


def line(result: Result, code: int) -> str:
    """The error, checked to be one line with this exit code and without password."""
    assert result.code == code, result
    assert SECRET not in result.out + result.err
    assert "Traceback" not in result.err
    assert result.problems.startswith("error: ")
    assert result.problems.count("\n") == 1
    return result.problems.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schedule: {cycle_seconds: often}", "schedule.cycle_seconds: expected a valid integer"),
        ("collections: [{name: a, overlap_seconds: -1}]", "collections.0.overlap_seconds: expected greater"),
        ("mongo: {url: 'mongodb://u:hunter2@h'}", "mongo.url: unknown setting, did you mean uri?"),
        ("mongo: ['mongodb://u:hunter2@h']", "mongo: expected a mapping"),
        ("mongo: {uri: 'mongodb://u:hunter2@h", "etl.yaml:2: "),
    ],
)
def test_invalid_settings_file_is_refused(
    etl_in_process: Etl, tmp_path: Path, text: str, expected: str
) -> None:
    """With file and path."""
    path = tmp_path / "etl.yaml"
    path.write_text(f"{text}\n")

    problem = line(etl_in_process("sync", "--config", "etl.yaml"), 2)

    assert expected in problem
    assert "etl.yaml" in problem


@pytest.mark.parametrize(
    "uri",
    [
        "http://u:hunter2@127.0.0.1",
        "mongodb://u:hunter2%zz@127.0.0.1",
        "mongodb://u:hunter2@127.0.0.1/?hunter2",
        "mongodb://u:x:hunter2@127.0.0.1",
    ],
)
def test_malformed_mongodb_uri_is_not_quoted(etl_in_process: Etl, uri: str) -> None:
    """Nor in the traceback of `--verbose`."""
    result = etl_in_process("sync", "--verbose", ETL_MONGO__URI=uri)

    assert result.code == 2
    assert SECRET not in result.out + result.err
    assert "mongo.uri: " in result.err.splitlines()[-1]


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@127.0.0.1",
        "redis://:hunter2@127.0.0.1:70000",
        "redis://127.0.0.1/0?socket_timeout=hunter2",
    ],
)
def test_malformed_redis_url_is_not_quoted(etl_in_process: Etl, url: str) -> None:
    """Nor in the traceback of `--verbose`."""
    result = etl_in_process("sync", "--verbose", ETL_REDIS__URL=url)

    assert result.code == 2, result
    assert SECRET not in result.out + result.err
    assert "redis.url: " in result.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "backfill promptContent --since 2025-01-02 --until 2025-01-01",
            "--since must be earlier than --until",
        ),
        (
            "backfill promptContent --since 2025-01-02 --until 2025-01-02",
            "--since must be earlier than --until",
        ),
        ("backfill promptContent --rate nan", "'nan' is no number"),
        ("backfill promptContent --rate inf", "is not in the range"),
        ("backfill promptContent --rate 1e-300", "is not in the range"),
        ("history --limit 99999999999999999999", "is not in the range"),
        (
            "config --set schedule=5 --set schedule.cycle_seconds=5",
            "schedule is given a value, so schedule.cycle_",
        ),
        (
            "config --set schedule.cycle_seconds=5 --set schedule=5",
            "schedule: expected a mapping of settings",
        ),
        ("config --set schedule..cycle_seconds=5", "expected PATH=VALUE"),
        ("config --set .=5", "expected PATH=VALUE"),
        ("config --set mongo.uri={{X}}", "the value of mongo.uri is not YAML"),
        (f"config --set mongo={'[' * 2000}", "the value of mongo is not YAML"),
    ],
)
def test_wrong_usage_is_refused(etl_in_process: Etl, words: str, expected: str) -> None:
    assert expected in line(etl_in_process(*words.split()), 2)


def test_unknown_redis_database_is_a_configuration_error(
    etl_in_process: Etl, redis_server: RedisServer
) -> None:
    """A retry would not help."""
    result = etl_in_process("show", "config:api", "x", ETL_REDIS__URL=f"redis://{redis_server.address}/9999")
    assert line(result, 2) == (
        f"Redis at {redis_server.address} has no such database: correct the number in redis.url"
    )


def test_redis_in_protected_mode_is_a_configuration_error(etl_in_process: Etl) -> None:
    """Redis answers with 900 characters and closes the connection."""
    denied = b"-DENIED Redis is running in protected mode because " + b"1) Just disable it " * 50

    class ProtectedServer(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(denied + b"\r\n")
            self.rfile.read()  # until the client closes: with bytes unread its side would be reset

    with ThreadingTCPServer(("127.0.0.1", 0), ProtectedServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        result = etl_in_process(
            "show", "config:api", "x", ETL_REDIS__URL=f"redis://{address}", **SHORT_TIMEOUTS
        )
        server.shutdown()
    assert line(result, 2) == (
        f"Redis at {address} is in protected mode and answers its own machine only:"
        " set requirepass or protected-mode no"
    )


def test_redis_over_a_unix_socket(
    etl_in_process: Etl, start_redis: StartRedis, collection: Collection[Document], tmp_path: Path
) -> None:
    """With database and password; and a missing socket."""
    path = tmp_path / "redis.sock"
    start_redis(password=SECRET, args=("--unixsocket", str(path)))
    collection.insert_one(provider(0))
    url = f"unix://:{SECRET}@{path}?db=1"
    assert etl_in_process("sync", ETL_REDIS__URL=url).code == 0
    assert "status" in etl_in_process("show", "config:api", "p0", ETL_REDIS__URL=url).out
    with redis.Redis(unix_socket_path=str(path), password=SECRET, db=1) as client:
        assert client.exists(key(0))
    problem = line(
        etl_in_process("show", "config:api", "p0", ETL_REDIS__URL="unix:///none.sock", **SHORT_TIMEOUTS), 1
    )
    assert problem.startswith("Redis at /none.sock does not answer: ")


@pytest.mark.parametrize("option", ["readPreference=hunter2", "hunter2=hunter2", "maxPoolSize=hunter2"])
def test_invalid_uri_option_is_not_quoted(etl_in_process: Etl, option: str) -> None:
    """The message of the driver might quote it."""
    result = etl_in_process(
        "sync", **SHORT_TIMEOUTS, ETL_MONGO__URI=f"mongodb://u:hunter2@127.0.0.1:1/?{option}"
    )

    assert result.code in {1, 2}
    line(result, result.code)


@pytest.mark.parametrize(
    ("setting", "scheme", "option"),
    [
        ("ETL_REDIS__URL", "rediss", "ssl_ca_certs=FILE"),
        ("ETL_REDIS__URL", "rediss", "ssl_certfile=FILE"),
        ("ETL_REDIS__URL", "rediss", "ssl_ca_path=FILE"),
        ("ETL_MONGO__URI", "mongodb", "tls=true&tlsCAFile=FILE"),
        ("ETL_MONGO__URI", "mongodb", "tls=true&tlsCertificateKeyFile=FILE"),
    ],
)
@pytest.mark.parametrize("text", [None, "no certificate"], ids=["missing", "of something else"])
def test_unusable_certificate_is_named(
    etl_in_process: Etl, tmp_path: Path, setting: str, scheme: str, option: str, text: str | None
) -> None:
    """The error is not reported as an outage."""
    file = tmp_path / "file.pem"
    if text is not None:
        file.write_text(text)
    uri = f"{scheme}://127.0.0.1:1/?{option.replace('FILE', str(file))}"
    problem = line(etl_in_process("sync", **SHORT_TIMEOUTS, **{setting: uri}), 2)
    assert str(file) in problem
    assert problem.startswith({"ETL_REDIS__URL": "redis.url: ", "ETL_MONGO__URI": "mongo.uri: "}[setting])
    assert "does not answer" not in problem


def test_unknown_cipher_is_named(etl_in_process: Etl) -> None:
    """The error is not reported as an outage."""
    url = "rediss://127.0.0.1:1/0?ssl_ciphers=none-such"
    assert (
        line(etl_in_process("sync", ETL_REDIS__URL=url), 2)
        == "redis.url: ssl_ciphers: OpenSSL knows no such cipher"
    )


def test_wrong_mongodb_password_is_a_configuration_error(
    etl_in_process: Etl, start_mongod: StartMongo
) -> None:
    """With address and setting; a retry would not help."""
    server = start_mongod(password="correct")
    uri = server.uri.replace("correct", SECRET)

    problem = line(etl_in_process("sync", ETL_MONGO__URI=uri), 2)

    assert server.address in problem
    assert "mongo.uri" in problem
    assert "correct" not in problem


def test_missing_mongodb_password_is_a_configuration_error(
    etl_in_process: Etl, start_mongod: StartMongo
) -> None:
    """It is not reported as an outage."""
    server = start_mongod(password=SECRET)

    assert server.address in line(etl_in_process("sync", ETL_MONGO__URI=f"mongodb://{server.address}/"), 2)


@pytest.mark.parametrize("password", ["wr0ng hunter2", ""])
def test_wrong_or_missing_redis_password_is_a_configuration_error(
    etl_in_process: Etl, start_redis: StartRedis, password: str
) -> None:
    """With address and setting."""
    server = start_redis(password="correct")
    url = f"redis://:{quote(password)}@{server.address}/0" if password else f"redis://{server.address}/0"

    problem = line(etl_in_process("sync", ETL_REDIS__URL=url), 2)

    assert server.address in problem
    assert "redis.url" in problem


@pytest.mark.parametrize(
    "variables",
    [
        {"ETL_MONGO__URI": "mongodb://u:hunter2@127.0.0.1:1/"},
        {"ETL_REDIS__URL": "redis://:hunter2@127.0.0.1:1/0"},
    ],
    ids=["mongodb", "redis"],
)
def test_unreachable_server_fails_after_the_retries(etl_in_process: Etl, variables: dict[str, str]) -> None:
    """With address, reason and exit code 1."""
    problem = line(etl_in_process("sync", **SHORT_TIMEOUTS, **variables), 1)

    assert "127.0.0.1:1" in problem
    assert "refused" in problem


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize("command", [("show", "config:api", "x"), ("refresh", "config:api")])
def test_commands_without_redis_fail_in_one_line(etl_in_process: Etl, command: tuple[str, ...]) -> None:
    result = etl_in_process(*command, **SHORT_TIMEOUTS, ETL_REDIS__URL="redis://:hunter2@127.0.0.1:1/0")

    assert "127.0.0.1:1" in line(result, 1)


def test_refresh_without_mongodb_fails_in_one_line(etl_in_process: Etl) -> None:
    result = etl_in_process(
        "refresh", "config:api", **SHORT_TIMEOUTS, ETL_MONGO__URI="mongodb://u:hunter2@127.0.0.1:1/"
    )

    assert "127.0.0.1:1" in line(result, 1)


def test_unknown_collection_is_refused_with_the_known_ones(etl_in_process: Etl) -> None:
    assert "promptContent" in line(etl_in_process("sync", "promtContent"), 2)


@pytest.mark.parametrize("command", ["show", "refresh"])
def test_unknown_family_is_refused_with_the_known_ones(etl_in_process: Etl, command: str) -> None:
    assert "config:api" in line(etl_in_process(command, "config:apy", "x"), 2)


def test_absent_key_is_named(etl_in_process: Etl) -> None:
    assert "config:api:nobody" in line(etl_in_process("show", "config:api", "nobody"), 1)


def test_failure_with_json_is_one_document(etl_in_process: Etl) -> None:
    failed = etl_in_process("sync", "--json", **SHORT_TIMEOUTS, ETL_MONGO__URI="mongodb://127.0.0.1:1/")
    assert failed.json["collections"][0]["status"] == "failed"
    assert "127.0.0.1:1" in failed.json["collections"][0]["error"]
    assert "http.port" in etl_in_process("sync", "--json", ETL_HTTP__PORT="x").json["error"]


def test_successful_commands_print_no_password(etl_in_process: Etl, start_redis: StartRedis) -> None:
    """Not even with `--verbose`."""
    server = start_redis(password=SECRET)

    for command in (("config",), ("config", "--json"), ("sync", "--verbose")):
        result = etl_in_process(*command, ETL_REDIS__URL=server.url)
        assert result.code == 0
        assert SECRET not in result.out + result.err
