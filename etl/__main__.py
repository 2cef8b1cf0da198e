"""The command `etl`; `python -m etl` is the same."""

import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Carry out the command line of this process.

    Loading a module makes no garbage, and looking for some took an eighth of the start: so nobody looks
    until all that a command needs is there (`all_is_loaded`).
    """
    gc.disable()
    try:
        from etl.cli import main as carry_out  # noqa: PLC0415 (it loads the rest)
    except KeyboardInterrupt:
        sys.exit(130)
    carry_out()


if __name__ == "__main__":
    main()
