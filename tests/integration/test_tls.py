"""TLS connections to both servers, with a certificate authority of the tests."""

import threading
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pymongo.collection import Collection

from etl.model.report import Report
from tests.factories import api
from tests.support.cluster import start_cluster
from tests.support.pipeline import OpenApp
from tests.support.tls import Certificates, certificates, tls_in_front_of, tls_or_plain_in_front_of
from tests.support.truth import truth
from tests.support.types import Document, StartMongo, StartRedis


@pytest.fixture
def trusted(tmp_path: Path) -> Certificates:
    """The authority that issued the certificate of the servers."""
    return certificates(tmp_path / "trusted")


def test_tls_needs_the_right_authority(
    trusted: Certificates,
    tmp_path: Path,
    start_mongod: StartMongo,
    start_redis: StartRedis,
    open_app: OpenApp,
) -> None:
    """With `tls=true` and `rediss://`. An unknown authority is refused in one line."""

    def sync(mongo: str, redis: str) -> Report:
        [report] = open_app(mongo=mongo, redis=redis, database="campaigns", patience=1, timeout=1).sync()
        return report

    unknown = certificates(tmp_path / "unknown").authority
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

        refused = sync(f"{mongo}{unknown}", f"{redis}{trusted.authority}")
        assert (refused.status, refused.exit_code) == ("failed", 2)
        assert "certificate" in str(refused.error)
        assert "tlsCAFile" in str(refused.error)
        assert "\n" not in str(refused.error)

        refused = sync(f"{mongo}{trusted.authority}", f"{redis}{unknown}")
        assert (refused.status, refused.exit_code) == ("failed", 2)
        assert "ssl_ca_certs" in str(refused.error)


def test_every_node_of_a_cluster_uses_tls(
    trusted: Certificates, tmp_path: Path, open_app: OpenApp, collection: Collection[Document]
) -> None:
    """Also nodes that are not in the URL. An unknown authority is refused."""
    unknown = certificates(tmp_path / "unknown").authority
    encrypted: dict[int, threading.Event] = {}
    collection.insert_many([api(f"p{n}", datetime.now(UTC), _id=n) for n in range(50)])

    def in_front_of(port: int) -> AbstractContextManager[int]:
        return tls_or_plain_in_front_of(port, trusted.server, encrypted)

    with start_cluster(in_front_of=in_front_of) as cluster, cluster.client() as client:
        [node, *_] = client.get_primaries()
        for authority, outcome in ((unknown, ("failed", 2)), (trusted.authority, ("ok", 0))):
            address = f"rediss://127.0.0.1:{node.port}/0?ssl_ca_certs={authority}"
            [report] = open_app(redis=address).sync()
            assert (report.status, report.exit_code) == outcome, report.error
        assert all(encrypted[one.port].is_set() for one in cluster.nodes)
        assert cluster.held() == truth(collection)
