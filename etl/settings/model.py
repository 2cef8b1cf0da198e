"""Every setting: its type, its default, its bounds and what it is for.

The models do no I/O: `etl.settings.load` passes them the values of file, environment and command line.
docs/settings.md shows the descriptions.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from bson.errors import BSONError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from etl.errors import ConfigurationError
from etl.settings import urls
from etl.settings.cpus import usable_cpus
from etl.settings.kinds import UnusableKinds, load_kinds
from schemas.codec import raw_value
from schemas.documents import FAMILIES, KINDS
from schemas.documents import fields as contract_fields
from schemas.families import LAST_SYNC, Family


def _contradiction(path: str, problem: str) -> PydanticCustomError:
    """A contradiction between settings; `path` names the one to change, below the field that is validated."""
    return PydanticCustomError("contradiction", "{problem}", {"path": path, "problem": problem})


def _not_a_bool(value: object) -> object:
    """Refuse booleans, which Python treats as the numbers 0 and 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "expected a number, not true or false")
    return value


def _address(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        problem = urls.problem(value.get_secret_value(), schemes)
        if problem:
            raise PydanticCustomError("address", "{problem}", {"problem": problem})
        return value

    return AfterValidator(check)


def _one_of(known: Mapping[str, object]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise PydanticCustomError("unknown", "expected one of: {known}", {"known": ", ".join(known)})
        return value

    return AfterValidator(check)


Integer = Annotated[int, BeforeValidator(_not_a_bool)]
Timeout = Annotated[
    float, BeforeValidator(_not_a_bool), Field(gt=0, le=urls.LONGEST_TIMEOUT, allow_inf_nan=False)
]
CENTURY: Final = 100 * 365 * 86_400
"""Seconds. A longer duration is a typing error, and may overflow in a server."""


class Section(BaseModel):
    """Base of all sections: unknown names are refused, values are immutable and not quoted in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class MongoSettings(Section):
    """The connection to MongoDB."""

    uri: Annotated[SecretStr, _address("mongodb", "mongodb+srv")] = Field(
        SecretStr("mongodb://localhost:27017"), description="Address of MongoDB; the role `read` is enough."
    )
    database: str = Field(
        "campaigns",
        pattern=r'^[^/\\. "$\x00]{1,63}$',
        description="Database that holds the collections.",
    )
    timeout_seconds: Timeout = Field(10, description="Time limit in seconds for one answer of MongoDB.")
    allow_sharded: bool = Field(
        default=False, description="Accept the router of a sharded cluster, which is untested."
    )


class SentinelSettings(Section):
    """The Sentinels that name the primary."""

    service: str = Field(min_length=1, description="Name of the primary among Sentinels, as `mymaster`.")
    nodes: tuple[Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:\s]+):\d{1,5}$")], ...] = Field(
        min_length=1, description="Sentinels, each as `host:port`."
    )
    username: str | None = Field(None, description="User of the Sentinels themselves.")
    password: SecretStr | None = Field(None, description="Password of the Sentinels themselves.")


class RedisSettings(Section):
    """The connection to Redis."""

    url: Annotated[SecretStr, _address("redis", "rediss", "unix")] = Field(
        SecretStr("redis://localhost:6379/0"), description="Address of Redis."
    )
    timeout_seconds: Timeout = Field(10, description="Time limit in seconds for one answer of Redis.")
    sentinel: SentinelSettings | None = Field(
        None,
        description="Sentinels that name the primary; `url` then gives only login, database and options.",
    )


class ScheduleSettings(Section):
    """When a cycle runs."""

    cycle_seconds: Integer = Field(
        660,
        ge=1,
        le=CENTURY,
        description="Seconds from one cycle to the next; `etl:last_sync` lives twice as long.",
    )


class CollectionSettings(Section):
    """One collection of MongoDB."""

    name: str = Field(min_length=1, description="Name of the collection.")
    tipo: Annotated[str, _one_of(KINDS)] = Field(
        "generacion", description="Kind of a document that has no `tipo`: " + ", ".join(KINDS) + "."
    )
    timestamp_field: str = Field(
        "updated_at",
        pattern=r"^[^$\x00][^\x00]*$",
        description="Date field that every write sets to the present; may be a dotted path.",
    )
    fields: dict[str, Any] = Field(
        {},
        description="Contract field to MongoDB expression, evaluated by the server; others are taken as they are.",
    )
    overlap_seconds: Integer = Field(
        120,
        ge=0,
        le=CENTURY,
        description="Longest time in seconds between a document's timestamp and its commit.",
    )
    cold_start: Literal["full", "recent", "now"] = Field(
        "full",
        description="Read by the first cycle: `full`, `recent` (what the longest TTL still holds) or `now`.",
    )
    page_size: Integer = Field(500, ge=1, le=100_000, description="Documents per page.")
    follow: bool = Field(
        default=False, description="Also read the change stream, so that a change is applied within a second."
    )
    track_keys: bool = Field(
        default=True,
        description="Remember the keys of each document, so that moves and deletes remove them.",
    )

    @field_validator("fields")
    @classmethod
    def _check_mapping(cls, fields: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        known = contract_fields()
        if fields and not known:
            unnamed = ", ".join(kind.tipo for kind in KINDS.values() if not kind.fields)
            problem = f"a mapping needs the fields of every kind, and {unnamed} does not name its own"
            raise PydanticCustomError("fields", "{problem}", {"problem": problem})
        timestamp = info.data.get("timestamp_field", "updated_at").partition(".")[0]
        for name, expression in fields.items():
            if name in {"_id", timestamp}:
                raise _contradiction(name, "the index orders documents by it, so it cannot be mapped")
            if name not in known:
                raise _contradiction(name, f"no field of the contract, {urls.nearest(name, known)}")
            try:
                raw_value(expression)
            except (ValueError, OverflowError, BSONError):
                raise _contradiction(name, "expected a MongoDB expression") from None
        return fields


class FamilySettings(Section):
    """TTL and refresh interval of a key family."""

    ttl: Integer | None = Field(None, ge=1, le=CENTURY, description="TTL of an entry in seconds.")
    refresh_seconds: Integer | None = Field(
        None,
        ge=1,
        le=CENTURY,
        description="Seconds between refreshes by the daemon; less than its `ttl`.",
    )


class HttpSettings(Section):
    """The HTTP server of the daemon."""

    host: str = Field("127.0.0.1", min_length=1, description="Interface of the daemon's HTTP server.")
    port: Integer = Field(
        8088, ge=0, le=65535, description="Port of the daemon's HTTP server; 0 takes a free one and logs it."
    )


class LogSettings(Section):
    """The log."""

    format: Literal["text", "json"] = Field(
        "text", description="Log lines as `text` or as `json`, on stderr."
    )


class TransformSettings(Section):
    """Worker processes, and the bound on one document."""

    workers: Integer | None = Field(
        None,
        ge=1,
        le=256,
        description="Worker processes of a cold start or a backfill; null: one per usable CPU.",
    )
    document_bytes: Integer = Field(
        64 * 1024 * 1024,
        ge=1,
        le=1024**3,
        description="Most bytes of Redis that one document may take; a larger one is a dead letter.",
    )


class LeaseSettings(Section):
    """The lease that keeps two cycles of one collection apart."""

    seconds: Integer = Field(
        30, ge=1, le=86_400, description="Seconds until the lease of a holder that died ends."
    )


class ReconcileSettings(Section):
    """Scheduled verification and repair."""

    interval_seconds: Integer | None = Field(
        None,
        ge=1,
        le=CENTURY,
        description="Seconds between two reconciliations (verify and repair); null: when due.",
    )


class RetrySettings(Section):
    """Retries."""

    seconds: Timeout = Field(
        20, description="How long a step is retried in seconds while a server does not answer."
    )


class Settings(Section):
    """All settings, checked against each other. `families` holds every family, also those that no source names."""

    namespace: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]{0,32}$",
        description="Prefix of the ETL's own keys, for two installations on one Redis.",
    )
    kinds: tuple[str, ...] = Field(
        (),
        validate_default=True,
        description="Modules with document kinds of your own, each with `KIND` or `KINDS`.",
    )
    mongo: MongoSettings = MongoSettings()
    redis: RedisSettings = RedisSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    collections: tuple[CollectionSettings, ...] = Field(
        (CollectionSettings(name="promptContent"),), min_length=1
    )
    families: dict[Annotated[str, _one_of(FAMILIES)], FamilySettings] = Field({}, validate_default=True)
    transform: TransformSettings = TransformSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    lease: LeaseSettings = LeaseSettings()
    retry: RetrySettings = RetrySettings()
    reconcile: ReconcileSettings = ReconcileSettings()

    @field_validator("kinds")
    @classmethod
    def _load_kinds(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        try:
            load_kinds(kinds)
        except UnusableKinds as error:
            raise _contradiction(error.place, str(error)) from None
        return kinds

    @field_validator("collections")
    @classmethod
    def _check_names(cls, collections: tuple[CollectionSettings, ...]) -> tuple[CollectionSettings, ...]:
        names = [collection.name for collection in collections]
        for index, name in enumerate(names):
            if name in names[:index]:
                first = names.index(name)
                raise _contradiction(f"{index}.name", f"collections.{first} has this name too")
        return collections

    @field_validator("families", mode="before")
    @classmethod
    def _add_defaults(cls, given: object, info: ValidationInfo) -> object:
        """All families: the given settings over the defaults; types are checked afterwards."""
        if not isinstance(given, Mapping):
            return given
        schedule = info.data.get("schedule", ScheduleSettings())
        complete: dict[Any, Any] = {name: _defaults(family, schedule) for name, family in FAMILIES.items()}
        for name, family in given.items():
            values = family.model_dump(exclude_unset=True) if isinstance(family, FamilySettings) else family
            mergeable = name in complete and isinstance(values, Mapping)
            complete[name] = complete[name] | dict(values) if mergeable else values
        return complete

    @field_validator("families")
    @classmethod
    def _check_families(
        cls, families: dict[str, FamilySettings], info: ValidationInfo
    ) -> dict[str, FamilySettings]:
        for name, family in families.items():
            _check_family(name, family)
        schedule = info.data.get("schedule", ScheduleSettings())
        published = families[LAST_SYNC.name].ttl
        if published is not None and published <= schedule.cycle_seconds:
            problem = f"must be more than schedule.cycle_seconds ({schedule.cycle_seconds})"
            raise _contradiction(f"{LAST_SYNC.name}.ttl", problem)
        return families

    def workers(self) -> int:
        """Number of worker processes: by default one per usable CPU."""
        return self.transform.workers or usable_cpus()

    def longest_ttl(self) -> int:
        """The longest TTL of all families, in seconds: documents older than this are in no cache."""
        return max(family.ttl for family in self.families.values() if family.ttl is not None)

    def collection(self, name: str) -> CollectionSettings:
        """The settings of one collection.

        Raises:
            ConfigurationError: no collection of this name is configured.
        """
        for collection in self.collections:
            if collection.name == name:
                return collection
        known = ", ".join(collection.name for collection in self.collections)
        raise ConfigurationError(f"unknown collection {name!r}; the settings name: {known}")


def _defaults(family: Family, schedule: ScheduleSettings) -> dict[str, int | None]:
    """The default TTL and refresh interval of a family; `etl:last_sync` lives for two cycles."""
    ttl = 2 * schedule.cycle_seconds if family.name == LAST_SYNC.name else family.ttl
    return {"ttl": ttl, "refresh_seconds": family.refresh_seconds}


def _check_family(name: str, family: FamilySettings) -> None:
    if FAMILIES[name].ttl is None and family.ttl is not None:
        raise _contradiction(f"{name}.ttl", "this family lives until it is consumed; leave its ttl out")
    if FAMILIES[name].ttl is not None and family.ttl is None:
        raise _contradiction(f"{name}.ttl", "expected seconds: an entry must not outlive its document")
    if family.refresh_seconds is None:
        return
    filled = {family.name for kind in KINDS.values() for family in kind.families}
    if name not in filled or family.ttl is None:  # only what documents fill can be warmed again from MongoDB
        raise _contradiction(f"{name}.refresh_seconds", "this family cannot be warmed again; leave it out")
    if family.refresh_seconds >= family.ttl:
        raise _contradiction(f"{name}.refresh_seconds", f"must be less than its ttl ({family.ttl})")
