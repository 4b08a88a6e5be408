"""The whole study on synthetic data: every script in its order, and only what has changed since the last time.

Every step is a process of its own, the very script that real data go through. It is done again when its command, its
code, the packages or a file that it reads have changed, or a file that it wrote is not as it left it; steps that were
interrupted go on where they were. What is known of finished steps lies in ``.steps/`` below the root.
"""

import ast
import ctypes
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fergi.dataset import Folders
from fergi.files import FergiError, sha256, write_json
from synthetic.claim import HOME, claim
from synthetic.cohort import CohortSettings

PREFERENCES = "image_preference_binary_classification_based_on_ranking.py"


@dataclass(frozen=True)
class Size:
    """How large the study is, and how its networks are trained."""

    cohort: CohortSettings
    network: str
    epochs: int
    rate: float
    batch_size: int
    scenes: int  # that the tiny scorers learn from


SIZES = {
    "demo": Size(CohortSettings(), "ir18-thin", 9, 1e-3, 32, 512),
    "smoke": Size(
        CohortSettings(
            n_participants=4,
            n_sessions=1,
            n_images=3,
            baseline_seconds=0.8,
            reaction_seconds=1.5,
            n_black=1,
            n_disfa=4,
            n_disfa_plus=1,
            n_disfa_frames=8,
        ),
        "ir10-thin",
        2,
        1e-3,
        16,
        32,
    ),
}


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes
    ----------
    name : str
        What it is called.
    command : tuple of str
        What Python is given.
    reads, writes : tuple of str
        Patterns of files below the root.
    code : tuple of str
        Patterns of further files of the project that it depends on; what its code imports is known without.
    """

    name: str
    command: tuple[str, ...]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    code: tuple[str, ...] = ()


def steps(root: Path, size: Size) -> list[Step]:
    """The study in order."""
    at = ("--root", str(root))
    folders = Folders(Path())  # names below any root
    cohort = tuple(f"--{name.replace('_', '-')}={value}" for name, value in asdict(size.cohort).items())
    checkpoint = f"AU_models/checkpoint_epoch{size.epochs}.pth"
    clip_features = ("data/*/session_*/*_features.csv", "data/features_settings.json")
    activation = ("preparation/preprocessed_*_data/*.csv",)
    image_tables = ("preparation/preprocessed_image_data/*", "preparation/invalid_images.json")
    modes = {}, {"mode": "released"}, {"strict_lopo": True}
    results = tuple(str(folders.preference_results(**mode)) for mode in modes)
    excluded, listed = str(folders.excluded_participants), str(folders.valid_sessions)
    truth = str(folders.synthetic_truth)
    intervals = ("results/accuracy_intervals.csv", "results/overall_rating_*.csv", "results/emotion_*.csv")
    return [
        Step(
            "cohort: people, pictures, films",
            ("-m", "synthetic.recordings", *at, *cohort),
            writes=(
                "FER_datasets/**/*",
                truth,
                "data/*/session_*/data.json",
                "data/*/session_*/*.png",
                "data/*/session_*/*.mp4",
                "truth/**/*",
                listed,
            ),
        ),
        Step(
            "scorers: tiny networks with weights",
            ("-m", "synthetic.scorers", *at, "--seed", str(size.cohort.seed), "--scenes", str(size.scenes)),
            writes=("pretrained_models/**/*",),
        ),
        Step(
            "stage 1: faces of the mini DISFA",
            ("preprocess_DISFA.py", *at, "--disfa", str(root / "FER_datasets" / "DISFA")),
            reads=("FER_datasets/DISFA/**/*",),
            writes=("preparation/DISFA_faces/**/*",),
        ),
        Step(
            "stage 2: faces of the mini DISFA+",
            ("preprocess_DISFAPlus.py", *at, "--disfa-plus", str(root / "FER_datasets" / "DISFAPlus")),
            reads=("FER_datasets/DISFAPlus/**/*",),
            writes=("preparation/DISFAPlus_faces/**/*",),
        ),
        Step(
            "stage 3: training the AU model",
            (
                "DISFAwithPlus_train_model.py",
                *at,
                *("--network", size.network, "--from-scratch", "--epochs", str(size.epochs)),
                *("--rate", str(size.rate), "--last-layer-rate", str(size.rate)),
                *("--batch-size", str(size.batch_size), "--device", "cpu"),
            ),
            reads=("preparation/DISFA_faces/**/*", "preparation/DISFAPlus_faces/**/*"),
            writes=("AU_models/**/*",),
        ),
        Step(
            "stage 4: features of all clips",
            (
                "clips_facial_process.py",
                *at,
                *("--checkpoint", str(root / checkpoint), "--network", size.network, "--device", "cpu"),
            ),
            reads=("data/*/session_*/*.mp4", checkpoint),
            writes=clip_features,
        ),
        Step(
            "stage 5: answers and scores of images",
            (
                "preprocess_image_data.py",
                *at,
                *("--scorer-layouts", str(root / "pretrained_models" / "scorer_layouts.json"), "--device", "cpu"),
            ),
            reads=("data/*/session_*/data.json", "data/*/session_*/*.png", "pretrained_models/**/*", listed),
            writes=(*image_tables, "preparation/image_scores/*"),
            code=("fergi/scorers/*.py",),
        ),
        *(
            Step(
                f"stage {number}: activation in {kind} clips",
                (f"preprocess_{kind}_data.py", *at),
                reads=(*clip_features, listed, *more),
                writes=(f"preparation/preprocessed_{kind}_data/*",),
            )
            for number, kind, more in ((6, "baseline", ()), (7, "reaction", image_tables[1:]))
        ),
        Step(
            "stage 8: who is left out",
            ("filter_participants_based_on_AU4.py", *at),
            reads=("preparation/preprocessed_baseline_data/*", listed),
            writes=(excluded,),
        ),
        *(
            Step(
                f"stage 9: preferences, {name}",
                (PREFERENCES, *at, *options),
                reads=(*image_tables, "preparation/preprocessed_reaction_data/*", excluded, listed),
                writes=(output,),
            )
            for name, options, output in zip(
                ("paper mode", "released mode", "strict folds"),
                ((), ("--mode", "released"), ("--strict-lopo",)),
                results,
                strict=True,
            )
        ),
        Step(
            "intervals of the results",
            ("-m", "fergi.paper", "--without-check", *at),
            reads=(*results, *image_tables, *activation, excluded, listed),
            writes=intervals,
        ),
        Step(
            "planted and recovered",
            ("-m", "synthetic.recovery", *at),
            reads=("truth/**/*", truth, *clip_features, *image_tables, *activation, excluded, listed, *results),
            writes=("results/planted_recovered.csv",),
        ),
        Step(
            "stage 10: the notebook",
            (
                *("-m", "nbconvert", "--log-level", "ERROR", "--KernelManager.transport=ipc", "--execute"),
                *("--to", "html", "--output-dir", str(root / "results"), "result_analysis.ipynb"),
            ),
            reads=(
                *(*clip_features, *image_tables, *activation, excluded, listed, *results, *intervals),
                *(truth, "data/*/session_*/*.mp4", "results/planted_recovered.csv"),
            ),
            writes=("figures/*", "results/result_analysis.html"),
            code=("result_analysis.ipynb",),
        ),
    ]


def run_steps(root: Path, size: Size) -> None:
    """Do what is not done yet.

    Raises
    ------
    FergiError
        If the folder may not be taken for synthetic data, or a step fails; it has said why.
    """
    claim(root)
    todo = steps(root, size)
    started = time.monotonic()
    for number, step in enumerate(todo, 1):
        title = f"[{number}/{len(todo)}] {step.name}"
        record = root / ".steps" / f"{number:02d}.json"
        key, there = _key(step, root), _read(record)
        if there == {"key": key, "wrote": _digest(root, step.writes)}:
            print(f"{title}: nothing has changed.", flush=True)
            continue
        if there != {"key": key}:  # not merely interrupted
            _remove(root, step.writes)
        write_json({"key": key}, record)
        print(f"\n{title}\n    python {shlex.join(step.command)}", flush=True)
        begun = time.monotonic()
        environment = os.environ | {"FERGI_ROOT": str(root)}
        command = [sys.executable, *step.command]
        done = subprocess.run(command, cwd=HOME, env=environment, preexec_fn=_end_with_demo, check=False)
        if done.returncode:
            raise FergiError(
                f"Step {number} of {len(todo)}, {step.name}, ended with exit code {done.returncode}; what it said "
                "stands above. Mend that and run the same again: finished steps stay."
            )
        write_json({"key": key, "wrote": _digest(root, step.writes)}, record)
        print(f"    {time.monotonic() - begun:.0f} s", flush=True)
    print(f"\nAll {len(todo)} steps are done, after {time.monotonic() - started:.0f} s.", flush=True)


def _read(record: Path) -> Any:
    """What is known of a step; None if it is nothing, or not readable."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _remove(root: Path, patterns: Sequence[str]) -> None:
    """Remove files, and folders in which nothing is left: to some steps every folder is a person."""
    for path in _matches(root, patterns):
        path.unlink()
    for folder, _, _ in os.walk(root, topdown=False):
        if not os.listdir(folder):
            os.rmdir(folder)


def _end_with_demo() -> None:
    """What a step does first: have Linux end it when the demo is gone, even if that was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


# What a step depends on --------------------------------------------------------------------------------------------


def _key(step: Step, root: Path) -> str:
    """Changes when the step has to be done again."""
    code = imported_files(_sources(step), HOME) | {HOME / "requirements.txt"}
    code |= {path for pattern in step.code for path in HOME.glob(pattern)}
    parts = [shlex.join(step.command), _digest_files(HOME, code), _digest(root, step.reads)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _sources(step: Step) -> list[Path]:
    """The project's files that the command names."""
    if step.command[:2] == ("-m", "nbconvert"):
        return [HOME / step.command[-1]]
    if step.command[0] == "-m":
        return [HOME.joinpath(*step.command[1].split(".")).with_suffix(".py")]
    return [HOME / step.command[0]]


def imported_files(sources: Iterable[Path], home: Path) -> set[Path]:
    """The sources and every file of the project below ``home`` that they import, themselves or through others."""
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imports(path):
            parts = name.split(".")
            for length in range(1, len(parts) + 1):  # packages on the way are imported too
                place = home.joinpath(*parts[:length])
                waiting += [each for each in (place.with_suffix(".py"), place / "__init__.py") if each.is_file()]
    return found


def _imports(path: Path) -> set[str]:
    """Names of modules that a script or notebook imports, and of what it takes from them."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _matches(root: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})


def _digest(root: Path, patterns: Sequence[str]) -> str:
    return _digest_files(root, _matches(root, patterns))


def _digest_files(root: Path, paths: Iterable[Path]) -> str:
    """Of names and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    return digest.hexdigest()
