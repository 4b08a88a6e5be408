"""What every script shares: its arguments and how it ends."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fergi.files import FergiError

RELEASE_MODES = ("paper", "released")


def argument_parser(documentation: str | None, default_root: Path) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring and knows ``--root``.

    ``--root`` defaults to the environment variable ``FERGI_ROOT``, and without it to ``default_root``.
    """
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("FERGI_ROOT") or default_root),
        metavar="DIR",
        help="folder that holds data/, preparation/, results/ and figures/ (default: %(default)s)",
    )
    return parser


def run(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Run a script's ``main`` and exit: 0 if all went well, 1 with one sentence if not."""
    try:
        sys.exit(main(None))
    except FergiError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; every finished file is whole.")
