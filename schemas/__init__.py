"""The cache contract: the documents in MongoDB and the keys in Redis that they are written to.

Read in this order: `families` (the keys), `keys` and `values` (their encoding), `documents` (one file per kind of
document), `operations` (the result of a document). Everything here is pure: no I/O, no clock, no import of `etl`.
"""
