"""The settings: definitions (`model`), sources (`layers`, `environment`, `yaml_file`), addresses (`urls`)."""

from etl.settings.layers import Effective, Loaded, effective, load, load_with_origins
from etl.settings.model import (
    CollectionSettings,
    FamilySettings,
    HttpSettings,
    LeaseSettings,
    LogSettings,
    MongoSettings,
    ReconcileSettings,
    RedisSettings,
    RetrySettings,
    ScheduleSettings,
    Settings,
)
from etl.settings.urls import masked

__all__ = [
    "CollectionSettings",
    "Effective",
    "FamilySettings",
    "HttpSettings",
    "LeaseSettings",
    "Loaded",
    "LogSettings",
    "MongoSettings",
    "ReconcileSettings",
    "RedisSettings",
    "RetrySettings",
    "ScheduleSettings",
    "Settings",
    "effective",
    "load",
    "load_with_origins",
    "masked",
]
