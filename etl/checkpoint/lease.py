"""The lease: one holder at a time, renewed while it is held.

One class for all leases: of a cycle, of a backfill, of a follower, of the leading daemon, and of a
reconciliation. A lease alone cannot stop a holder that was suspended until after it expired (M. Kleppmann, "How to
do distributed locking", 2016). A lease that protects a checkpoint therefore has a fence: each move of the checkpoint
compares the fencing token in the same atomic step. The leases of leader and reconciliation protect no data: two
daemons that lead for a moment only do the same work twice.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from etl.cache.client import Wire
from etl.cache.scripts import SCRIPTS
from etl.errors import EtlError, LeaseHeldError
from etl.retry import Retry

RENEWALS_PER_LEASE: Final = 3
_RELEASE_TRIES: Final = 2
"""The first attempt may fail on a lost idle connection; the lease expires anyway."""


class LeaseKeys(NamedTuple):
    """The keys of one lease, in one slot of a Redis Cluster."""

    lease: str
    """A string that expires: the holder."""
    fence: str | None = None
    """A string: the newest fencing token, `<number>:<holder>`. Only where the lease protects a checkpoint."""


def this_process() -> str:
    """The name of this process: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def new_holder() -> str:
    """A unique name: `host:pid:nonce`.

    Two containers may have the same host name and process id, and one process may hold many leases.
    """
    return f"{this_process()}:{secrets.token_hex(6)}"


class Lease:
    """One lease for one holder; other threads may only read `held`.

    Args:
        wire: the connection to Redis.
        keys: the keys of the lease and of its fence.
        seconds: its TTL; it is renewed while it is held.
        retry: retries while Redis does not answer.
    """

    def __init__(self, wire: Wire, keys: LeaseKeys, seconds: float, retry: Retry) -> None:
        self._wire = wire
        self._keys = [key for key in keys if key]
        self._seconds = seconds
        self._ms = int(seconds * 1000)
        self._retry = retry
        self._holder = ""
        self._until = float("-inf")
        self._done = threading.Event()
        self._renewal: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether it is certainly held: it has not expired since the last renewal."""
        return time.monotonic() < self._until

    @contextmanager
    def hold(self) -> Iterator[str]:
        """Hold it for the length of the block, and yield the fencing token (without a fence: the holder).

        Raises:
            LeaseHeldError: another holder has it; the message names it.
            TransientError: Redis does not answer.
        """
        token = self.acquire()
        try:
            yield token
        finally:
            self.release()

    def acquire(self) -> str:
        """Acquire it, and renew it in a thread until `release`; if this object holds it already, renew it now.

        Returns:
            The fencing token; without a fence the holder.

        Raises:
            LeaseHeldError: another holder has it; the message names it.
            TransientError: Redis does not answer.
        """
        commands = []
        if self._renewal is None:
            if self._holder:  # Redis did not answer when it was released
                commands.append(SCRIPTS["release"].call(self._keys[:1], self._holder))
            # One name for all attempts: if only the reply was lost, the next attempt finds its own lease.
            self._holder = new_holder()
        commands.append(SCRIPTS["acquire"].call(self._keys, self._holder, self._ms))
        sent_at = time.monotonic()
        # The second value is the fencing token, or the other holder if the lease was not acquired.
        *_, (acquired, token, remaining_ms) = self._retry(lambda: self._wire.exchange(commands))
        if not acquired:
            self._stop_renewal()
            raise LeaseHeldError(str(token), max(0, remaining_ms) / 1000)
        self._until = sent_at + self._seconds
        if self._renewal is None:
            self._done = threading.Event()
            arguments = (self._done, str(token))
            self._renewal = threading.Thread(target=self._renew_until_done, args=arguments, daemon=True)
            self._renewal.start()
        return str(token)

    def release(self) -> None:
        """Release it, if it is held.

        If Redis does not answer, the key stays until it expires, or until this object acquires it again.
        """
        if self._renewal is None:
            return
        self._stop_renewal()
        command = SCRIPTS["release"].call(self._keys[:1], self._holder)
        for _ in range(_RELEASE_TRIES):
            with suppress(EtlError):  # an error of the holding block matters more
                self._wire.exchange([command])
                self._holder = ""
                break

    def _stop_renewal(self) -> None:
        self._done.set()
        if self._renewal is not None:
            self._renewal.join()
        self._renewal, self._until = None, float("-inf")

    def _renew_until_done(self, done: threading.Event, token: str) -> None:
        """Renew it until `done` is set or it is lost; with a fence the next commit of the holder then fails."""
        command = SCRIPTS["renew"].call(self._keys, self._holder, self._ms, token)
        while not done.wait(self._seconds / RENEWALS_PER_LEASE):
            sent_at = time.monotonic()
            with suppress(EtlError):
                [renewed] = self._wire.exchange([command])
                self._until = sent_at + self._seconds if renewed else float("-inf")
                if not renewed:
                    return
