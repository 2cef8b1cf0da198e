"""`etl health`: whether the daemon of this machine is ready."""

import http.client
import json
from ipaddress import ip_address
from typing import Any, Final

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.errors import ConfigurationError, EtlError

NOT_READY: Final = 1
"""Exit code."""

_TIMEOUT_SECONDS: Final = 8.0


@click.command()
@json_option
@pass_runtime
def health(runtime: Runtime, *, as_json: bool) -> int:
    """Ask the daemon of this machine whether it is ready.

    It is asked at `http.host` and `http.port`, so the settings must be the daemon's own. It is ready when both servers
    answer and each collection had a successful cycle in the last two intervals. Ends with 0 when it is
    ready, else with 1.
    """
    settings = runtime.loaded().settings.http
    if settings.port == 0:
        raise ConfigurationError("http.port is 0, so the port of the daemon is unknown: set a port")
    answer = _ask(_reachable(settings.host), settings.port)
    if as_json:
        output.document(answer)
    else:
        output.say("ready" if answer["ready"] else "not ready")
        for problem in answer["problems"]:
            output.say(f"  {problem}")
    return 0 if answer["ready"] else NOT_READY


def _reachable(host: str) -> str:
    """The loopback address for a wildcard address; other addresses unchanged."""
    try:
        return "127.0.0.1" if ip_address(host).is_unspecified else host
    except ValueError:
        return host


def _ask(host: str, port: int) -> dict[str, Any]:
    where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        reply: dict[str, Any] = json.loads(connection.getresponse().read())
        return {"ready": bool(reply["ready"]), "problems": [str(problem) for problem in reply["problems"]]}
    except OSError as error:
        reason = error.strerror or str(error)
        raise EtlError(
            f"no daemon answers at {where}: {reason} (is `etl run` up, with these settings?)"
        ) from None
    except (http.client.HTTPException, ValueError, TypeError, KeyError):
        raise EtlError(f"another program answers at {where}, not the daemon: see http.port") from None
    finally:
        connection.close()
