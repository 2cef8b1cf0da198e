"""Is the cache true, and why is a key not there? What `etl verify` and `etl trace` do.

`verify` streams MongoDB and asks `inspection` what Redis holds; `verdicts` judges, `ledger` keeps the
suspects, `second_look` accuses and mends. `trace` tells the story of one document.
"""
