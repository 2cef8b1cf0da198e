"""Whatever is wrong: one clear line on stderr, the right exit code, the password nowhere.

What is refused before any server is asked is typed in this process; a process of its own would say the same.
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
IMPATIENT = {"ETL_RETRY__SECONDS": "0.5", "ETL_MONGO__TIMEOUT_SECONDS": "0.5"}


def line(result: Result, code: int) -> str:
    """The error, after checking that it is one line, has its exit code, and holds no password."""
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
def test_a_wrong_file(typed: Etl, tmp_path: Path, text: str, expected: str) -> None:
    """Types, contradictions, unknown names and broken YAML are told with file and path."""
    path = tmp_path / "etl.yaml"
    path.write_text(f"{text}\n")

    problem = line(typed("sync", "--config", "etl.yaml"), 2)

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
def test_a_malformed_mongodb_uri(typed: Etl, uri: str) -> None:
    """It is refused without being quoted, in the traceback of `--verbose` neither."""
    result = typed("sync", "--verbose", ETL_MONGO__URI=uri)

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
def test_a_malformed_redis_url(typed: Etl, url: str) -> None:
    """It is refused without being quoted, in the traceback of `--verbose` neither."""
    result = typed("sync", "--verbose", ETL_REDIS__URL=url)

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
def test_wrong_usage(typed: Etl, words: str, expected: str) -> None:
    """One line and exit code 2, nothing unforeseen and no raw error of a server."""
    assert expected in line(typed(*words.split()), 2)


def test_a_database_that_redis_does_not_have(typed: Etl, redis_server: RedisServer) -> None:
    """It is a setting that is wrong: trying again would not help."""
    result = typed("show", "config:api", "x", ETL_REDIS__URL=f"redis://{redis_server.address}/9999")
    assert line(result, 2) == (
        f"Redis at {redis_server.address} has no such database: correct the number in redis.url"
    )


def test_a_redis_without_a_password_on_another_machine(typed: Etl) -> None:
    """Redis itself answers with 900 characters and closes the connection."""
    denied = b"-DENIED Redis is running in protected mode because " + b"1) Just disable it " * 50

    class Denying(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(denied + b"\r\n")
            self.rfile.read()  # until the client closes: with bytes unread its side would be reset

    with ThreadingTCPServer(("127.0.0.1", 0), Denying) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        result = typed("show", "config:api", "x", ETL_REDIS__URL=f"redis://{address}", **IMPATIENT)
        server.shutdown()
    assert line(result, 2) == (
        f"Redis at {address} is in protected mode and answers its own machine only:"
        " set requirepass or protected-mode no"
    )


def test_a_socket_of_this_machine(
    typed: Etl, start_redis: StartRedis, collection: Collection[Document], tmp_path: Path
) -> None:
    """Redis over a Unix socket, with a database and a password; and one that is not there."""
    path = tmp_path / "redis.sock"
    start_redis(password=SECRET, args=("--unixsocket", str(path)))
    collection.insert_one(provider(0))
    url = f"unix://:{SECRET}@{path}?db=1"
    assert typed("sync", ETL_REDIS__URL=url).code == 0
    assert "status" in typed("show", "config:api", "p0", ETL_REDIS__URL=url).out
    with redis.Redis(unix_socket_path=str(path), password=SECRET, db=1) as client:
        assert client.exists(key(0))
    problem = line(typed("show", "config:api", "p0", ETL_REDIS__URL="unix:///none.sock", **IMPATIENT), 1)
    assert problem.startswith("Redis at /none.sock does not answer: ")


@pytest.mark.parametrize("option", ["readPreference=hunter2", "hunter2=hunter2", "maxPoolSize=hunter2"])
def test_a_wrong_option_of_a_uri(typed: Etl, option: str) -> None:
    """What the driver has to say about an option does not reach the terminal in the driver's words."""
    result = typed("sync", **IMPATIENT, ETL_MONGO__URI=f"mongodb://u:hunter2@127.0.0.1:1/?{option}")

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
def test_a_certificate_that_cannot_be_used(
    typed: Etl, tmp_path: Path, setting: str, scheme: str, option: str, text: str | None
) -> None:
    """The file is named, and no server is blamed for it."""
    file = tmp_path / "file.pem"
    if text is not None:
        file.write_text(text)
    uri = f"{scheme}://127.0.0.1:1/?{option.replace('FILE', str(file))}"
    problem = line(typed("sync", **IMPATIENT, **{setting: uri}), 2)
    assert str(file) in problem
    assert problem.startswith({"ETL_REDIS__URL": "redis.url: ", "ETL_MONGO__URI": "mongo.uri: "}[setting])
    assert "does not answer" not in problem


def test_a_cipher_that_is_unknown(typed: Etl) -> None:
    """It is no server that does not answer either."""
    url = "rediss://127.0.0.1:1/0?ssl_ciphers=none-such"
    assert (
        line(typed("sync", ETL_REDIS__URL=url), 2) == "redis.url: ssl_ciphers: OpenSSL knows no such cipher"
    )


def test_a_wrong_mongodb_password(typed: Etl, start_mongod: StartMongo) -> None:
    """The address and the way out are named at once: trying again would not help."""
    server = start_mongod(password="correct")
    uri = server.uri.replace("correct", SECRET)

    problem = line(typed("sync", ETL_MONGO__URI=uri), 2)

    assert server.address in problem
    assert "mongo.uri" in problem
    assert "correct" not in problem


def test_no_mongodb_password(typed: Etl, start_mongod: StartMongo) -> None:
    """A server that wants a login, and gets none, is told apart from one that is away."""
    server = start_mongod(password=SECRET)

    assert server.address in line(typed("sync", ETL_MONGO__URI=f"mongodb://{server.address}/"), 2)


@pytest.mark.parametrize("password", ["wr0ng hunter2", ""])
def test_a_wrong_redis_password(typed: Etl, start_redis: StartRedis, password: str) -> None:
    """A wrong password and none at all are both told with the address and the way out."""
    server = start_redis(password="correct")
    url = f"redis://:{quote(password)}@{server.address}/0" if password else f"redis://{server.address}/0"

    problem = line(typed("sync", ETL_REDIS__URL=url), 2)

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
def test_no_server(typed: Etl, variables: dict[str, str]) -> None:
    """After the configured time the address and the reason are told, and the exit code is 1."""
    problem = line(typed("sync", **IMPATIENT, **variables), 1)

    assert "127.0.0.1:1" in problem
    assert "refused" in problem


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize("command", [("show", "config:api", "x"), ("refresh", "config:api")])
def test_no_redis_for_the_other_commands(typed: Etl, command: tuple[str, ...]) -> None:
    """Every command that needs Redis says so in the same way."""
    result = typed(*command, **IMPATIENT, ETL_REDIS__URL="redis://:hunter2@127.0.0.1:1/0")

    assert "127.0.0.1:1" in line(result, 1)


def test_no_mongodb_for_a_refresh(typed: Etl) -> None:
    """A refresh reads MongoDB, and says when it cannot."""
    result = typed("refresh", "config:api", **IMPATIENT, ETL_MONGO__URI="mongodb://u:hunter2@127.0.0.1:1/")

    assert "127.0.0.1:1" in line(result, 1)


def test_an_unknown_collection(typed: Etl) -> None:
    """The known ones are named."""
    assert "promptContent" in line(typed("sync", "promtContent"), 2)


@pytest.mark.parametrize("command", ["show", "refresh"])
def test_an_unknown_family(typed: Etl, command: str) -> None:
    """The known ones are named."""
    assert "config:api" in line(typed(command, "config:apy", "x"), 2)


def test_an_absent_key(typed: Etl) -> None:
    """It is named, with what to try."""
    assert "config:api:nobody" in line(typed("show", "config:api", "nobody"), 1)


def test_a_failure_is_json_too(typed: Etl) -> None:
    """With `--json` stdout is one document, whatever went wrong."""
    failed = typed("sync", "--json", **IMPATIENT, ETL_MONGO__URI="mongodb://127.0.0.1:1/")
    assert failed.json["collections"][0]["status"] == "failed"
    assert "127.0.0.1:1" in failed.json["collections"][0]["error"]
    assert "http.port" in typed("sync", "--json", ETL_HTTP__PORT="x").json["error"]


def test_nothing_shows_a_password(typed: Etl, start_redis: StartRedis) -> None:
    """A command that works shows it neither, even in detail."""
    server = start_redis(password=SECRET)

    for command in (("config",), ("config", "--json"), ("sync", "--verbose")):
        result = typed(*command, ETL_REDIS__URL=server.url)
        assert result.code == 0
        assert SECRET not in result.out + result.err
