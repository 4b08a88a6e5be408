"""Synthetic data on disk are in the formats of the real ones: the project's own readers take them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fergi.action_units.disfa import read_disfa, read_disfa_plus
from fergi.dataset import Folders, find_videos, read_valid_sessions
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, read_json
from fergi.image_data import read_image_data
from fergi.video import read_frames
from synthetic import recordings
from synthetic.__main__ import main
from synthetic.cohort import UNREADABLE_ISSUES, Truth, plan_labelled, plan_sessions
from synthetic.demo import SIZES
from synthetic.expressions import SHEET
from synthetic.recordings import data_sets, write_cohort
from tests.filmed import snapshot

SETTINGS = replace(SIZES["smoke"].cohort, n_disfa=1, n_disfa_plus=1, n_disfa_frames=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A small cohort."""
    root = tmp_path_factory.mktemp("cohort")
    write_cohort(root, SETTINGS, workers=2)
    return root


def test_labels_are_what_was_posed(root):
    """Both cameras of the mini DISFA have the same labels, and one frame each."""
    disfa, disfa_plus = data_sets(root)
    left, right = read_disfa(disfa)
    posed = plan_labelled(SETTINGS, "SN001", "DISFA").intensities
    for part in (left, right):
        assert (part.labels == posed).all()
        assert (part.n_missing, part.n_out_of_range) == (0, 0)
        assert len(list(read_frames(part.video))) == len(posed) == 4
    for part in read_disfa_plus(disfa_plus):
        assert (part.labels == plan_labelled(SETTINGS, "SN001", part.part).intensities).all()
        assert len(part.pictures) == 4


def test_the_two_cameras_look_from_two_sides(root):
    """The yaw ratio of eq. 18 is larger from the one than from the other."""
    aligner = FaceAligner(AlignmentSettings(root / "none", "facemesh"))
    ratios = []
    for part in read_disfa(data_sets(root)[0]):
        faces = aligner.align([picture for _, picture in read_frames(part.video)])
        assert all(face is not None for face in faces)
        ratios.append(np.mean([face.yaw_ratio for face in faces]))
    assert abs(ratios[0] - ratios[1]) > 0.03


def test_answers_and_pictures_are_what_was_planned(root):
    """Ranking by preference, the black picture last; the unreadable answers stop who reads them all the same."""
    folders = Folders(root)
    sessions = read_valid_sessions(folders)
    images = read_image_data(folders, sessions, unreliable_issues=[UNREADABLE_ISSUES])
    planned = [
        (image, session) for _, _, session in plan_sessions(SETTINGS) for image in session.images
    ]  # in the order of participant, session and image
    assert len(images) == len(planned)
    assert sum(plan.black for plan, _ in planned) == SETTINGS.n_black
    for image, (plan, session) in zip(images, planned, strict=True):
        path = folders.session(image.participant, image.session) / f"image{image.image}.png"
        assert (np.asarray(Image.open(path)).max() == 0) == plan.black
        assert (image.black, image.prompt) == (plan.black, session.scene.prompt)
        assert image.rank_score == len(session.images) - session.ranking.index(image.image - 1)
        assert (image.issues is None) == (image.participant == UNREADABLE_ISSUES)
        assert image.ratings[0] == (0 if plan.black else 1 + round(6 * min(max(plan.preference, 0), 1)))
    with pytest.raises(FergiError, match="issuesList must have 8 options"):
        read_image_data(folders, sessions)


def test_clips_are_as_long_and_as_fast_as_planned(root):
    """30 frames a second, and the injected courses beside them."""
    folders, truth = Folders(root), Truth(root)
    videos = find_videos(folders)
    assert len(videos) == 2 * len(pd.read_csv(truth.images)) == 2 * 4 * 3
    for who, number, session in plan_sessions(SETTINGS):
        for place, image in enumerate(session.images):
            for kind, take in image.takes.items():
                frames = list(read_frames(folders.session(who, number) / f"{kind}_clip_{place + 1}.mp4"))
                assert len(frames) == len(take.intensities)
                np.testing.assert_allclose([time for time, _ in frames], np.arange(len(frames)) / 30, atol=1e-3)
                course = pd.read_csv(truth.course(who, number, kind, place + 1))
                columns = [f"AU{unit}" for unit in ACTION_UNITS]
                np.testing.assert_allclose(course[columns], take.intensities, atol=1e-12)
                assert (course["disturbance"].notna() == (take.disturbance > 0)).all()


def test_an_interrupted_run_goes_on_to_the_same_files(root, tmp_path):
    """What is missing is made again, byte for byte; what is there is not touched."""
    complete = snapshot(root)
    kept = root / "data" / "008" / "session_1" / "reaction_clip_1.mp4"
    before = kept.stat().st_mtime_ns
    lost = [path for path in root.rglob("*_clip_2.mp4") if "009" in path.parts]
    lost += [data_sets(root)[1] / "Images" / "SN001" / recordings.TRIALS[0] / "002.jpg", Truth(root).images]
    lost.append(Truth(root).people)
    for path in lost:
        path.unlink()
    write_cohort(root, SETTINGS, workers=1)
    assert snapshot(root) == complete
    assert kept.stat().st_mtime_ns == before


def test_two_cohorts_do_not_mix(root):
    """The settings beside the data say which it is."""
    with pytest.raises(FergiError, match=r"synthetic\.json says that strength was 4\.0 .* Choose another --root"):
        write_cohort(root, replace(SETTINGS, strength=0.0), workers=1)
    assert read_json(Folders(root).synthetic_truth, "")["synthetic"].startswith("drawn faces")


def test_everybody_is_shown(root):
    """All participants; how a sheet looks is tested with the faces."""
    sheet = Image.open(Truth(root).people)
    assert (sheet.height - 72) / SETTINGS.n_participants == sheet.width / len(SHEET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "seed must be 0 or more, not -1"),
        (["--strength", "-1"], "strength must be from 0 to 5, not -1.0"),
        (["--strength", "nan"], "strength must be from 0 to 5, not nan"),
        (["--telling-share", "1.2"], "telling_share must be from 0 to 1, not 1.2"),
        (["--n-participants", "3"], "n_participants must be from 4 to 32, not 3"),
        (["--n-sessions", "0"], "n_sessions must be 1 or more, not 0"),
        (["--n-images", "1"], "n_images must be 2 or more, not 1"),
        (["--n-black", "19"], "n_black must be from 0 to 18, not 19"),
        (["--reaction-seconds", "0"], "reaction_seconds must be from 0.5 to 60, not 0.0"),
        (["--baseline-seconds", "nan"], "baseline_seconds must be from 0.5 to 60, not nan"),
        (["--n-disfa-frames", "0"], "n_disfa_frames must be 1 or more, not 0"),
        (["--n-disfa-plus", "37"], "n_disfa_plus must be from 1 to 36, not 37"),
    ],
)
def test_impossible_cohorts_are_refused(tmp_path, monkeypatch, options, message):
    """In one sentence, before anything is made."""
    monkeypatch.setattr(recordings, "write_cohort", lambda *_, **__: pytest.fail("work has begun"))
    with pytest.raises(FergiError, match=rf"^Such a cohort cannot be made: {re.escape(message)}\.$"):
        main(["cohort", "--root", str(tmp_path), *options])
    assert not any(tmp_path.iterdir())
