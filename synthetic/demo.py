"""The whole study on synthetic data: every script in its order, and at the end planted beside recovered.

Every step is a process that runs the same script as real data. Finished steps are skipped; an interrupted step runs
again and resumes. When the code, the packages or the options change, everything is made anew, but for the generator of
scenes if its own code has not changed. ``.steps/`` below the root holds these settings and an empty file for each
finished step.

Run     python -m synthetic demo --root demo       what make demo does
        python -m synthetic demo --root demo0 --strength 0      nothing planted, so nothing to find
Takes   a quarter of an hour on two cores without a GPU.
"""

import ctypes
import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from fergi.dataset import Folders
from fergi.files import FergiError, different_settings, sha256, write_json
from fergi.script import CHECKOUT, argument_parser, run
from synthetic.claim import claim, clear
from synthetic.cohort import CohortSettings
from synthetic.recovery import RECOVERED, as_text

CODE = ("*.py", "*.ipynb", "fergi/**/*.py", "synthetic/**/*.py", "requirements.txt")


@dataclass(frozen=True)
class Size:
    """How large the study is, how its AU network is trained, on how many scenes the tiny scorers are.

    The last three are options of the steps from the audience on.
    """

    cohort: CohortSettings
    network: str
    epochs: int
    rate: float
    batch_size: int
    scenes: int
    audience: str = ""
    generator: str = ""
    tuned: str = ""


TINY = {"n_participants": 4, "n_sessions": 1, "n_images": 3, "n_black": 1}
TINY |= {"baseline_seconds": 0.8, "reaction_seconds": 1.5, "n_disfa": 4, "n_disfa_plus": 1, "n_disfa_frames": 8}
SIZES = {
    "demo": Size(CohortSettings(), "ir18-thin", 9, 1e-3, 32, 512),
    "smoke": Size(
        CohortSettings(**TINY),
        "ir10-thin",
        2,
        1e-3,
        16,
        32,
        audience="--people 4 --sessions 1",
        generator="--n-pictures 64 --steps 2",
        tuned="--smoke",
    ),
}


# Name of a step, a file or folder below the root that it writes, what Python is given.
FILMED = (
    ("cohort: people, pictures, films", "truth/people.png",
     "-m synthetic cohort --root {root} {cohort}"),
    ("scorers: tiny networks with weights", "pretrained_models/scorer_layouts.json",
     "-m synthetic scorers --root {root} --seed {seed} --scenes {scenes}"),
    ("stage 1: faces of the mini DISFA", "preparation/DISFA_faces",
     "preprocess_DISFA.py --root {root} --disfa {root}/FER_datasets/DISFA"),
    ("stage 2: faces of the mini DISFA+", "preparation/DISFAPlus_faces",
     "preprocess_DISFAPlus.py --root {root} --disfa-plus {root}/FER_datasets/DISFAPlus"),
    ("stage 3: training the AU model", "{checkpoint}",
     "DISFAwithPlus_train_model.py --root {root} --network {network} --from-scratch --epochs {epochs} "
     "--rate {rate} --last-layer-rate {rate} --batch-size {batch_size} --device cpu"),
    ("stage 4: features of all clips", "data/008/session_1/reaction_clip_1_features.csv",
     "clips_facial_process.py --root {root} --checkpoint {root}/{checkpoint} --network {network} --device cpu "
     "--runtime torch"),
    ("stage 5: answers and scores of images", "preparation/preprocessed_image_data",
     "preprocess_image_data.py --root {root} --scorer-layouts {root}/pretrained_models/scorer_layouts.json "
     "--device cpu"),
    ("stage 6: activation in baseline clips", "preparation/preprocessed_baseline_data",
     "preprocess_baseline_data.py --root {root}"),
    ("stage 7: activation in reaction clips", "preparation/preprocessed_reaction_data",
     "preprocess_reaction_data.py --root {root}"),
    ("stage 8: who is excluded", "preparation/AU4_excluded_participants.json",
     "filter_participants_based_on_AU4.py --root {root}"),
    ("stage 9: preferences, paper mode", "results/{stage_9}.csv",
     "{stage_9}.py --root {root}"),
    ("stage 9: preferences, released mode", "results/{stage_9}_released.csv",
     "{stage_9}.py --root {root} --mode released"),
    ("stage 9: preferences, strict folds", "results/{stage_9}_strict.csv",
     "{stage_9}.py --root {root} --strict-lopo"),
    ("statistics of Section 6.1", "results/emotion_rank_sums.csv",
     "-m fergi.section_6_1 --root {root}"),
    ("intervals of the results", "results/accuracy_intervals.csv",
     "-m fergi.accuracy_intervals --root {root}"),
    ("preference model of the filmed people", "AU_models/preference_linear.json",
     "fit_preference_model.py --root {root} --valence linear"),
    ("annotation, held out", "results/preferences_held_out.csv",
     "annotate_preferences.py --root {root} --held-out"),
)  # fmt: skip
TUNED = (
    ("people who rank nothing", "audience/preparation/preprocessed_reaction_data",
     "-m synthetic audience --root {root} {audience}"),
    ("annotation of their pairs", "audience/results/preferences.csv",
     "annotate_preferences.py --root {root}/audience --model {root}/AU_models/preference_linear.json"),
    ("a scorer tuned on these pairs, and controls", "results/tuned_scorer.csv",
     "-m synthetic tuned --root {root} --what scorer {tuned}"),
    ("a tiny generator of scenes", "pretrained_models/scene_generator",
     "-m synthetic generator --root {root} --seed {seed} --scenes {generator}"),
    ("the generator tuned on these pairs, and controls", "results/tuned_generator.csv",
     "-m synthetic tuned --root {root} --what generator {tuned}"),
)  # fmt: skip
REPORT = (
    ("planted and recovered", "results/planted_recovered.csv",
     "-m synthetic compare --root {root}"),
    ("stage 10: the notebook", "results/result_analysis.html",
     "-m nbconvert --log-level ERROR --KernelManager.transport=ipc --execute --no-input --to html "
     "--output-dir {root}/results result_analysis.ipynb"),
)  # fmt: skip
STUDY = (*FILMED, *TUNED, *REPORT)


@dataclass(frozen=True)
class Step:
    """One process: its name, what Python is given, and a file or folder below the root that it writes."""

    name: str
    command: tuple[str, ...]
    writes: str


def steps(root: Path, size: Size) -> list[Step]:
    """The steps of ``STUDY`` with a root and a size filled in."""
    values = asdict(size) | {"seed": size.cohort.seed, "checkpoint": f"AU_models/checkpoint_epoch{size.epochs}.pth"}
    values["stage_9"] = "image_preference_binary_classification_based_on_ranking"
    values["cohort"] = " ".join(f"--{name.replace('_', '-')}={value}" for name, value in asdict(size.cohort).items())
    made = []
    study = (
        STUDY if size.cohort.strength > 0 else (*FILMED, *REPORT)
    )  # faces without an effect give no pairs to tune on
    for name, written, command in study:
        parts = command.format(root="ROOT", **values).split()  # the root may hold spaces
        made.append(Step(name, tuple(part.replace("ROOT", str(root)) for part in parts), written.format(**values)))
    return made


def run_steps(root: Path, size: Size) -> None:
    """Run the steps of ``STUDY`` that are not finished; as ``run_listed``."""
    run_listed(root, steps(root, size))


def run_listed(root: Path, todo: Sequence[Step]) -> None:
    """Run the steps that are not finished.

    Raises
    ------
    FergiError
        If ``claim`` refuses the folder, or a step fails; its own message stands above.
    """
    claim(root)
    started = time.monotonic()
    settings = {"code": _code(), "commands": [shlex.join(step.command) for step in todo]}
    if different_settings(settings, root / ".steps" / "settings.json") != {}:
        clear(root)
        write_json(settings, root / ".steps" / "settings.json")
    for number, step in enumerate(todo, 1):
        title = f"[{number}/{len(todo)}] {step.name}"
        finished = root / ".steps" / f"{number:02d}"
        if finished.exists() and (root / step.writes).exists():
            print(f"{title}: nothing has changed.", flush=True)
            continue
        print(f"\n{title}\n    python {shlex.join(step.command)}", flush=True)
        begun = time.monotonic()
        environment = os.environ | {"FERGI_ROOT": str(root)}
        command = [sys.executable, *step.command]
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, preexec_fn=_end_with_demo, check=False)
        if done.returncode:
            raise FergiError(
                f"Step {number} of {len(todo)}, {step.name}, ended with exit code {done.returncode}; its message "
                "stands above. Mend that and run the same command again: finished steps stay."
            )
        finished.touch()
        print(f"    {time.monotonic() - begun:.0f} s", flush=True)
    print(f"\nAll {len(todo)} steps are done, after {time.monotonic() - started:.0f} s.", flush=True)


def _code() -> str:
    """The SHA-256 of all scripts, modules and notebooks and of the list of packages."""
    files = sorted(path for pattern in CODE for path in CHECKOUT.glob(pattern))
    return hashlib.sha256(
        "".join(f"{path.relative_to(CHECKOUT)} {sha256(path)}\n" for path in files).encode()
    ).hexdigest()


def _end_with_demo() -> None:
    """First thing in a step's process: ask Linux to end it with the demo, even if the demo is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every step and print the verdict."""
    parser = argument_parser(__doc__, "python -m synthetic demo")
    parser.add_argument("--size", choices=SIZES, default="demo", help="default: %(default)s")
    parser.add_argument("--strength", type=float, help="of the planted effect, intensity 0-5; 0: none")
    parser.add_argument("--seed", type=int, help="another cohort")
    parser.add_argument("--afresh", action="store_true", help="remove everything in --root first")
    chosen = parser.parse_args(arguments)
    root, size = chosen.root.resolve(), SIZES[chosen.size]
    wishes = {name: getattr(chosen, name) for name in ("strength", "seed") if getattr(chosen, name) is not None}
    cohort = replace(size.cohort, **wishes)
    if chosen.afresh:
        clear(root, everything=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does, so that the running step ends as well
    run_steps(root, replace(size, cohort=cohort))

    table = pd.read_csv(Folders(root).planted_recovered, dtype=str)
    print(f"\nSynthetic data, planted strength {cohort.strength:g}:\n\n{as_text(table)}\n")
    print(f"Read {root / 'results' / 'result_analysis.html'}; the figures are in {root / 'figures'}.")
    lost = table[table["verdict"] != RECOVERED]
    if len(lost):
        raise FergiError(
            f"{len(lost)} of {len(table)} planted quantities were not recovered (first: {lost['quantity'].iloc[0]}). "
            "See the table above."
        )
    print(f"All {len(table)} planted quantities were recovered.")


if __name__ == "__main__":
    run(main)
