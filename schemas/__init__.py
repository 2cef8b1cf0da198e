"""The cache contract as code: which documents exist, and what each becomes in Redis.

Read it in this order: `families` (what is in Redis), `keys` and `values` (how it is written),
`documents` (what is in MongoDB, one file per kind), `entries` (what a document asks of the cache).
Everything here is pure: no I/O, no clock, nothing of `etl`.
"""
