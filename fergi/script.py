"""What every script shares: its arguments and how it ends."""

import argparse
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fergi.files import FergiError

RELEASE_MODES = ("paper", "released")
CHECKOUT = Path(__file__).resolve().parents[1]


def default_root() -> Path:
    """What ``--root`` is unless it is given: the environment variable ``FERGI_ROOT``, or else the checkout."""
    return Path(os.environ.get("FERGI_ROOT") or CHECKOUT)


def argument_parser(documentation: str | None, program: str | None = None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring and knows ``--root`` (see ``default_root``).

    ``program`` is the command's name in the help, by default that of the script.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=documentation,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=default_root(),
        metavar="DIR",
        help="folder that holds data/, preparation/, results/ and figures/ (default: %(default)s)",
    )
    return parser


def at_least(smallest: float, kind: type = int) -> Callable[[str], float]:
    """A converter of argparse that takes finite numbers from ``smallest`` on."""

    def number(text: str) -> float:
        value = kind(text)
        if not smallest <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a number from {smallest} on")
        return value

    return number


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """``--device``, for ``fergi.processes.choose_device``."""
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")


def add_workers_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """``--workers``, at least 1; by default the machine's cores, divided among the processes that torchrun started."""

    def number(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError("--workers must be at least 1")
        return int(text)

    default = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    parser.add_argument("--workers", type=number, default=default, metavar="N", help=f"{what} (default: %(default)s)")


@contextlib.contextmanager
def out_of_reach() -> Iterator[None]:
    """Processes that are started in the block ignore Ctrl-C; this process gets it after the block.

    They inherit that the signal is blocked. In this process a handler waits as well, because another of its threads
    could take the signal.
    """
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


def prepare_workers(*modules: str) -> None:
    """Start the process that worker processes are forked from, and let it import modules that they need.

    It ends with this process, and leaves Ctrl-C to it.
    """
    multiprocessing.set_forkserver_preload(list(modules))
    with out_of_reach():
        multiprocessing.forkserver.ensure_running()


def run(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Run a script's ``main`` and exit: 0 if all went well, 1 with one sentence if not."""
    try:
        code = main(None)
        sys.stdout.flush()
        sys.exit(code)
    except FergiError as error:
        script = Path(sys.argv[0])
        sys.exit(f"{script.parent.name if script.name == '__main__.py' else script.name}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; finished files are complete.")
    except BrokenPipeError as error:
        with open(os.devnull, "w") as nowhere:  # else Python tries once more, when it ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        sys.exit(f"The output was closed ({error.strerror}); finished files are complete.")
