"""The command line: one file per command, `main` puts them together. Nothing imports this package."""

from etl.cli.main import main, run

__all__ = ["main", "run"]
