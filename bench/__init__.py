"""How fast `etl backfill` and `etl sync` are, beside bare insertion, a plain script and the version before.

`make bench` runs it. Read it in this order: `documents` and `servers` (what is measured on), `contenders` (who, and the
figures of a run), `meter` and `reader` (how), `sizes` (what grows with the collection), `results` (targets), `main`.
"""
