"""Encrypted connections to both servers, with an authority of our own."""

from pathlib import Path

import pytest

from etl.model.report import Report
from tests.support.pipeline import OpenApp
from tests.support.tls import Certificates, certificates, tls_in_front_of
from tests.support.types import StartMongo, StartRedis


@pytest.fixture
def trusted(tmp_path: Path) -> Certificates:
    """An authority that issued the servers' certificate."""
    return certificates(tmp_path / "trusted")


def test_both_servers_are_reached_over_tls_and_only_with_the_right_authority(
    trusted: Certificates,
    tmp_path: Path,
    start_mongod: StartMongo,
    start_redis: StartRedis,
    open_app: OpenApp,
) -> None:
    """`tls=true` and `rediss://` work; a server whose certificate nobody trusts is refused, in one line."""

    def sync(mongo: str, redis: str) -> Report:
        [report] = open_app(mongo=mongo, redis=redis, database="campaigns", patience=1, timeout=1).sync()
        return report

    stranger = certificates(tmp_path / "stranger").authority
    arguments = ("--tlsMode", "preferTLS", "--tlsCertificateKeyFile", str(trusted.server))
    mongod = start_mongod(
        args=(*arguments, "--tlsCAFile", str(trusted.authority), "--tlsAllowConnectionsWithoutCertificates")
    )
    with tls_in_front_of(start_redis().port, trusted.server) as port:
        mongo = f"{mongod.uri}&tls=true&tlsCAFile="
        redis = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs="

        assert sync(f"{mongo}{trusted.authority}", f"{redis}{trusted.authority}").status == "ok"
        newest = f"{trusted.authority}&ssl_min_version=772&ssl_ciphers=HIGH"
        assert sync(f"{mongo}{trusted.authority}", f"{redis}{newest}").status == "ok"

        refused = sync(f"{mongo}{stranger}", f"{redis}{trusted.authority}")
        assert (refused.status, refused.exit_code) == ("failed", 2)
        assert "certificate" in str(refused.error)
        assert "tlsCAFile" in str(refused.error)
        assert "\n" not in str(refused.error)

        refused = sync(f"{mongo}{trusted.authority}", f"{redis}{stranger}")
        assert (refused.status, refused.exit_code) == ("failed", 2)
        assert "ssl_ca_certs" in str(refused.error)
