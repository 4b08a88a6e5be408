"""Time and memory of stages 6, 7 and 9 beside a plain implementation of the same jobs, measured in one run.

Reads   DIR/data/ and DIR/preparation/ as published (--data DIR); writes only to a temporary folder.
Run     python -m benchmarks.stages --data .
        python -m benchmarks.stages --data . --repeats 1     (a first look)
Takes   about two minutes with three repeats.

Stage 9 with FAU-Net and with the linear model stand in a table of their own: there is no plain side. The fit of the
linear model is also timed without start and imports.

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
from pathlib import Path
from typing import NamedTuple

# Nothing big is imported here: a process's peak memory is counted from that of the process which started it.

CHECKOUT = Path(__file__).resolve().parent.parent
KINDS = ("baseline", "reaction")
FILTER, SEARCH = "filter_participants_based_on_AU4.py", "image_preference_binary_classification_based_on_ranking.py"
RESULTS = SEARCH.replace(".py", "_released.csv")
JOBS = {
    "stages 6 and 7: every feature file": [[f"preprocess_{kind}_data.py"] for kind in KINDS],
    "stage 9: full grid, released mode": [[SEARCH, "--mode", "released"]],
}
VALENCE_JOBS = {
    "stage 9: FAU-Net, 33 networks": [SEARCH, "--valence", "fau-net"],
    "stage 9: linear model": [SEARCH, "--valence", "linear"],
}


class Cost(NamedTuple):
    """Seconds on the clock, seconds of all processors, and the largest resident memory in MB."""

    wall: float
    cpu: float
    peak: float


def measure(*commands: list[str]) -> Cost:
    """Run Python processes one after the other and measure them together; stop if one fails."""
    start, cpu, peak = time.perf_counter(), 0.0, 0.0
    for command in commands:
        process = subprocess.Popen([sys.executable, *command], cwd=CHECKOUT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command[0]} ended with exit code {process.returncode}; nothing to compare.")
        cpu, peak = cpu + usage.ru_utime + usage.ru_stime, max(peak, usage.ru_maxrss / 1024)
    return Cost(time.perf_counter() - start, cpu, peak)


def plain_activations(root: Path, output: Path) -> None:
    """The activation tables of all clips, one file at a time."""
    import pandas as pd

    import config
    from fergi.dataset import CLIP_KEY, Folders, read_black_images, read_valid_sessions
    from tests.plain import UNITS, plain_activation

    folders = Folders(root)
    sessions = read_valid_sessions(folders)
    black = read_black_images(folders, sessions)
    columns = [*CLIP_KEY, *(f"AU{unit}_activation_value" for unit in UNITS)]
    limits = {"limits": config.FRAME_LIMITS, "window_seconds": config.WINDOW_SECONDS}
    for kind in KINDS:
        (output / kind).mkdir(parents=True)
        for participant, numbers in sessions.items():
            rows = []
            for folder, session in ((folders.session(participant, session), session) for session in numbers):
                for image in range(1, 1 + len(list(folder.glob(f"{kind}_clip_*_features.csv")))):
                    values, share = plain_activation(folder / f"{kind}_clip_{image}_features.csv", **limits)
                    is_black = kind == "reaction" and (session, image) in black[participant]
                    if share >= config.MINIMUM_VALID_SHARE and not is_black:
                        rows.append([session, image, *values])
            pd.DataFrame(rows, columns=columns).to_csv(output / kind / f"{participant}.csv", index=False)


def plain_results(root: Path, output: Path) -> None:
    """The results CSV of the released mode, every fold and grid point on its own."""
    import config
    from fergi.dataset import Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
    from fergi.preference.grid_search import search_settings
    from tests.plain import SCORES, plain_search

    folders = Folders(root)
    sessions = read_valid_sessions(folders)
    for participant in read_excluded_participants(folders, sessions):
        del sessions[participant]
    wanted = {"image_columns": ["rank_score", *SCORES]}
    wanted["activation_columns"] = [f"AU{unit}_activation_value" for unit in (4, 12)]
    images = read_image_reactions(folders, sessions, **wanted)
    output.mkdir()
    results = plain_search(images, search_settings("released", **config.PREFERENCE_SEARCH))
    results.to_csv(output / RESULTS, index=False)


def linear_fit(root: Path, repeats: int) -> float:
    """Seconds of the fastest of some fits of the linear model on everybody, in this process."""
    import numpy as np

    import config
    from fergi.activation import ACTIVATION_COLUMNS
    from fergi.dataset import Folders, read_image_reactions, read_valid_sessions
    from fergi.preference.linear import Linear
    from fergi.preference.pairs import pairs_of

    folders = Folders(root)
    images = read_image_reactions(
        folders, read_valid_sessions(folders), image_columns=["rank_score"], activation_columns=ACTIVATION_COLUMNS
    )
    pairs, seconds = pairs_of(images), []
    for _ in range(10 * repeats):
        start = time.perf_counter()
        Linear.fit(images, pairs, np.ones((1, len(pairs.names)), bool), **config.VALENCE_MODELS["linear"])
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def largest_difference(ours: Path, plain: Path) -> float:
    """Largest difference between two folders of activation tables; infinite if they do not have the same clips."""
    import pandas as pd

    first, second = (
        pd.concat({path.name: pd.read_csv(path, index_col=[0, 1]) for path in sorted(folder.glob("*.csv"))})
        for folder in (ours, plain)
    )
    same = first.index.equals(second.index) and first.columns.equals(second.columns)
    return float((first - second).abs().max(axis=None)) if same else float("inf")


def main() -> int:
    """Measure both sides in turn, print the table, compare what they wrote."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="root with the published files")
    parser.add_argument("--repeats", type=int, default=3, help="how often each side runs (default: %(default)s)")
    parser.add_argument("--plain", nargs=2, help=argparse.SUPPRESS)  # in the process that is measured: job, output
    chosen = parser.parse_args()
    if chosen.plain:
        job, output = chosen.plain
        (plain_results if job.startswith("stage 9") else plain_activations)(chosen.data, Path(output))
        return 0

    source = chosen.data.resolve()
    for needed in ("data", "preparation/preprocessed_image_data", "preparation/valid_sessions.json"):
        if not (source / needed).exists():
            sys.exit(f"{source / needed} does not exist; give a folder with the published files as --data.")
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()};", end=" ")
    print(f"whole processes, fastest of {chosen.repeats}.\n")
    print("| job | plain (s) | ours (s) | ratio | plain CPU (s) | ours CPU (s) | ratio | plain, ours peak (MB) |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root, plain = Path(temporary, "ours"), Path(temporary, "plain")
        root.mkdir()
        (root / "data").symlink_to(source / "data")
        computed = shutil.ignore_patterns(*(f"preprocessed_{kind}_data" for kind in KINDS))
        shutil.copytree(source / "preparation", root / "preparation", ignore=computed)
        for job, scripts in JOBS.items():
            if "stage 9" in job:
                measure([FILTER, "--root", str(root)])
            turns = []
            for _ in range(chosen.repeats):
                shutil.rmtree(plain / job, ignore_errors=True)
                plain.mkdir(exist_ok=True)
                slow = measure(["-m", "benchmarks.stages", "--data", str(root), "--plain", job, str(plain / job)])
                turns.append((slow, measure(*([*script, "--root", str(root)] for script in scripts))))
            slow, fast = (min(side) for side in zip(*turns, strict=True))
            print(
                f"| {job} | {slow.wall:.2f} | {fast.wall:.2f} | {slow.wall / fast.wall:.1f} "
                f"| {slow.cpu:.2f} | {fast.cpu:.2f} | {slow.cpu / fast.cpu:.1f} | {slow.peak:.0f}, {fast.peak:.0f} |",
                flush=True,
            )
        print("\n| job | ours (s) | ours CPU (s) | peak (MB) |\n|---|--:|--:|--:|", flush=True)
        for job, script in VALENCE_JOBS.items():
            fast = min(measure([*script, "--root", str(root)]) for _ in range(chosen.repeats))
            print(f"| {job} | {fast.wall:.2f} | {fast.cpu:.2f} | {fast.peak:.0f} |", flush=True)
        print(f"\nFit of the linear model on everybody: {1000 * linear_fit(root, chosen.repeats):.1f} ms.")
        activations, results = (plain / job for job in JOBS)
        pairs = [(root / "preparation" / f"preprocessed_{kind}_data", activations / kind) for kind in KINDS]
        difference = max(largest_difference(*each) for each in pairs)
        same_results = (root / "results" / RESULTS).read_bytes() == (results / RESULTS).read_bytes()
    print(f"\nActivation values: the same clips, largest difference {difference:.1e}.")
    print(f"Results CSV: {'the same to the byte' if same_results else 'NOT the same'}.")
    return 0 if difference <= 1e-12 and same_results else 1


if __name__ == "__main__":
    sys.exit(main())
