"""AUs from MediaPipe's blendshapes: on drawn people with planted AUs, on the real video, and where it must stop."""

import json
import math
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import shared_folder
from filmed import GREY, film, moving_face, portrait, snapshot, without_workers
from numpy.testing import assert_allclose, assert_array_equal
from test_clips import jobs_for

import clips_facial_process as stage
import config
from fergi.action_units.blendshapes import MAP, NAMES, Blendshapes, Row, intensities
from fergi.action_units.network import random_network
from fergi.activation import clip_activation
from fergi.clips import process_clips
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS, NO_FACE, estimator_of, format_clip, read_clips, valid_frames
from fergi.files import FergiError
from fergi.video import read_frames
from fergi.weights import FACE_LANDMARKER, save_weights
from synthetic.cohort import CohortSettings, bump, plan_sessions, stream
from synthetic.expressions import HEIGHT, UNIT, WIDTH, View, find_actor

FACEMESH = AlignmentSettings(Path("no weights"), "facemesh")
MISSING = [place for place, unit in enumerate(ACTION_UNITS) if unit not in MAP]


@pytest.fixture(scope="module")
def task() -> Path:
    """The real ``face_landmarker.task``."""
    path = shared_folder("real") / "face_landmarker.task"
    if not path.is_file():
        pytest.skip(f"{path} does not exist, so there are no blendshapes to try")
    return path


@pytest.fixture(scope="module")
def landmarker(task) -> Blendshapes:
    return Blendshapes(task)


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner(FACEMESH)


@pytest.fixture
def root(task, tmp_path, monkeypatch) -> Path:
    """A root with nothing but the ``.task`` file."""
    without_workers(monkeypatch)
    FACE_LANDMARKER.under(tmp_path).parent.mkdir()
    FACE_LANDMARKER.under(tmp_path).symlink_to(task)
    return tmp_path


def run(root: Path, *options: str) -> None:
    """All videos below ``in`` → ``out``."""
    folders = ["--videos", str(root / "in"), "--out", str(root / "out")]
    stage.main(["--root", str(root), *folders, "--workers", "1", *options])


# The map


def test_a_row_by_hand():
    """Left and right averaged; a logit is ln 9 at 0.9 and 0 at 0.5, and finite at 0 and 1."""
    scores = {"aLeft": np.array([0.1, 0.9]), "aRight": np.array([0.3, 0.9]), "b": np.array([0.5, 0.1])}
    row = Row(("aLeft", "aRight"), zero=0.1, step=0.2, reason="")
    assert_allclose(row.response(scores), [0.2, 0.9])
    row = Row(("aLeft", "aRight"), down=("b",), less=2, logit=True, zero=0, step=1, reason="")
    assert_allclose(row.response(scores), [(math.log(1 / 9) + math.log(3 / 7)) / 2, 3 * math.log(9)])
    assert np.isfinite(row.response({"aLeft": 0.0, "aRight": 1.0, "b": 0.0}))


def test_intensities_by_hand():
    """A smile of 0.57 is AU12 = 3; the rest at their zeros; AUs without a row are empty."""
    scores = dict.fromkeys(NAMES, 0.5) | {"mouthSmileLeft": 0.52, "mouthSmileRight": 0.62}
    scores |= {"mouthStretchLeft": 0.0042, "mouthStretchRight": 0.0042}
    found = dict(zip(ACTION_UNITS, intensities(scores), strict=True))
    assert found[12] == pytest.approx(3, abs=0.05) and found[20] == pytest.approx(0, abs=0.05)
    assert [unit for unit in ACTION_UNITS if math.isnan(found[unit])] == [5, 6, 9, 15, 17]
    assert all(row.reason.startswith(f"AU{unit} ") and row.step > 0 for unit, row in MAP.items())


# Faces


N_PEOPLE = 2
PEAKS = [(0, 0), (1.5, 0), (4, 0), (0, 1.5), (0, 4), (3, 0)]  # of AU4 and AU12


@pytest.fixture(scope="module")
def drawn(task, tmp_path_factory) -> Path:
    """A root with six clips of each of two drawn people to whom no number of the map was fitted; all processed.

    AU4 and AU12 peak at the intensities of ``PEAKS``; heads move, and other AUs with them.
    """
    root = tmp_path_factory.mktemp("drawn")
    FACE_LANDMARKER.under(root).parent.mkdir()
    FACE_LANDMARKER.under(root).symlink_to(task)
    plans = plan_sessions(CohortSettings(seed=5, n_participants=4, n_images=6, n_sessions=1, reaction_seconds=1.0))
    (root / "in").mkdir()
    for who, (_, _, session) in zip(range(N_PEOPLE), plans, strict=False):
        actor, random = find_actor(stream(5, "person", who)), stream(5, "noise", who)
        for clip, (image, peaks) in enumerate(zip(session.images, PEAKS, strict=True)):
            head = image.takes["reaction"].head
            course = bump(random, len(head["x"]))
            form = cv2.VideoWriter_fourcc(*"mp4v"), 30, (WIDTH, HEIGHT)
            writer = cv2.VideoWriter(str(root / "in" / f"{who}_{clip}.mp4"), *form)
            for frame, height in enumerate(course):
                faces = np.zeros(12)
                faces[[ACTION_UNITS.index(unit) for unit in (4, 12, 6)]] = height * np.array([*peaks, peaks[1] / 2])
                view = {name: float(each[frame]) for name, each in head.items()}
                view |= {"x": UNIT * view["x"], "y": UNIT * view["y"]}
                writer.write(cv2.cvtColor(actor.frame(faces, View(**view), random), cv2.COLOR_RGB2BGR))
            writer.release()
    with pytest.MonkeyPatch.context() as patch:
        without_workers(patch)
        run(root)
    return root


def test_people_on_whom_nothing_was_tuned(drawn):
    """Each person's activation values (eq. 2) follow the planted ones; what has no blendshape is empty."""
    for who in range(N_PEOPLE):
        files = [drawn / "out" / f"{who}_{clip}_features.csv" for clip in range(len(PEAKS))]
        features, problems = read_clips(files)
        assert problems == []
        assert np.isnan(features.intensities[:, MISSING]).all()
        valid = valid_frames(features, config.FRAME_LIMITS)
        assert valid.mean() > 0.8
        found = clip_activation(features, valid, config.WINDOW_SECONDS).values
        for unit, planted, least in ((4, 0, 0.9), (12, 1, 0.9)):
            values, truth = found[:, ACTION_UNITS.index(unit)], np.array(PEAKS)[:, planted]
            assert np.corrcoef(values, truth)[0, 1] > least, (who, unit, values)
            assert 2 < values[truth == 4][0] < 8, (who, unit, values)
    assert estimator_of(drawn / "out")["estimator"] == "blendshapes"


def test_the_real_video(landmarker, aligner):
    """AU12 is 0 before the smile and at least 3 in it; AU4 is higher while she cries than while she smiles."""
    frames = list(read_frames(shared_folder("real") / "WolfgangLanger_Pexels.mp4"))[::8]
    seconds, pictures = np.array([time for time, _ in frames]), [picture for _, picture in frames]
    values = landmarker.frame_values(aligner, pictures)
    assert (values[:, 0] > 0.8).all()
    au4, au12 = (values[:, 3 + ACTION_UNITS.index(unit)] for unit in (4, 12))
    before, smile, crying = ((seconds > first) & (seconds < last) for first, last in ((7, 9), (16.5, 19.5), (3, 5.2)))
    assert np.abs(au12[before]).max() < 0.5 and au12[smile].min() >= 3
    assert au4[crying].mean() > au4[smile].mean() + 2


def test_a_picture_has_its_values_whatever_comes_before(landmarker, aligner):
    """And of two faces the wider one's count, although the other is there."""
    first, second = moving_face(2, 3)
    nobody = landmarker.frame_values(aligner, [GREY])
    assert_array_equal(nobody, [NO_FACE])
    together, alone = (landmarker.frame_values(aligner, each) for each in ([first, GREY, second, first], [first]))
    assert_array_equal(together[[0, 3]], np.repeat(alone, 2, axis=0))
    assert_array_equal(np.isnan(alone[0, 3:]), [unit not in MAP for unit in ACTION_UNITS])
    (face,) = aligner.align([portrait()])
    x, y, width, height = face.box
    both = np.concatenate([portrait(), np.roll(portrait()[:, ::-1], 20, axis=0)], axis=1)
    left, right, nothing = (
        landmarker.blendshapes(both, box)
        for box in (face.box, (2 * 192 - x - width, y + 20, width, height), (150, 150, 30, 30))
    )
    assert nothing is None
    assert abs(left["eyeLookInLeft"] - right["eyeLookInRight"]) < 0.1  # the mirrored face
    assert abs(left["mouthSmileLeft"] - right["mouthSmileRight"]) < 0.1
    assert landmarker.blendshapes(both, (1000, 10, 30, 30)) is None


def test_a_face_in_which_the_landmarker_finds_none_counts_as_no_face(landmarker, aligner, monkeypatch):
    monkeypatch.setattr(landmarker, "blendshapes", lambda picture, box: None)
    assert_array_equal(landmarker.frame_values(aligner, moving_face(2)), [NO_FACE] * 2)


def test_two_workers_give_what_this_process_gives(landmarker, aligner, tmp_path):
    """At another frame rate, with frames without a face; an unreadable video is reported and the rest is done."""
    videos = {"a.avi": [*moving_face(34), GREY], "b.avi": moving_face(5, 9)}
    for name, pictures in videos.items():
        film(tmp_path / name, pictures, "MJPG", rate=25)
    (tmp_path / "bad.avi").write_text("not a video")
    jobs = jobs_for(tmp_path, "a.avi", "bad.avi", "b.avi")
    report = process_clips(jobs, FACEMESH, landmarker, workers=2)
    assert (report.n_clips, report.n_frames) == (2, 40)
    assert report.failures == [f"{tmp_path / 'bad.avi'} is not a video that OpenCV can open"]
    for name in videos:
        times, pictures = zip(*read_frames(tmp_path / name), strict=True)
        expected = format_clip(times, landmarker.frame_values(aligner, pictures), 3)
        assert (tmp_path / f"{name}.csv").read_bytes() == expected


# The script


@pytest.mark.parametrize(("content", "message"), [
    (None, r"^There is nothing to estimate AUs with: neither .*/AU_models/checkpoint_epoch3\.pth nor "
     r".*/face_landmarker\.task exists\. Fetch MediaPipe's blendshapes with: python -m fergi\.weights fetch "
     r"face-landmarker, or the paper's AU model with: python -m fergi\.weights fetch own-recordings .*, or train "),
    (b"", r"face_landmarker\.task is no face landmarker .* \(.*\)\. Remove it\. Fetch it with: python -m fergi"),
    (b"<!DOCTYPE html>", r"face_landmarker\.task is no face landmarker with blendshapes that mediapipe can load \("),
    ("half", r"face_landmarker\.task is no face landmarker with blendshapes that mediapipe can load \("),
    ("other", r"face_landmarker\.task is no face landmarker with blendshapes that mediapipe can load \("),
], ids=["missing", "empty", "page", "half", "other"])  # fmt: skip
def test_a_bad_task_file(root, task, content, message):
    """Missing, empty, a page, cut off, or without the network of blendshapes: one sentence, and nothing is written."""
    path = FACE_LANDMARKER.under(root)
    path.unlink()
    if content == "half":
        path.write_bytes(task.read_bytes()[:2_000_000])
    elif content == "other":
        with zipfile.ZipFile(task) as whole, zipfile.ZipFile(path, "w") as part:
            for name in whole.namelist():
                if "blendshapes" not in name:
                    part.writestr(name, whole.read(name))
    elif content is not None:
        path.write_bytes(content)
    film(root / "in/a.avi", moving_face(2), "MJPG")
    before = snapshot(root)
    with pytest.raises(FergiError, match=message) as caught:
        run(root)
    assert "\n" not in str(caught.value) and snapshot(root) == before
    if content is None:
        with pytest.raises(FergiError, match=r"face_landmarker\.task does not exist\. Fetch it with: python -m fergi"):
            run(root, "--estimator", "blendshapes")


def test_which_estimator_is_chosen(root, capsys):
    """The AU model's if there is one; else blendshapes, which is said. Features of the two are not mixed.

    Settings of the AU model from before estimators had names stay valid for it, and are not those of blendshapes.
    """
    film(root / "in/a.avi", moving_face(2), "MJPG")
    run(root)
    out = capsys.readouterr().out
    assert "There is no " in out and "so MediaPipe's blendshapes estimate the AUs" in out
    save_weights(random_network("ir10-thin", 5).state_dict(), root / "AU_models/checkpoint_epoch3.pth")
    fergi = ["--network", "ir10-thin", "--device", "cpu"]
    with pytest.raises(FergiError, match=r"says that estimator was 'blendshapes' for the files .* it is 'fergi'"):
        run(root, *fergi)
    run(root, "--estimator", "blendshapes")
    assert "MediaPipe" not in capsys.readouterr().out
    run(root, *fergi, "--redo")
    settings = json.loads((root / "out/settings.json").read_text())
    assert settings.pop("estimator") == "fergi"
    assert settings.pop("estimator_version") == settings["checkpoint_sha256"]
    (root / "out/settings.json").write_text(json.dumps(settings))
    run(root, *fergi)
    with pytest.raises(FergiError, match=r"says that network was 'ir10-thin' .* it is 'face_landmarker.task'"):
        run(root, "--estimator", "blendshapes")
    with pytest.raises(SystemExit, match="2"):
        run(root, "--estimator", "blendshapes", "--checkpoint", "a.pth")
    assert "--checkpoint is of --estimator fergi" in capsys.readouterr().err
