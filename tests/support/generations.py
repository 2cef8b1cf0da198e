"""Documents of the kind `generacion`, by the hundred."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from tests.support.types import Document

LATEST = timedelta(seconds=60)
"""How old the youngest document of a `delta` is: it may be put behind the watermark of a running cycle."""


def written(name: str, version: int, moment: datetime) -> Document:
    """A campaign whose messages are written: two keys, all of whose fields say the version."""
    return {
        "_id": name,
        "campana_id": name,
        "segmento": "Jóvenes 18-25",
        "mensajes": [{"numero": n, "texto": f"texto {version}", "tono": "casual"} for n in (1, 2, 3)],
        "metadata": {"tokens_total": version, "cost_total_usd": version / 8},
        "updated_at": moment,
    }


def requested(name: str, moment: datetime) -> Document:
    """A campaign whose messages are asked for: one item of the queue `alta`."""
    wish = {"campana_id": name, "segmento": "Jóvenes 18-25", "estado": "pendiente", "prioridad": "alta"}
    return {"_id": name, **wish, "updated_at": moment}


def delta(count: int, *, prefix: str = "camp", version: int = 1) -> Sequence[Document]:
    """`count` campaigns, every other one asked for, a millisecond apart and the last one `LATEST` ago."""
    end = datetime.now(UTC) - LATEST
    moments = (end - timedelta(milliseconds=count - number) for number in range(count))
    return [
        requested(f"{prefix}-{number}", moment)
        if number % 2
        else written(f"{prefix}-{number}", version, moment)
        for number, moment in enumerate(moments)
    ]
