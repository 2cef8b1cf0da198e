"""The turnstile and the numbered steps, over a fake Redis and a real one: what arrives late does nothing."""

from collections.abc import Callable
from typing import Any

import bson
import pytest
import redis
from bson.datetime_ms import DatetimeMS

from etl import interfaces as ports
from etl.cache.cache import Cache
from etl.cache.client import Wire
from etl.cache.keys import Companions, companions, of_backfill
from etl.cache.ownership import Ownership
from etl.checkpoint.checkpoint import CheckpointStore
from etl.errors import Overtaken
from etl.model.outcome import Outcome
from etl.model.report import Report
from etl.model.state import Reached, State
from etl.sync.apply import Applier, Treatment
from etl.sync.batch import Decision, Sight, decide
from etl.sync.planner import Clocks, Scan
from schemas.operations import Put
from schemas.position import FIRST, LAST, Position
from tests.support.outcomes import applied, put
from tests.support.twins import NAME, Insistent, SourceTwin, assemble, fake_documents, take_lease
from tests.support.waiting import eventually

OWN = companions(NAME)
KEY = "config:api:a"
_PERIOD = 2  # seconds
REACHED = Reached(Scan("delta", Clocks(5_000, 5_000), FIRST, LAST), None, 1_000)


def document(number: int, ms: int) -> dict[str, Any]:
    """One that claims the key."""
    fields = {"tipo": "integracion_api", "provider_name": "a", "status": f"of {number}"}
    return {"_id": number, **fields, "updated_at": DatetimeMS(ms)}


def write(cache: ports.Cache, token: str, outcome: Outcome) -> None:
    """Apply one document that nobody contests."""
    cache.look([outcome], token, None, has_claims=False)
    claims = {fill.key: outcome for fill in outcome.fills}
    cache.write(
        Decision([outcome], writes={fill.key: fill for fill in outcome.fills}, claims=claims), frozenset()
    )


@pytest.mark.parametrize("own", [OWN, of_backfill(OWN)], ids=["the same holder", "a backfill"])
def test_who_was_overtaken_writes_nothing(
    connect: Callable[[], Wire], client: redis.Redis, own: Companions
) -> None:
    """Whoever wrote since the look, of whatever keys: a cycle and a backfill pass one turnstile."""
    token = take_lease(client)
    client.set(own.fence, token)
    cache, other = Cache(connect(), NAME, OWN), Cache(connect(), NAME, own)
    cache.look([], token, None, has_claims=False)
    other.look([], token, None, has_claims=False)
    other.write(Decision(writes={"config:api:b": put("config:api:b", {"status": "b"})}), frozenset())

    with pytest.raises(Overtaken):
        cache.write(Decision(writes={KEY: put(KEY, {"status": "a"})}), frozenset())
    assert not client.exists(KEY)

    cache.look([], token, None, has_claims=False)
    cache.write(Decision(writes={KEY: put(KEY, {"status": "a"})}), frozenset())
    assert client.hgetall(KEY) == {"status": "a"}


def test_who_was_overtaken_looks_again(
    connect: Callable[[], Wire], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And sees what was written meanwhile: an older document does not displace it."""
    token, documents = take_lease(client), fake_documents()
    documents.insert_one(document(2, 3_000))
    stages, beside = (assemble(SourceTwin(documents), connect()) for _ in range(2))
    older, newer = stages.transform([bson.encode(document(n, 1_000 + 1_000 * n)) for n in (1, 2)])
    looks: list[int] = []
    look = Cache.look

    def overtaken(self: Cache, *arguments: Any, **flags: Any) -> Any:
        sight = look(self, *arguments, **flags)
        if self is stages.cache:
            looks.append(1)
            if len(looks) == 1:
                write(beside.cache, token, newer)
        return sight

    monkeypatch.setattr(Cache, "look", overtaken)
    Applier(stages, token, State(), Report(NAME), lambda: REACHED).apply([older], Treatment())

    assert len(looks) == 2
    assert client.hgetall(KEY)["status"] == "of 2"


def test_a_step_that_is_repeated_is_carried_out_once(wire: Wire, client: redis.Redis) -> None:
    """Its answer was lost, and it is sent again: one run in the history."""
    retry = Insistent()
    answer = Insistent.__call__

    def twice(step: Callable[[], Any]) -> Any:
        answer(retry, step)
        return answer(retry, step)

    store = CheckpointStore(wire, NAME, OWN, 1320, twice)  # type: ignore[arg-type]
    for runs in (1, 2):
        store.finish(take_lease(client), REACHED, 0, Report(NAME))
        assert client.llen(OWN.history) == runs


def test_a_step_that_comes_late_does_nothing(
    wire: Wire, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a later one it neither counts nor moves; it is no error, as it was carried out in its time."""
    sent: list[Any] = []
    exchange = wire.exchange

    def noted(commands: Any, *more: Any) -> Any:
        sent.append(commands)
        return exchange(commands, *more)

    monkeypatch.setattr(wire, "exchange", noted)
    store, token, state = CheckpointStore(wire, NAME, OWN, 1320, Insistent()), take_lease(client), State()
    claimants = [applied(Position(DatetimeMS(2_000), number)) for number in (1, 2)]
    for claimant in claimants:
        store.advance(token, state, REACHED, Decision([claimant], claims={KEY: claimant}), [])
    kept = client.hgetall(OWN.checkpoint)

    assert exchange(sent[0]) == [1]
    assert client.hget(OWN.claimants, KEY) == claimants[1].text
    assert client.hgetall(OWN.checkpoint) == kept


def test_the_steps_of_another_token_begin_anew(wire: Wire, client: redis.Redis) -> None:
    """The numbers of the holder before say nothing of those of the next."""
    for _ in range(2):
        store, token = CheckpointStore(wire, NAME, OWN, 1320, Insistent()), take_lease(client)
        for _ in range(2):
            store.finish(token, REACHED, 0, Report(NAME))
    assert client.llen(OWN.history) == 4


def test_who_writes_late_into_the_period_before_is_seen(
    connect: Callable[[], Wire], client: redis.Redis
) -> None:
    """It had looked in one period of the companions, and writes in the next, while another one was idle."""
    token, claimant = (
        take_lease(client),
        applied(Position(DatetimeMS(9_000), 9), Put("config:api", KEY, {"a": "b"})),
    )
    late, idle = (Cache(connect(), NAME, OWN, Ownership(NAME, _PERIOD)) for _ in range(2))
    period = _period(client)
    assert eventually(lambda: _period(client) > period)
    late.look([claimant], token, None, has_claims=False)
    assert eventually(lambda: _period(client) > period + 1)
    for _ in range(2):
        idle.look([], token, None, has_claims=False)
        idle.write(Decision(), frozenset())
    decision = decide([claimant], Sight(), frozenset())

    late.write(decision, frozenset())

    assert idle.look([claimant], token, None, has_claims=False).claims == {KEY: claimant.text}


def _period(client: redis.Redis) -> int:
    seconds: Any = client.time()
    return int(seconds[0]) // _PERIOD
