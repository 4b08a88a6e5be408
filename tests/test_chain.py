"""The whole study on a very small synthetic cohort, and what happens when something goes wrong on the way.

The network learns from too few faces to recover anything here; ``make demo`` is for that.
"""

import importlib
import json
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
from fergi.features import ACTION_UNITS, format_clip
from fergi.files import FergiError
from fergi.script import CHECKOUT
from synthetic.cohort import REACTION, plan_sessions
from synthetic.demo import SIZES, steps
from synthetic.recovery import NOT_RECOVERED, RECOVERED, compare
from tests.filmed import snapshot

pytestmark = pytest.mark.xdist_group("chain")  # one process makes the root once

COHORT = SIZES["smoke"].cohort
STAMP_HEIGHT = 40  # pixels: less than the strip above a figure of synthetic data, which is empty otherwise
PREFERENCES = "image_preference_binary_classification_based_on_ranking"
NUMBERS = (
    "preprocess_baseline_data",
    "preprocess_reaction_data",
    "filter_participants_based_on_AU4",
    PREFERENCES,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, str]:
    """The root of a finished study, and what was said."""
    root = tmp_path_factory.mktemp("chain") / "demo"
    done = demo(root)
    assert "All 16 steps are done" in done.stdout, done.stdout + done.stderr
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


def test_the_verdict_is_said(study):
    """A line for each quantity, in the table and on the terminal."""
    root, said = study
    table = pd.read_csv(root / "results" / "planted_recovered.csv")
    assert list(table.columns) == ["quantity", "planted", "recovered", "required", "verdict"]
    assert len(table) == 12
    for quantity in table["quantity"]:
        assert quantity[:30] in said
    assert set(table["verdict"]) <= {RECOVERED, NOT_RECOVERED}


def test_the_second_call_does_nothing_again(study):
    """Only the verdict is given once more."""
    root, _ = study
    before = snapshot(root)
    done = demo(root)
    assert done.stdout.count("nothing has changed") == 16
    assert snapshot(root) == before
    lost = (pd.read_csv(root / "results" / "planted_recovered.csv")["verdict"] == NOT_RECOVERED).sum()
    assert done.returncode == (1 if lost else 0)
    if lost:
        assert f"{lost} of 12 planted quantities were not recovered" in done.stderr


# Planted and recovered ---------------------------------------------------------------------------------------------


def test_perfect_features_recover_and_random_ones_do_not(root):
    """Features that are the injected courses give correlations of 1; those of a stranger's face do not."""
    folders = Folders(root)
    random = np.random.default_rng(0)

    def verdicts(make) -> pd.DataFrame:
        for who, number, session in plan_sessions(COHORT):
            for place, image in enumerate(session.images):
                for kind, take in image.takes.items():
                    n_frames = len(take.intensities)
                    good = [0.95, 0.7, 0.5] * np.ones((n_frames, 1))
                    good[take.disturbance > 0, 0] = 0.5
                    values = np.hstack([good, make(take.intensities)])
                    path = folders.session(who, number) / f"{kind}_clip_{place + 1}_features.csv"
                    path.write_bytes(format_clip(np.arange(n_frames) / 30, values, 3))
        for name in NUMBERS:
            script(name, root)
        return compare(folders).set_index("quantity")["verdict"]

    true = verdicts(lambda course: course + random.normal(0, 0.002, course.shape))
    assert (true[true.index.str.contains("correlation|clips with|moves at rest|black|issues")] == RECOVERED).all()
    false = verdicts(lambda course: random.normal(0, 0.05, course.shape))
    assert (false[false.index.str.contains("correlation|moves at rest")] == NOT_RECOVERED).all()


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
    path = root / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if name == "clips_facial_process":
        for features in root.rglob("*_features.csv"):
            features.unlink()
    options = ["--scorer-layouts", str(keep_layouts(root))] if name == "preprocess_image_data" else []
    assert predecessor in refusal(name, root, *options)


def keep_layouts(root: Path) -> Path:
    """The sizes of scorers without their weights."""
    path = root / "layouts.json"
    path.write_text("{}")
    return path


def test_a_truncated_clip_is_named_and_the_rest_is_done(root, capsys):
    """Stage 4 ends with exit code 1."""
    clip = Folders(root).session("009", 1) / "reaction_clip_2.mp4"
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    others = {path: path.read_bytes() for path in root.rglob("*_clip_1_features.csv")}
    for features in root.rglob("*_features.csv"):
        features.unlink()
    with pytest.raises(
        FergiError,
        match=r"1 of 24 videos have no feature file \(first: .*009/session_1/reaction_clip_2\.mp4 is not a video",
    ):
        script("clips_facial_process", root)
    assert str(clip) in capsys.readouterr().out
    assert {path: path.read_bytes() for path in others} == others
    assert not clip.with_name("reaction_clip_2_features.csv").exists()


def test_a_missing_picture_stops_stage_5(root):
    """It is found beside its neighbours."""
    picture = Folders(root).session("010", 1) / "image2.png"
    picture.unlink()
    assert f"{picture} does not exist" in refusal("preprocess_image_data", root)


def test_a_ranking_with_a_repeated_id_stops_stage_5(root):
    """Named with its file."""
    path = Folders(root).session("011", 1) / "data.json"
    content = json.loads(path.read_text())
    content["ranking"][0]["id"] = content["ranking"][1]["id"]
    path.write_text(json.dumps(content))
    message = refusal("preprocess_image_data", root)
    assert str(path) in message and "ids 0 to 2 once each" in message


def test_a_feature_file_of_another_participant_stops_stage_7(root):
    """Both files are named."""
    one, other = (Folders(root).session(who, 1) / "reaction_clip_1_features.csv" for who in ("008", "009"))
    course = np.linspace(0, 1, 45)[:, None] * np.ones(len(ACTION_UNITS))
    one.write_bytes(format_clip(np.arange(45) / 30, np.hstack([[0.95, 0.7, 0.5] * np.ones((45, 1)), course]), 3))
    other.write_bytes(one.read_bytes())
    assert f"{other} has the frames of {one}" in refusal("preprocess_reaction_data", root)


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
def test_a_stage_that_is_killed_goes_on_to_the_same_files(root, name, n_files, made):
    """Killed while it puts a file in place; stages 1 to 4 have such tests of their own."""
    complete = snapshot(root)
    for each in made:
        if (root / each).is_dir():
            shutil.rmtree(root / each)
        else:
            (root / each).unlink()
    command = [sys.executable, "-c", KILLER, name, str(n_files), *options_of(name, root)]
    killed = subprocess.run(command, cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert snapshot(root) != complete
    script(name, root)
    assert snapshot(root) == complete


def test_reaction_of_the_plan_is_what_was_filmed(study):
    """The truth beside the films is the plan's, for the first participant."""
    who, number, session = next(plan_sessions(COHORT))
    course = pd.read_csv(study[0] / "truth" / who / f"session_{number}" / f"{REACTION}_clip_1.csv")
    np.testing.assert_allclose(course["AU12"], session.images[0].takes[REACTION].intensities[:, 6], atol=1e-12)
