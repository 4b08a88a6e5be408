"""The whole study on a very small synthetic cohort, and what happens when something goes wrong on the way.

The network learns from too few faces to recover anything here; ``make demo`` is for that.
"""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fergi.dataset import Folders, find_videos
from fergi.files import FergiError
from fergi.script import CHECKOUT
from synthetic.demo import SIZES, STUDY, steps
from synthetic.recovery import NOT_RECOVERED, RECOVERED
from tests.filmed import snapshot

pytestmark = pytest.mark.xdist_group("chain")  # one process makes the root once

COHORT = SIZES["smoke"].cohort
STAMP_HEIGHT = 40  # pixels: less than the strip above a figure of synthetic data, which is empty otherwise
PREFERENCES = "image_preference_binary_classification_based_on_ranking"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, str]:
    """The root of a finished study, and what was said."""
    root = tmp_path_factory.mktemp("chain") / "demo"
    done = demo(root)
    assert f"All {len(STUDY)} steps are done" in done.stdout, done.stdout + done.stderr
    return root, done.stdout


def demo(root: Path) -> subprocess.CompletedProcess:
    """``make demo``, smaller."""
    command = [sys.executable, "-m", "synthetic", "demo", "--root", str(root), "--size", "smoke"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


@pytest.fixture
def root(study, tmp_path) -> Path:
    """A copy of the finished study, to spoil."""
    return Path(shutil.copytree(study[0], tmp_path / "demo"))


def options_of(name: str, root: Path) -> tuple[str, ...]:
    """What the demo gives to a script, the first time."""
    return next(step.command[1:] for step in steps(root, SIZES["smoke"]) if step.command[0] == f"{name}.py")


def script(name: str, root: Path, *options: str) -> None:
    """Run a script in this process, with the options that the demo gives it."""
    importlib.import_module(name).main([*options_of(name, root), *options])


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def refusal(name: str, root: Path, *options: str) -> str:
    """The sentence with which a script stops; nothing has changed then."""
    before = snapshot(root)
    with pytest.raises(FergiError) as caught:
        script(name, root, *options)
    assert snapshot(root) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The chain ---------------------------------------------------------------------------------------------------------


def test_every_stage_left_its_files(study):
    """In the formats of the real ones, and nothing outside of the root."""
    root, _ = study
    folders = Folders(root)
    for video, features in find_videos(folders).items():
        assert len(pd.read_csv(features)) > 0, video
    images = [pd.read_csv(path) for path in sorted(folders.image_tables.glob("*.csv"))]
    assert sum(map(len, images)) == 4 * 3 - COHORT.n_black
    assert np.isfinite(pd.concat(images)[["CLIP_score", "HPS_V2_score"]]).all(axis=None)
    for options in ({}, {"mode": "released"}, {"strict_lopo": True}):
        assert len(pd.read_csv(folders.preference_results(**options))) >= 3
    assert (root / "AU_models" / f"checkpoint_epoch{SIZES['smoke'].epochs}.pth").is_file()


def test_every_figure_is_there_and_says_that_it_is_synthetic(study):
    """Not blank, and with the label that figures of real data do not have."""
    root, _ = study
    names = {path.stem for path in (root / "figures").glob("*.png")}
    assert {"figure_3", "figure_4", "participants", "accuracy", "selection_curve", "search_objective"} <= names
    for name in names:
        drawn = np.asarray(Image.open(root / "figures" / f"{name}.png").convert("L"))
        strip = drawn[:STAMP_HEIGHT]
        assert drawn.std() > 5
        assert (strip[:, drawn.shape[1] // 2 :] < 128).any(), f"{name} has no label"
        assert (strip[:, : drawn.shape[1] // 4] > 200).all(), f"{name} has something else beside the label"
    boxes = np.asarray(Image.open(root / "figures" / "figure_3.png").convert("RGB"))[60:].astype(int)
    assert (np.ptp(boxes, axis=2) > 15).sum() > 1000, "figure_3 has no box"  # white, grey and black are no boxes
    page = (root / "results" / "result_analysis.html").read_text()
    assert page.count("synthetic") >= 5
    assert "Traceback" not in page


def test_the_second_call_does_nothing_but_give_the_verdict_again(study):
    """A line for each quantity, in the table and on the terminal; the exit code is 1 if one is not recovered."""
    root, said = study
    before = snapshot(root)
    again = demo(root)
    assert again.stdout.count("nothing has changed") == len(STUDY)
    assert snapshot(root) == before
    table = pd.read_csv(Folders(root).planted_recovered)
    assert list(table.columns) == ["quantity", "planted", "recovered", "required", "verdict"]
    assert len(table) == 19 and set(table["verdict"]) <= {RECOVERED, NOT_RECOVERED}
    assert all(quantity[:30] in said and quantity[:30] in again.stdout for quantity in table["quantity"])
    lost = (table["verdict"] == NOT_RECOVERED).sum()
    assert again.returncode == (1 if lost else 0)
    assert not lost or f"{lost} of 19 planted quantities were not recovered" in again.stderr


# Drills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lost", "predecessor"),
    [
        ("DISFAwithPlus_train_model", "preparation/DISFA_faces", "preprocess_DISFA.py"),
        ("DISFAwithPlus_train_model", "preparation/DISFAPlus_faces", "preprocess_DISFAPlus.py"),
        ("clips_facial_process", "AU_models", "DISFAwithPlus_train_model.py"),
        ("preprocess_image_data", "pretrained_models", "python -m fergi.weights fetch"),
        ("preprocess_baseline_data", "data/009/session_1/baseline_clip_1_features.csv", "clips_facial_process.py"),
        ("preprocess_reaction_data", "data/009/session_1/reaction_clip_1_features.csv", "clips_facial_process.py"),
        ("preprocess_reaction_data", "preparation/invalid_images.json", "preprocess_image_data.py"),
        ("filter_participants_based_on_AU4", "preparation/preprocessed_baseline_data", "preprocess_baseline_data.py"),
        (PREFERENCES, "preparation/preprocessed_image_data", "preprocess_image_data.py"),
        (PREFERENCES, "preparation/preprocessed_reaction_data", "preprocess_reaction_data.py"),
        (PREFERENCES, "preparation/AU4_excluded_participants.json", "filter_participants_based_on_AU4.py"),
    ],
)
def test_a_stage_before_its_predecessor_says_which_script_to_run(root, name, lost, predecessor):
    """One sentence, and nothing is written."""
    remove(root / lost)
    if name == "clips_facial_process":
        for features in root.rglob("*_features.csv"):
            features.unlink()
    (root / "layouts.json").write_text("{}")  # those of the tiny scorers are lost with their weights
    options = ["--scorer-layouts", str(root / "layouts.json")] if name == "preprocess_image_data" else []
    assert predecessor in refusal(name, root, *options)


KILLER = """
import os, signal, sys
replace, left = os.replace, int(sys.argv[2])
def replace_or_die(*names):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(*names)
os.replace = replace_or_die
import importlib
importlib.import_module(sys.argv[1]).main(sys.argv[3:])
"""


@pytest.mark.parametrize(
    ("name", "n_files", "made"),
    [
        ("preprocess_image_data", 10, ("preparation/preprocessed_image_data", "preparation/image_scores")),
        ("preprocess_baseline_data", 2, ("preparation/preprocessed_baseline_data",)),
        ("preprocess_reaction_data", 2, ("preparation/preprocessed_reaction_data",)),
        ("filter_participants_based_on_AU4", 0, ("preparation/AU4_excluded_participants.json",)),
        (PREFERENCES, 0, ()),
    ],
)
def test_a_killed_stage_resumes_to_the_same_files(root, name, n_files, made):
    """Killed while it puts a file in place; stages 1 to 4 have such tests of their own."""
    complete = snapshot(root)
    for each in made:
        remove(root / each)
    command = [sys.executable, "-c", KILLER, name, str(n_files), *options_of(name, root)]
    killed = subprocess.run(command, cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert snapshot(root) != complete
    script(name, root)
    assert snapshot(root) == complete
