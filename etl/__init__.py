"""promptContent ETL: keeps Redis caches true to MongoDB.

    from etl import App, load

    with App(load()) as app:
        for report in app.sync():
            print(report.collection, report.status, report.records_processed)

The names in `__all__` are the public API: docs/python.md. Each is imported when it is first used, because the
drivers of both servers load slowly and `etl --help` does not need them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from etl.app import App
    from etl.errors import (
        ConfigurationError,
        CycleFailed,
        EtlError,
        Interrupted,
        LeaseHeldError,
        LeaseLost,
        TransientError,
    )
    from etl.generation_lock import GenerationLock, LockHeld, LockLost
    from etl.model.report import Report
    from etl.settings import Settings, load

__all__ = [
    "App",
    "ConfigurationError",
    "CycleFailed",
    "EtlError",
    "GenerationLock",
    "Interrupted",
    "LeaseHeldError",
    "LeaseLost",
    "LockHeld",
    "LockLost",
    "Report",
    "Settings",
    "TransientError",
    "load",
]

_MODULES: Final = {
    "etl.app": ("App",),
    "etl.errors": (
        "CycleFailed",
        "EtlError",
        "Interrupted",
        "LeaseHeldError",
        "LeaseLost",
        "ConfigurationError",
        "TransientError",
    ),
    "etl.generation_lock": ("GenerationLock", "LockHeld", "LockLost"),
    "etl.model.report": ("Report",),
    "etl.settings": ("Settings", "load"),
}
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
