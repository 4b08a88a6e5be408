"""What tuning a scorer on pairs gives: accuracy before and after on drawn pictures, and memory at the official sizes.

Reads   nothing: pictures are drawn, weights are random or made by synthetic/scorers.py, in a temporary folder
Run     python -m benchmarks.tuning                      the tiny PickScore, three seeds of every kind of labels
        python -m benchmarks.tuning --full-size          a pair at the official sizes, and peak memory
        python -m benchmarks.tuning -- --anchor 0        (options behind -- go to finetune_scorer.py)
Takes   a minute and a half on two cores; --full-size ten, and 4 GB of disk and up to 8 GB of memory.

685 pairs of drawn pictures get labels that are right always, in 72.7 % (as FERGI's selected pairs are), or by coin.
What is right is the drawn quality, match + fidelity. The held-out pairs, 3,000 of 300 other prompts, are always right.
Labels by coin must move the accuracy by less than half a point, since they tell nothing.
"""

import argparse
import contextlib
import io
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.scorers import in_a_process_of_its_own, write_official_sizes
from fergi.scorers.registry import SCORERS, scorer_class
from synthetic.pairs import draw, write_pairs

N_PAIRS, N_PROMPTS, N_HELD_OUT_PROMPTS = 685, 353, 300
LABELS = {"always right": 1.0, "72.7 % right": 0.727, "by coin": 0.5}


def tune(root: Path, *options: object) -> pd.DataFrame:
    """finetune_scorer.py without its output; its table of accuracies before and after."""
    import finetune_scorer

    arguments = ["--root", root, "--out", root / "out", "--device", "cpu", "--workers", 1, "--restart", *options]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        finetune_scorer.main([*map(str, arguments)])
    return pd.read_csv(root / "out" / "evaluation.csv", index_col="figure")


def tiny(root: Path, seeds: int, options: Sequence[str]) -> bool:
    """The table of the tiny PickScore; whether labels by coin moved less than half a point."""
    from synthetic.scorers import LAYOUT_FILE, make_scorers

    make_scorers(root, 0, ["PickScore"])
    training, held_out = draw(101, N_PROMPTS), draw(202, N_HELD_OUT_PROMPTS, first_person=1000)
    write_pairs(held_out, root / "held_out.parquet", right=1, seed=0)
    print("| labels | before, % | after, % (95 %, by person) | gain, points, seed by seed | CPU seconds each |")
    print("|---|---|---|---|---|", flush=True)
    gains = {}
    for name, right in LABELS.items():
        tables, begun = [], time.process_time()
        for seed in range(seeds):
            write_pairs(training, root / "pairs.parquet", right=right, seed=seed, n=N_PAIRS)
            given = ["--scorer", "PickScore", "--pairs", root / "pairs.parquet", "--seed", seed, "--rate", "1e-3"]
            given += ["--held-out-pairs", root / "held_out.parquet", "--scorer-layouts", root / LAYOUT_FILE]
            tables.append(tune(root, *given, "--pairs-at-once", 32, *options))
        gains[name] = [table.loc["gain", "estimate"] for table in tables]
        before, after = tables[0].loc["before", "estimate"], [table.loc["after", "estimate"] for table in tables]
        lower, upper = (np.mean([table.loc["after", end] for table in tables]) for end in ("lower", "upper"))
        each = ", ".join(f"{gain:+.2f}" for gain in gains[name])
        used = (time.process_time() - begun) / seeds
        print(f"| {name} | {before:.2f} | {np.mean(after):.2f} [{lower:.2f}, {upper:.2f}] | {each} | {used:.0f} |")
        sys.stdout.flush()
    return max(map(abs, gains["by coin"])) < 0.5 < np.mean(gains["72.7 % right"])


def full_size(name: str, root: Path, options: Sequence[str]) -> dict[str, Any]:
    """Tune one scorer of the official size, on random weights; in a process of its own, whose memory is measured."""
    begun = time.perf_counter()
    write_pairs([several[:2] for several in draw(1, 2)], root / "pairs.parquet", right=1, seed=0)
    given = ["--scorer", name, "--pairs", root / "pairs.parquet", "--held-out-share", 0.5, "--epochs", 1]
    tune(root, *given, "--pairs-at-once", 1, "--accept", "always", *options)
    from fergi.scorers.adapters import ADAPTER_FILE

    size = (root / "out" / ADAPTER_FILE).stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": time.perf_counter() - begun, "peak": peak, "size": size}


def main(arguments: Sequence[str] | None = None) -> int:
    """One of the two tables; 1 if labels by coin move the accuracy, or labels that tell something do not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tunable = [name for name in SCORERS if scorer_class(name).lora_targets]
    parser.add_argument("--full-size", action="store_true", help="tune on a pair at the official sizes")
    parser.add_argument("--scorers", nargs="+", choices=tunable, default=tunable, help="with --full-size")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("options", nargs="*", help="of finetune_scorer.py")
    chosen = parser.parse_args(arguments)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load}")
    with tempfile.TemporaryDirectory() as folder:
        if not chosen.full_size:
            return 0 if tiny(Path(folder), chosen.seeds, chosen.options) else 1
    print("| scorer | adapter, MB | a step of one pair and six scores, with loading, s | peak memory, GB |")
    print("|---|---|---|---|")
    for name in chosen.scorers:
        with tempfile.TemporaryDirectory() as folder:
            in_a_process_of_its_own(write_official_sizes, name, Path(folder))
            found = in_a_process_of_its_own(full_size, name, Path(folder), chosen.options)
        print(f"| {name} | {found['size']:.1f} | {found['seconds']:.0f} | {found['peak']:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
