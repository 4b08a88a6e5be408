"""Time and memory of annotating and exporting 1, 10, 100 and 1,000 times the published reactions.

Reads   DIR/preparation/ as published and stage 7 left it, DIR/AU_models/preference_linear.json (--data DIR)
Run     python -m benchmarks.annotation --data .
        python -m benchmarks.annotation --data . --times 1 10      (a first look)
Takes   about half an hour and 3 GB of disk with all four sizes; half a minute with two.

Each copy of a participant has the published activation values with noise, and the same tiny pictures. Every figure is
of a whole process, start and imports included. A Markdown table comes out: the time a participant should stay, and so
should the peak memory.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path

from benchmarks.stages import Cost, measure

# Nothing big is imported here: a process's peak memory is counted from that of the process which started it.

NOISE = 0.02  # intensity units, standard deviation
SIDE = 16  # pixels of a picture
FORMATS = ("pick-a-pic", "hpd-v3")


def write_copies(source: Path, root: Path, times: int) -> int:
    """Tables of ``times`` copies of each participant, and their sessions; how many reactions there are."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    from fergi.activation import ACTIVATION_COLUMNS
    from fergi.dataset import Folders, read_valid_sessions

    rng, n_reactions = np.random.default_rng(0), 0
    here, there = Folders(source), Folders(root)
    tables = there.activation_tables("reaction")
    tables.mkdir(parents=True)
    there.data.mkdir()
    for name, sessions in read_valid_sessions(here).items():
        for session in sessions:
            folder = root / "sessions" / name / f"session_{session}"
            folder.mkdir(parents=True)
            (folder / "data.json").write_text(json.dumps({"prompt": f"prompt {session} of {name}"}))
            for image in range(1, 6):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"image{image}.png")
        published = pd.read_csv(here.activation_tables("reaction") / f"{name}.csv")
        columns = list(ACTIVATION_COLUMNS)
        for copy in range(times):
            noise = rng.normal(0, NOISE, (len(published), len(columns)))
            table = published.assign(
                **dict(zip(columns, (published[columns] + noise).clip(lower=0).T.values, strict=True))
            )
            table.to_csv(tables / f"{name}-{copy}.csv", index=False, float_format="%.5f")
            (there.data / f"{name}-{copy}").symlink_to(root / "sessions" / name)
            n_reactions += len(table)
    there.au_models.mkdir()
    shutil.copy(here.au_models / "preference_linear.json", there.au_models)
    return n_reactions


def rows_exported(out: Path) -> int:
    """How many pairs an export has."""
    return json.loads((out / "settings.json").read_text())["rows_hpd-v3"]


def main() -> int:
    """Make the copies, measure each size, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a root with the published data")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100, 1000], help="(default: %(default)s)")
    chosen = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| times the published | participants | reactions | pairs exported | s | CPU, ms a participant | peak, MB |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for times in chosen.times:
        with tempfile.TemporaryDirectory() as folder:
            root, out = Path(folder, "root"), Path(folder, "out")
            process = os.fork()  # what it imports must not count below
            if not process:
                count = write_copies(chosen.data.resolve(), root, times)
                Path(folder, "count").write_text(str(count))
                os._exit(0)
            if os.waitpid(process, 0)[1]:
                raise SystemExit("The copies could not be made.")
            n_people = len(os.listdir(root / "data"))
            command = ["annotate_preferences.py", "--root", str(root), "--export", *FORMATS, "--out", str(out)]
            cost: Cost = measure(command)
            cells = [f"{times:,}", f"{n_people:,}", f"{int(Path(folder, 'count').read_text()):,}"]
            cells += [
                f"{rows_exported(out):,}",
                f"{cost.wall:.0f}",
                f"{1000 * cost.cpu / n_people:.1f}",
                f"{cost.peak:.0f}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
