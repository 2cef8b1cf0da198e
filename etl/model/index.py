"""The index that a collection is read by."""

from typing import NamedTuple


class Index(NamedTuple):
    """The index that pages are read by, or why there is none."""

    name: str | None
    """None where every page has to read the whole collection."""
    problem: str = ""
    """Why there is none, for a person."""
    remedy: str | None = None
    """What to type in mongosh; None where there is an index, or where nothing helps."""

    @property
    def warning(self) -> str | None:
        """What it means for reading; None where there is nothing to say."""
        if self.name is not None:
            return None
        remedy = "" if self.remedy is None else f"; in mongosh: {self.remedy}"
        return f"{self.problem}: every page reads the whole collection{remedy}"
