"""What the daemon answers over HTTP: is it alive, is it ready, where does it stand, how much did it do."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from etl.monitoring.health import Lookout
from etl.monitoring.metrics import Metrics

_OK, _UNAVAILABLE = 200, 503


class Endpoints:
    """The answers to GET. Only `/healthz` looks at no server, as it must answer whatever is away."""

    def __init__(self, lookout: Lookout, metrics: Metrics, cycle_seconds: float) -> None:
        self._lookout = lookout
        self._metrics = metrics
        self._cycle_seconds = cycle_seconds

    def app(self) -> Starlette:
        """The ASGI application."""
        paths = {
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/status": self.status,
            "/metrics": self.metrics,
        }
        return Starlette(routes=[Route(path, endpoint) for path, endpoint in paths.items()])

    async def healthz(self, _: Request) -> Response:
        """200: the process lives."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """200: both servers answer, and each collection had a success within two cycles; else 503."""
        glance = await self._lookout.glance()
        problems = glance.problems(self._cycle_seconds)
        return _json({"ready": not problems, "problems": problems}, _UNAVAILABLE if problems else _OK)

    async def status(self, _: Request) -> Response:
        """What `etl status --json` prints; 503 where there is no status to be had."""
        glance = await self._lookout.glance()
        if glance.error is not None:
            return _json({"error": glance.error}, _UNAVAILABLE)
        return _json({"collections": [one.as_dict() for one in glance.collections]}, _OK)

    async def metrics(self, request: Request) -> Response:
        """The metrics; with a server away those that are left, as counting goes on."""
        glance = await self._lookout.glance()
        body, form = self._metrics.text(glance, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": form})


def _json(value: Any, code: int) -> Response:
    # In ASCII: an `_id` may hold text that is not UTF-8.
    return Response(f"{json.dumps(value, indent=2)}\n", code, media_type="application/json")
