"""The lease: one holder at a time per collection, with a fencing token, renewed while it works.

A lease alone cannot stop a process that sleeps past its end (M. Kleppmann, "How to do distributed
locking", 2016): every write therefore checks the token in the same atomic step. See `lua/`.
"""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from etl.cache.client import Wire
from etl.cache.keys import StateKeys
from etl.cache.scripts import SCRIPTS
from etl.errors import EtlError, Locked
from etl.retry import Retry

_RENEWALS_A_LEASE = 3


def this_process() -> str:
    """The name of this holder, for people: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Lease:
    """The right to sync or to backfill one collection. `connect` makes a wire: the renewal needs its own."""

    def __init__(self, connect: Callable[[], Wire], own: StateKeys, seconds: float, retry: Retry) -> None:
        self._connect = connect
        self._ms = int(seconds * 1000)
        self._retry = retry
        self._keys = (own.lease, own.fence)
        self._holder = this_process()

    @contextmanager
    def hold(self) -> Iterator[str]:
        """Hold the lease for the length of the block, and yield the fencing token.

        Raises:
            Locked: another holder has it; the message names it.
            Transient: Redis is away.
        """
        with nullcontext(self._connect()) as wire:
            token = self._acquire(wire)
            done = threading.Event()
            renewal = threading.Thread(target=self._renew_until, args=(done, token), daemon=True)
            renewal.start()
            try:
                yield token
            finally:
                done.set()
                renewal.join()
                # It ends by itself where Redis cannot be told: the error of the block matters more.
                with suppress(EtlError):
                    wire.exchange([SCRIPTS["release"].call(self._keys[:1], f"{token} {self._holder}")])

    def _acquire(self, wire: Wire) -> str:
        # Named once for all tries: where only the answer was lost, the next try finds its own lease.
        command = SCRIPTS["acquire"].call(self._keys, self._holder, secrets.token_hex(6), self._ms)
        [(taken, token, *left)] = self._retry(lambda: wire.exchange([command]))
        if taken:
            return str(token)
        raise Locked(
            f"being synced by {token.partition(' ')[2]} (its lease lasts"
            f" {max(0, left[0]) / 1000:.0f} s more): try again when it is done"
        )

    def _renew_until(self, done: threading.Event, token: str) -> None:
        """Renew until done; a failure to renew needs no report, since every write checks the token."""
        command = SCRIPTS["renew"].call(self._keys, token, self._holder, self._ms)
        with nullcontext(self._connect()) as wire:
            while not done.wait(self._ms / 1000 / _RENEWALS_A_LEASE):
                with suppress(EtlError):
                    if wire.exchange([command]) == [0]:
                        return
