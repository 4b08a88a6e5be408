"""A study of one's own through all stages, whatever its participants are called, and the demo of it."""

import importlib
import shutil
import sys
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from conftest import STAGES, clip_text
from numbered import write_consent, write_session

import cut_clips
from fergi.dataset import Folders, find_videos, read_valid_sessions
from fergi.files import FergiError, read_json, write_json, write_tables
from fergi.image_data import image_tables, read_image_data
from fergi.preference.results import SCORERS
from synthetic import demo, study_demo

# Participant → session → number of images.
PEOPLE = {"Zoë B. 02": {1: 2, 4: 3}, "007": {2: 9}, "7": {1: 5}, "1e5": {1: 3}}


@pytest.fixture(scope="module")
def _cut(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "root"
    for who, sessions in PEOPLE.items():
        write_consent(root / "recordings" / who, sharing=who != "007")
        for number, n_images in sessions.items():
            folder = root / "recordings" / who / f"session_{number}"
            write_session(folder, n_images=n_images, seconds=1 / 3, black=[2] if who == "7" else [])
    cut_clips.main(["--root", str(root)])
    return root


@pytest.fixture
def root(_cut, tmp_path):
    """Four participants with odd names; five sessions of 2 to 9 images, cut; one image is black."""
    return shutil.copytree(_cut, tmp_path / "root")


def write_features(root):
    """What stage 4 could have found: 30 frames a clip, faces that move at random."""
    random = np.random.default_rng(8)
    for video, output in find_videos(Folders(root)).items():
        size = 0.2 if video.name.startswith("baseline") else 2.0
        course = np.linspace(0, 1, 30)[:, None] * random.uniform(0, size, 12)
        output.write_text(clip_text(course.round(3)))


def write_image_tables(root):
    """What stage 5 could have written."""
    folders, random = Folders(root), np.random.default_rng(9)
    images = read_image_data(folders, read_valid_sessions(folders))
    scores = {name: {image.key: float(random.normal()) for image in images} for name in SCORERS}
    tables = image_tables(images, scores)
    write_tables({folders.image_tables / f"{who}.csv": table for who, table in tables.items()})


def run_stages(root):
    """Stages 6 to 9, in all modes, and the statistics."""
    for stage in (*STAGES, "fergi.section_6_1"):
        importlib.import_module(stage).main(["--root", str(root)])
    for options in (["--mode", "released"], ["--strict-lopo"], ["--everybody"]):
        importlib.import_module(STAGES[-1]).main(["--root", str(root), *options])
    importlib.import_module("fergi.accuracy_intervals").main(["--root", str(root), "--resamples", "50"])


def test_from_the_collected_folder_to_results(root, capsys):
    """Every name as it is, every pair counted: 1 + 3 pairs, 36, 6 without the black image, and 3."""
    write_features(root)
    write_image_tables(root)
    run_stages(root)
    folders = Folders(root)
    results = pd.read_csv(folders.preference_results(), dtype=str).set_index("user_id")
    assert list(results.index) == sorted(PEOPLE)
    n_pairs = results[["CLIP_score_n_correct", "CLIP_score_n_incorrect"]].astype(int).sum(axis=1)
    assert n_pairs.to_dict() == {"Zoë B. 02": 4, "007": 36, "7": 6, "1e5": 3}
    assert read_json(folders.black_images, "")["7"] == {"1": [2]}

    # The page of the demo, from the same files.
    study_demo.write_page(root)
    page = (folders.results / "study.html").read_text()
    assert "The figures below mean nothing" in page and "4 scripted participants, 49 pairs" in page
    assert page.count("“two red cats”") == 4 and page.count("<figcaption>") == 13
    assert "Participant 007</h2><p>Refused sharing" in page
    assert "Zoë B. 02, session 4" in page and "AUcomb, all" in page and "http" not in page


def test_one_person_alone(root):
    """Nobody is left to learn from: stage 9 says so, all before it runs."""
    write_features(root)
    write_image_tables(root)
    write_json({"7": [1]}, Folders(root).valid_sessions)
    with pytest.raises(FergiError, match="holding out one participant needs at least two participants"):
        run_stages(root)
    assert (Folders(root).activation_tables("reaction") / "7.csv").is_file()


def test_somebody_without_a_valid_reaction(root):
    """In one of two sessions it does not matter; in all, stage 7 names the person."""
    write_features(root)
    write_image_tables(root)
    turned = clip_text(np.zeros(30), yaw_indicative_ratio=0.9)
    for path in (root / "data/Zoë B. 02/session_4").glob("reaction_*_features.csv"):
        path.write_text(turned)
    run_stages(root)
    for path in (root / "data/Zoë B. 02/session_1").glob("reaction_*_features.csv"):
        path.write_text(turned)
    with pytest.raises(FergiError, match=r"1 of 4 participants has no valid reaction clip .*first: Zoë B\. 02, with 5"):
        run_stages(root)


# The demo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "n_steps", "estimator"), [("demo", 11, "fergi"), ("task", 11, "blendshapes"), ("", 15, "fergi")]
)
def test_steps(tmp_path, monkeypatch, there, n_steps, estimator):
    """The estimator is the demo's network, else blendshapes, else one trained first; scripts and roots exist."""
    home, root = tmp_path / "home", tmp_path / "a b"
    files = {
        "demo": home / "demo/AU_models/checkpoint_epoch9.pth",
        "task": home / "pretrained_models/face_landmarker.task",
    }
    if there:
        files[there].parent.mkdir(parents=True)
        files[there].touch()
    monkeypatch.setattr(study_demo, "CHECKOUT", home)
    monkeypatch.setattr(study_demo, "default_root", lambda: home)
    made = study_demo.steps(root)
    assert len(made) == n_steps and len({step.writes for step in made}) == n_steps
    for step in made:
        script, *options = step.command
        assert script == "-m" or (demo.CHECKOUT / script).is_file()
        assert options[options.index("--root") + 1] in (str(root), str(root / "au_model"))
        assert not any(word in " ".join(step.command) for word in ("ROOT", "HOME", "TASK"))
    stage_4 = next(step.command for step in made if step.command[0] == "clips_facial_process.py")
    assert stage_4[stage_4.index("--estimator") + 1] == estimator


def test_interrupted_sessions(tmp_path, monkeypatch):
    """Who has done all sessions stays; who was interrupted begins anew, under another number."""
    pytest.importorskip("playwright")
    from synthetic import participant as browser

    calls = []

    def agree(film, *, sharing):
        calls.append((film.stem, f"{1 + len(calls):03}", sharing))
        (tmp_path / "recordings" / calls[-1][1]).mkdir(parents=True)

    def do_session(film, number, kind, *rest):
        assert kind == ("structured", "free")[number - 1]
        if len(calls) == 2 and number == 2:
            raise KeyboardInterrupt
        (tmp_path / "recordings" / calls[-1][1] / f"session_{number}").mkdir()

    monkeypatch.setattr(study_demo, "server", lambda root: nullcontext("http://127.0.0.1:1/"))
    monkeypatch.setattr(browser, "participant", lambda film, url: nullcontext(film))
    monkeypatch.setattr(browser, "agree", agree)
    monkeypatch.setattr(browser, "do_session", do_session)
    (tmp_path / "camera").mkdir()
    with pytest.raises(KeyboardInterrupt):
        study_demo.hold_sessions(tmp_path)
    study_demo.hold_sessions(tmp_path)
    assert calls == [("first", "001", True), ("second", "002", False), ("second", "003", False)]
    assert sorted(path.name for path in (tmp_path / "recordings").iterdir()) == ["001", "003"]
    assert read_json(tmp_path / "camera/participants.json", "") == {"first": "001", "second": "003"}


def test_needs_a_browser(tmp_path, monkeypatch):
    """Said before the long work."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(FergiError, match=r"no Chromium on the path\. On Debian: apt-get install chromium\."):
        study_demo.main(["--root", str(tmp_path / "new")])
    monkeypatch.setitem(sys.modules, "synthetic.participant", None)
    with pytest.raises(FergiError, match=r"need .* pip install --requirement requirements-dev\.txt"):
        study_demo.main(["--root", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_foreign_folder(tmp_path, monkeypatch):
    """A folder with anything of somebody's own is not touched."""
    monkeypatch.setattr(study_demo, "require_browser", lambda: None)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FergiError, match="was not made by python -m synthetic"):
        study_demo.main(["--root", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
