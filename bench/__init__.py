"""How fast `etl backfill` and `etl sync` are, beside the best that these servers allow and a plain script.

`make bench` runs it. Read it in this order: `documents` (what is measured on), `contenders` (who is
measured), `meter` (how), `delta` (what a cycle costs), `report` (what comes out), `main`.
"""
