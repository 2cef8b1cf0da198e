"""Backfill: a whole collection, by worker processes."""
