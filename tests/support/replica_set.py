"""A MongoDB replica set of three real members on loopback, to step down, kill, freeze and roll back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from etl.demo import MongoServer
from etl.demo.mongo_server import REPLICA_SET
from etl.demo.process import Server
from tests.support.types import Document
from tests.support.waiting import eventually

# Enables failpoints.
_OPTIONS: Final = ("--setParameter", "enableTestCommands=1")
_SETTINGS: Final = {
    "electionTimeoutMillis": 2_000,
    "heartbeatIntervalMillis": 200,
    "catchUpTimeoutMillis": 1_000,
}


class Member(MongoServer):
    """A `mongod` that is initiated together with the other members."""

    def start(self) -> None:
        """Start it and wait until it answers, in any state."""
        Server.start(self)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped or killed since."""
        return self._process is not None


class ReplicaSet:
    """Three members; the primary changes."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    @property
    def uri(self) -> str:
        """The URI with all members."""
        return f"mongodb://{','.join(one.address for one in self.members)}/?replicaSet={REPLICA_SET}"

    def client(self) -> MongoClient[Document]:
        """A client of the set, to prepare and to inspect; close it."""
        return MongoClient[Document](self.uri, tz_aware=True, heartbeatFrequencyMS=500)

    def direct(self, member: Member) -> MongoClient[Document]:
        """A client of one member in any state; close it."""
        return MongoClient[Document](
            f"mongodb://{member.address}/",
            directConnection=True,
            tz_aware=True,
            serverSelectionTimeoutMS=2_000,
        )

    def state(self, member: Member) -> str:
        """The state of the member, such as `PRIMARY`, `SECONDARY`, `ROLLBACK`; empty if it does not answer."""
        try:
            with self.direct(member) as client:
                status = client.admin.command("replSetGetStatus")
        except PyMongoError:
            return ""
        return str(next(one["stateStr"] for one in status["members"] if one.get("self")))

    def primary(self) -> Member:
        """The primary, once there is one with a majority.

        Frozen members must not be asked: resume or kill them first, or use `members`.
        """
        found: list[Member] = []

        def elected() -> bool:
            found[:] = [one for one in self.members if _is_writable(self, one)]
            return len(found) == 1

        assert eventually(elected, 60), [self.state(one) for one in self.members]
        return found[0]

    def others(self, member: Member) -> list[Member]:
        """The other members."""
        return [one for one in self.members if one is not member]

    def step_down(self) -> Member:
        """Let the primary step down in favour of another member; returns the former primary."""
        old = self.primary()
        with self.direct(old) as client:
            client.admin.command({"replSetStepDown": 20, "secondaryCatchUpPeriodSecs": 10})
        return old

    def cut_off(self) -> Member:
        """Stop replication: later writes to the primary, with `w: 1`, reach no other member.

        It stays the primary, because heartbeats continue; `depose` ends this.
        """
        primary = self.primary()
        for member in self.others(primary):
            self._fail_point(member, "alwaysOn")
        return primary

    def depose(self, primary: Member) -> Member:
        """Kill a primary without replication, and wait until the others have elected one; returns the new one.

        Start the old one again: it then rolls back its unreplicated writes.
        """
        primary.kill()
        for member in self.others(primary):
            self._fail_point(member, "off")
        return self.primary()

    def has_rolled_back(self, member: Member) -> bool:
        """Whether it has rolled back writes, which it then stores in files."""
        return (member.folder / "rollback").exists()

    def wait_until_healthy(self) -> None:
        """Wait until there is one primary, and all others are secondaries."""

        def healthy() -> bool:
            return sorted(map(self.state, self.members)) == ["PRIMARY", "SECONDARY", "SECONDARY"]

        assert eventually(healthy, 90), [self.state(one) for one in self.members]

    def _fail_point(self, member: Member, mode: str) -> None:
        with self.direct(member) as client:
            client.admin.command({"configureFailPoint": "stopReplProducer", "mode": mode})


@contextmanager
def start_replica_set() -> Iterator[ReplicaSet]:
    """Start three members until the block ends."""
    with ExitStack() as stack:
        members = [stack.enter_context(Member(args=_OPTIONS)) for _ in range(3)]
        replica_set = ReplicaSet(members)
        config: dict[str, Any] = {
            "_id": REPLICA_SET,
            "members": [{"_id": number, "host": one.address} for number, one in enumerate(members)],
            "settings": _SETTINGS,
        }
        with replica_set.direct(members[0]) as client:
            client.admin.command({"replSetInitiate": config})
        replica_set.wait_until_healthy()
        yield replica_set


def _is_writable(replica_set: ReplicaSet, member: Member) -> bool:
    try:
        with replica_set.direct(member) as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])
    except PyMongoError:
        return False
