"""The HTTP endpoints: health, status, history, metrics, and the page that shows them."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from etl.checkpoint.lease import this_process
from etl.monitoring import page
from etl.monitoring.health import HealthSnapshot, SnapshotCache
from etl.monitoring.history import QueueLengths, Recent
from etl.monitoring.metrics import VERSION, Metrics
from etl.settings import Settings

_OK, _UNAVAILABLE = 200, 503


class Endpoints:
    """The endpoints. Only `/healthz` reads no server, because it must always answer."""

    def __init__(
        self,
        settings: Settings,
        health: SnapshotCache[HealthSnapshot],
        recent: SnapshotCache[Recent],
        queues: QueueLengths,
        metrics: Metrics,
    ) -> None:
        self._health = health
        self._recent = recent
        self._queues = queues
        self._metrics = metrics
        self._cycle_seconds = settings.schedule.cycle_seconds
        self._daemon = _about(settings)

    def app(self) -> Starlette:
        """The ASGI application."""
        paths = {
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/status": self.status,
            "/history": self.history,
            "/metrics": self.metrics,
        }
        routes = [Route(path, endpoint) for path, endpoint in paths.items()]
        return Starlette(routes=[*page.routes(), *routes])

    async def healthz(self, _: Request) -> Response:
        """200: the process is alive."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """200: both servers answer, and each collection had a successful cycle in the last two intervals; else 503."""
        snapshot = await self._health.current()
        problems = snapshot.problems(self._cycle_seconds)
        return _json({"ready": not problems, "problems": problems}, _UNAVAILABLE if problems else _OK)

    async def status(self, _: Request) -> Response:
        """The status as `etl status --json`, servers that do not answer, this daemon; 503 without a status."""
        snapshot = await self._health.current()
        around = {"away": dict(snapshot.away), "daemon": self._daemon}
        if snapshot.error is not None:
            return _json({"error": snapshot.error} | around, _UNAVAILABLE)
        return _json({"collections": [one.as_dict() for one in snapshot.collections]} | around, _OK)

    async def history(self, _: Request) -> Response:
        """The last runs and the dead letters of each collection, and queues over time; 503 without Redis."""
        recent = await self._recent.current()
        if recent.error is not None:
            return _json({"error": recent.error}, _UNAVAILABLE)
        return _json({"collections": recent.collections, "queues": self._queues.samples()}, _OK)

    async def metrics(self, request: Request) -> Response:
        """The metrics; if a server does not answer, those that are known."""
        snapshot = await self._health.current()
        body, form = self._metrics.text(snapshot, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": form})


def _about(settings: Settings) -> dict[str, Any]:
    """This daemon and the settings that the page shows; no addresses, which may contain secrets."""
    return {
        "name": this_process(),
        "version": VERSION,
        "cycle_seconds": settings.schedule.cycle_seconds,
        "reconcile_seconds": settings.reconcile.interval_seconds,
        "collections": [collection.name for collection in settings.collections],
        "families": {
            name: {"ttl": life.ttl, "refresh_seconds": life.refresh_seconds}
            for name, life in settings.families.items()
        },
    }


def _json(value: Any, code: int) -> Response:
    # In ASCII: an `_id` may contain text that is not UTF-8.
    return Response(f"{json.dumps(value, indent=2)}\n", code, media_type="application/json")
