"""The index that a collection is read by."""

from typing import NamedTuple


class Index(NamedTuple):
    """The index that pages are read by, or why there is none."""

    name: str | None
    """None if every page reads the whole collection."""
    problem: str = ""
    """Why there is no index, for a person."""
    remedy: str | None = None
    """The mongosh command that helps; None if there is an index, or no command helps."""

    @property
    def warning(self) -> str | None:
        """The consequence of a missing index; None if there is an index."""
        if self.name is not None:
            return None
        remedy = "" if self.remedy is None else f"; in mongosh: {self.remedy}"
        return f"{self.problem}: every page reads the whole collection{remedy}"
