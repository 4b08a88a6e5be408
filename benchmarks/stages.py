"""Time and memory of stages 6, 7 and 9 beside a plain implementation of the same jobs, measured in one run.

Reads   DIR/data/ and DIR/preparation/ as published (--data DIR); writes only to a temporary folder.
Run     python -m benchmarks.stages --data .
        python -m benchmarks.stages --data . --repeats 1     (a first look)
Takes   about two minutes with three repeats.

Every figure is of whole processes, start and imports included. The plain ones are in ``tests.plain``: each
feature file read on its own and each window averaged on its own; each fold and each grid point comparing all
training pairs again. Both sides run in turn; the fastest of the repeats counts. A Markdown table comes out, and
whether both sides gave the same: the activation values to 1e-12 (summed in another order), the results CSV to the byte.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# Nothing big is imported here: a process's peak memory is counted from that of the process which started it.

CHECKOUT = Path(__file__).resolve().parent.parent
KINDS = ("baseline", "reaction")
RESULTS = "image_preference_binary_classification_based_on_ranking_released.csv"


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, seconds of all processors, and the largest resident memory in MB."""

    wall: float
    cpu: float
    peak: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.peak, other.peak))


def measure(*command: str | Path) -> Cost:
    """Run one Python process to its end and measure it; stop if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command[0]} ended with exit code {process.returncode}; nothing to compare.")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def plain_stages_6_and_7(root: Path, output: Path) -> None:
    """The activation tables of all clips, one file at a time."""
    import config
    from fergi.dataset import Folders, read_black_images, read_valid_sessions
    from tests.plain import plain_activation_table

    folders = Folders(root)
    sessions = read_valid_sessions(folders)
    black = read_black_images(folders, sessions)
    for kind in KINDS:
        (output / kind).mkdir(parents=True)
        for participant, numbers in sessions.items():
            table = plain_activation_table(
                folders.data,
                participant,
                kind,
                numbers,
                limits=config.FRAME_LIMITS,
                minimum_valid_share=config.MINIMUM_VALID_SHARE,
                window_seconds=config.WINDOW_SECONDS,
                left_out=black[participant] if kind == "reaction" else frozenset(),
            )
            table.to_csv(output / kind / f"{participant}.csv", index=False)


def plain_stage_9(root: Path, output: Path) -> None:
    """The results CSV of the released mode, every fold and grid point on its own."""
    import config
    from fergi.dataset import Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
    from fergi.preference.grid_search import search_settings
    from tests.plain import SCORES, plain_search

    folders = Folders(root)
    sessions = read_valid_sessions(folders)
    for participant in read_excluded_participants(folders, sessions):
        del sessions[participant]
    images = read_image_reactions(
        folders,
        sessions,
        image_columns=["rank_score", *SCORES],
        activation_columns=["AU4_activation_value", "AU12_activation_value"],
    )
    search = search_settings(
        "released",
        **config.PREFERENCE_SEARCH,
    )
    output.mkdir(parents=True)
    plain_search(images, search).to_csv(output / RESULTS, index=False)


def largest_difference(ours: Path, plain: Path) -> float:
    """Largest difference between two folders of activation tables; infinite if they do not have the same clips."""
    import numpy as np
    import pandas as pd

    if {path.name for path in ours.glob("*.csv")} != {path.name for path in plain.glob("*.csv")}:
        return float("inf")
    largest = 0.0
    for path in ours.glob("*.csv"):
        first, second = pd.read_csv(path), pd.read_csv(plain / path.name)
        if list(first.columns) != list(second.columns) or not first.iloc[:, :2].equals(second.iloc[:, :2]):
            return float("inf")
        largest = max(largest, float(np.abs(first.to_numpy() - second.to_numpy()).max()))
    return largest


def main() -> int:
    """Measure both sides in turn, print the table, compare what they wrote."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="root with the published files")
    parser.add_argument("--repeats", type=int, default=3, help="how often each side runs (default: %(default)s)")
    parser.add_argument("--plain", choices=("6+7", "9"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.plain:  # the process that is measured
        {"6+7": plain_stages_6_and_7, "9": plain_stage_9}[chosen.plain](chosen.data, chosen.output)
        return 0

    source = chosen.data.resolve()
    for needed in ("data", "preparation/preprocessed_image_data", "preparation/valid_sessions.json"):
        if not (source / needed).exists():
            sys.exit(f"{source / needed} does not exist; give a folder with the published files as --data.")
    with tempfile.TemporaryDirectory() as temporary:
        root, plain = Path(temporary, "ours"), Path(temporary, "plain")
        root.mkdir()
        (root / "data").symlink_to(source / "data")
        shutil.copytree(
            source / "preparation",
            root / "preparation",
            ignore=shutil.ignore_patterns(*(f"preprocessed_{kind}_data" for kind in KINDS)),
        )

        def stages(*scripts: str) -> Cost:
            costs = [
                measure(CHECKOUT / script, "--root", root, *options) for script, *options in map(str.split, scripts)
            ]
            return sum(costs[1:], costs[0])

        def plain_stages(which: str) -> Cost:
            shutil.rmtree(plain / which, ignore_errors=True)
            module = ("-m", "benchmarks.stages", "--data", root)
            return measure(*module, "--plain", which, "--output", plain / which)

        jobs = {
            "6+7": (
                "stages 6 and 7: every feature file",
                ("preprocess_baseline_data.py", "preprocess_reaction_data.py"),
            ),
            "9": (
                "stage 9: full grid, released mode",
                ("image_preference_binary_classification_based_on_ranking.py --mode released",),
            ),
        }
        print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()};", end=" ")
        print(f"whole processes, fastest of {chosen.repeats}.\n")
        print("| job | plain (s) | ours (s) | ratio | plain CPU (s) | ours CPU (s) | ratio | plain, ours peak (MB) |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
        for which, (title, scripts) in jobs.items():
            if which == "9":
                stages("filter_participants_based_on_AU4.py")
            turns = [(plain_stages(which), stages(*scripts)) for _ in range(chosen.repeats)]
            slow, fast = (min(side, key=lambda cost: cost.wall) for side in zip(*turns, strict=True))
            print(
                f"| {title} | {slow.wall:.2f} | {fast.wall:.2f} | {slow.wall / fast.wall:.1f} "
                f"| {slow.cpu:.2f} | {fast.cpu:.2f} | {slow.cpu / fast.cpu:.1f} | {slow.peak:.0f}, {fast.peak:.0f} |",
                flush=True,
            )

        difference = max(
            largest_difference(root / "preparation" / f"preprocessed_{kind}_data", plain / "6+7" / kind)
            for kind in KINDS
        )
        same_results = (root / "results" / RESULTS).read_bytes() == (plain / "9" / RESULTS).read_bytes()
    print(f"\nActivation values: the same clips, largest difference {difference:.1e}.")
    print(f"Results CSV: {'the same to the byte' if same_results else 'NOT the same'}.")
    return 0 if difference <= 1e-12 and same_results else 1


if __name__ == "__main__":
    sys.exit(main())
