"""The most MongoDB gives: the whole collection once, in raw batches that nobody looks into.

`python -m bench.scan URI DATABASE COLLECTION` prints how long it took, from the first
command to the last batch.
"""

import json
import sys
import time
from typing import Any

from pymongo import MongoClient


def scan(uri: str, database: str, collection: str) -> dict[str, Any]:
    """Read everything: the `seconds` it took and the `bytes` of BSON that came."""
    with MongoClient[dict[str, Any]](uri) as client:
        client.admin.command("ping")
        began = time.perf_counter()
        batches = client[database][collection].find_raw_batches()
        size = sum(len(batch) for batch in batches)
        return {"seconds": time.perf_counter() - began, "bytes": size}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(scan(*sys.argv[1:4])))
