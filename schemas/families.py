"""The nine key families of the cache, in the order of the users' design.

The braces of a pattern are placeholders, never part of a key; TTLs are seconds and, like the refresh
intervals, defaults of the settings. A hash holds `fields`, each a text; the members of a list are JSON
objects of `fields`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Final, Literal

from schemas.keys import component, params_hash, segmento_hash

# Parts that appear in a key as a hash: placeholder -> (part, hash function).
_HASHED: Final[Mapping[str, tuple[str, Callable[[Any], str]]]] = {
    "segmento_hash": ("segmento", segmento_hash),
    "params_hash": ("params", params_hash),
}


@dataclass(frozen=True, slots=True)
class Family:
    """One family of keys: pattern, Redis type, TTL, fields, source."""

    name: str
    pattern: str
    type: Literal["hash", "list", "string"]
    ttl: int | None
    fields: tuple[str, ...]
    source: str
    refresh_seconds: int | None = None
    # Parsed once: parsing for each key would take twice as long as the key itself.
    _writers: tuple[tuple[str, Callable[[Any], str]], ...] = field(init=False, repr=False, compare=False)
    _template: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [name for _, name, _, _ in Formatter().parse(self.pattern) if name]
        object.__setattr__(self, "_writers", tuple(_HASHED.get(name, (name, component)) for name in names))
        object.__setattr__(self, "_template", self.pattern.format_map(dict.fromkeys(names, "%s")))

    @property
    def prefix(self) -> str:
        """The common prefix of all keys of the family: `mcp:tool:`."""
        return self.pattern.partition("{")[0]

    @property
    def parts(self) -> tuple[str, ...]:
        """The arguments of `key`, in the order of the pattern: `params` for `{params_hash}`."""
        return tuple(part for part, _ in self._writers)

    def written(self, *components: str) -> str:
        """The key of components that `schemas.keys` has encoded, in order."""
        return self._template % components

    def key(self, **parts: Any) -> str:
        """The key of these parts: text, except `params`, which is any value.

        Raises:
            ValueError: a part is missing, unknown, or cannot stand in a key.
        """
        if len(parts) == len(self._writers):
            try:
                return self._template % tuple([write(parts[part]) for part, write in self._writers])
            except KeyError:
                pass  # the right number, but other names
        given = ", ".join(parts) or "nothing"
        raise ValueError(f"{self.name} takes {', '.join(self.parts)}; given: {given}")


# 1. Calls to MCP servers

MCP_TOOL: Final = Family(
    name="mcp:tool",
    pattern="mcp:tool:{server}:{tool}:{params_hash}",
    type="hash",
    ttl=1800,  # 30 minutes
    fields=("result", "timestamp", "tokens_used", "cost_usd", "segmento"),
    source="tipo: resultado_mcp",
)

MCP_SERVER_STATUS: Final = Family(
    name="mcp:server:status",
    pattern="mcp:server:status:{server_name}",
    type="hash",
    ttl=300,  # 5 minutes
    refresh_seconds=240,  # before it expires
    fields=("status", "last_health_check", "requests_last_min", "avg_response_time", "errors_last_hour"),
    source="tipo: estado_servidor",
)

# 2. AI generations

CAMPAIGN_MESSAGES: Final = Family(
    name="ai:campaign_messages",
    pattern="ai:campaign_messages:{campana_id}:{segmento_hash}",
    type="list",  # ordered by numero
    ttl=10800,  # 3 hours
    fields=("numero", "texto", "tono"),
    source="tipo: generacion, estado: generado",
)

GENERATION_META: Final = Family(
    name="ai:generation:meta",
    pattern="ai:generation:meta:{campana_id}:{segmento_hash}",
    type="hash",
    ttl=10800,  # 3 hours
    fields=("tokens_total", "cost_total_usd", "tiempo_total_ms", "segmentos_procesados", "fecha_generacion"),
    source="tipo: generacion, estado: generado",
)

# 3. Configuration and metadata

CONFIG_API: Final = Family(
    name="config:api",
    pattern="config:api:{provider_name}",
    type="hash",
    ttl=3600,  # 1 hour, and `etl refresh`
    fields=("status", "rate_limit", "endpoints", "last_updated"),
    source="tipo: integracion_api",
)

CONFIG_CLIENT: Final = Family(
    name="config:client",
    pattern="config:client:{client_name}",
    type="hash",
    ttl=3600,  # 1 hour, and `etl refresh`
    fields=("tools_acceso", "rate_limit", "max_requests_hora", "estado"),
    source="tipo: cliente_mcp",
)

# 4. States and synchronisation

LAST_SYNC: Final = Family(
    name="etl:last_sync",
    pattern="etl:last_sync:{collection}",
    type="hash",
    ttl=1320,  # 22 minutes: two cycles
    fields=("last_id", "last_timestamp", "records_processed", "sync_duration_ms"),
    source="every finished cycle",
)

GENERATION_LOCK: Final = Family(
    name="lock:content_generation",
    pattern="lock:content_generation:{campana_id}",
    type="string",  # the process id of its holder
    ttl=30,
    fields=(),
    source="the generator of the campaign",
)

GENERATION_QUEUE: Final = Family(
    name="queue:ai_generation",
    pattern="queue:ai_generation:{priority}",
    type="list",
    ttl=None,  # until the generator pops it
    fields=("campana_id", "segmento"),
    source="tipo: generacion, estado: pendiente",
)

CONTRACT: Final = (
    MCP_TOOL,
    MCP_SERVER_STATUS,
    CAMPAIGN_MESSAGES,
    GENERATION_META,
    CONFIG_API,
    CONFIG_CLIENT,
    LAST_SYNC,
    GENERATION_LOCK,
    GENERATION_QUEUE,
)
