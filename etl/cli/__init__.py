"""The command line: one file per command, registered in `main`. Nothing imports this package."""

from etl.cli.main import main, run

__all__ = ["main", "run"]
