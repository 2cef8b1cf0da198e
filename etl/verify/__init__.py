"""Whether the cache is true, and why a key is not there: what `etl verify` and `etl trace` do.

`verifier` reads all documents and compares what they claim with what Redis holds. `findings` keeps the
results, `recheck` checks again what does not match, at one moment, `classify` decides what each key is, and
`repair` writes what does not match. `trace` explains one document.
"""
