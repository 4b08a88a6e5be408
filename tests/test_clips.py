"""From videos to feature files: the released format, and the same bytes however the work is divided."""

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import weakref
from pathlib import Path
from unittest.mock import MagicMock, Mock

import cv2
import filmed
import numpy as np
import pytest
import torch
from filmed import GREY, film, moving_face, portrait, shared_aligner, snapshot, without_workers
from numpy.testing import assert_allclose, assert_array_equal
from small_disk import CHECKOUT, run_with_room_for
from test_video import cut_avi

import clips_facial_process as stage
from fergi import clips
from fergi.action_units.estimator import AUEstimator
from fergi.action_units.network import load_network, network_input, random_network
from fergi.clips import ClipJob, process_clips
from fergi.dataset import Folders, find_videos, find_videos_anywhere
from fergi.faces.pipeline import AlignedFace, AlignmentSettings
from fergi.features import ACTION_UNITS, NO_FACE, format_clip, read_clips
from fergi.files import FergiError
from fergi.video import read_frames
from fergi.weights import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

HEADER = (
    "frame,timestamp,face_detection_confidence_score,pitch_indicative_ratio,yaw_indicative_ratio,"
    "AU1,AU2,AU4,AU5,AU6,AU9,AU12,AU15,AU17,AU20,AU25,AU26"
)
NOTHING = "0,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1"
SMALL = ["--network", "ir10-thin", "--device", "cpu", "--runtime", "torch"]
FEATURES = "*_features.csv"
NAMES = ("baseline_clip_1", "reaction_clip_10", "reaction_clip_1", "reaction_clip_2")
BASELINE, TEN, ONE, TWO = (f"101/session_1/{name}_features.csv" for name in NAMES)
FROM_AVI = "102/session_3/reaction_clip_1_features.csv"
FACEMESH = AlignmentSettings(Path("no weights"), "facemesh")
NO_VIDEOS = r"There are no videos in .*/data \(.*\)\. Put them there, or .*--videos"
TWO_VIDEOS = r"/reaction_clip_1\.avi and .*reaction_clip_1\.mp4 would both write reaction_clip_1_features\.csv\. Rename"


def test_a_feature_file_by_hand():
    """The released format: a small negative value keeps its sign, a frame without a face has whole numbers."""
    face = [0.95, 0.7, 0.49996, 1.23456, -0.0004, 0, 5, 4.9999, -1.5, 2, 3, 1e-9, 0.0625, 10, 0.1]
    cells = "0.950,0.700,0.500,1.235,-0.000,0.000,5.000,5.000,-1.500,2.000,3.000,0.000,0.062,10.000,0.100"
    assert format_clip([0, 1 / 30, 2 / 30], [face, NO_FACE, face], 3).decode() == (
        f"{HEADER}\n1,0.000,{cells}\n2,0.033,{NOTHING}\n3,0.067,{cells}\n"
    )
    assert format_clip([0], [face], 2).decode() == (
        f"{HEADER}\n1,0.000,0.95,0.70,0.50,1.23,-0.00,0.00,5.00,5.00,-1.50,2.00,3.00,0.00,0.06,10.00,0.10\n"
    )
    with pytest.raises(ValueError, match="zip"):  # more times than rows
        format_clip([0, 1], [NO_FACE], 3)


# Which videos there are


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_videos_of_the_data_set(tmp_path):
    """By participant, session, kind and image, 2 before 10. Other files, hidden ones and folders are ignored."""
    touched(
        tmp_path / "data",
        "102/session_1/reaction_clip_1.mp4",
        *(f"101/session_{session}/reaction_clip_{image}.mp4" for session in (10, 2) for image in (10, 2, 1)),
        "101/session_2/baseline_clip_3.AVI",
        *(f"101/session_2/{name}" for name in ("baseline_clip_3_features.csv", "baseline_clip_x.mp4", "image1.png")),
        *(
            f"101/session_2/{name}"
            for name in ("old_reaction_clip_1.mp4", "reaction_clip_1.txt", "._reaction_clip_3.mp4")
        ),
        "101/session_2/reaction_clip_4.mp4/notes.txt",
        "101/session_two/reaction_clip_1.mp4",
        "101/reaction_clip_1.mp4",
    )
    names = [
        "101/session_2/baseline_clip_3",
        *(f"101/session_{session}/reaction_clip_{image}" for session in (2, 10) for image in (1, 2, 10)),
        "102/session_1/reaction_clip_1",
    ]
    found = find_videos(Folders(tmp_path))
    assert [video.relative_to(tmp_path / "data").with_suffix("").as_posix() for video in found] == names
    assert list(found.values()) == [tmp_path / "data" / f"{name}_features.csv" for name in names]


@pytest.mark.parametrize(("names", "of_data_set", "anywhere"), [
    ([], NO_VIDEOS, r"/data is not a folder\. Name one that holds videos\."),
    (["reaction_clip_1_features.csv"], NO_VIDEOS,
     r"There is no video in .*/data \(looked for \.mp4, \.avi, .*\.mpeg\)\. Name"),
    (["reaction_clip_1.mp4", "reaction_clip_1.avi"], TWO_VIDEOS, TWO_VIDEOS),
])  # fmt: skip
def test_folders_of_videos_that_are_refused(tmp_path, names, of_data_set, anywhere):
    """Without a video, or with two that have one output; as a data set and as a folder of any videos."""
    touched(tmp_path, *(f"data/101/session_1/{name}" for name in names))
    with pytest.raises(FergiError, match=of_data_set):
        find_videos(Folders(tmp_path))
    with pytest.raises(FergiError, match=anywhere):
        find_videos_anywhere(tmp_path / "data", tmp_path / "out")


def test_videos_anywhere(tmp_path):
    """Subfolders are kept. Linked folders are searched, each once; what is hidden, as macOS's own files, is not."""
    touched(tmp_path / "in", "b/c/second.MOV", "b/first.webm", "b/notes.txt", "e/f.mp4")
    touched(tmp_path / "in", "._a.mp4", ".cache/b.mp4", "c.mp4/notes.txt", "d.mp4/inside.mp4")
    touched(tmp_path / "elsewhere", "g.mp4")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/e/again").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.mp4").symlink_to("nowhere")
    names = ["b/c/second.MOV", "b/first.webm", "d.mp4/inside.mp4", "e/f.mp4", "gone.mp4", "linked/g.mp4"]
    found = find_videos_anywhere(tmp_path / "in", tmp_path / "out")
    assert list(found) == [tmp_path / "in" / name for name in names]
    assert list(found.values()) == [tmp_path / f"out/{Path(name).with_suffix('')}_features.csv" for name in names]


# AUEstimator


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "checkpoint_epoch3.pth"
    save_weights(random_network("ir10-thin", 5).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    aligned = shared_aligner(FACEMESH).align(moving_face(12))
    return np.stack([face.picture for face in aligned])


@pytest.mark.parametrize(("device", "batch_size", "less"), [
    ("cpu", 8, "bfloat16"),
    pytest.param("cuda", 128, "tf32", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
])  # fmt: skip
def test_estimates(checkpoint, faces, device, batch_size, less):
    """Of channel AU − 1 on picture/255; to the last bit the same wherever a face stands, whoever stands beside it."""
    estimator = AUEstimator(checkpoint, "ir10-thin", device)
    assert estimator.batch_size == batch_size
    expected = estimator.estimate(faces[:8])
    for face, values in zip(faces[:8], expected, strict=True):
        assert estimator.estimate(face[None]).tobytes() == values.tobytes()
    assert estimator.estimate(faces[[11, 3, 10]])[1].tobytes() == expected[3].tobytes()
    assert np.abs(np.diff(expected, axis=0)).max() > 0.01
    network, pictures = load_network(checkpoint, "ir10-thin"), torch.from_numpy(faces[:8]).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        alone = [network(picture[None] / 255)[0, np.array(ACTION_UNITS) - 1].numpy() for picture in pictures]
    assert expected.shape == (8, 12)
    assert_allclose(expected, alone, rtol=1e-4, atol=1e-4)
    reduced = AUEstimator(checkpoint, "ir10-thin", device, less).estimate(faces[:8])
    assert reduced.dtype == np.float32
    assert 0 < np.abs(reduced - expected).max() < 0.05 * expected.std()
    assert estimator.estimate(faces[:8]).tobytes() == expected.tobytes()


def test_too_little_memory(checkpoint, faces, monkeypatch):
    estimator = AUEstimator(checkpoint, "ir10-thin", "cpu")
    monkeypatch.setattr(
        estimator._runtime, "network", Mock(side_effect=torch.OutOfMemoryError("Tried to allocate 3 GiB"))
    )
    with pytest.raises(FergiError, match=r"^cpu has too little memory for the AU network and its batches of faces\."):
        estimator.estimate(faces[:2])


# Through process_clips, with a network whose answers are known


class KnownNetwork:
    """In place of an AUEstimator: a face's intensities are means of its picture, and batches take different times."""

    in_workers, device, batch_size = False, torch.device("cpu"), 8

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.random = random.Random(1)

    def load(self) -> None:
        """There is nothing to load."""

    @staticmethod
    def intensities(face: np.ndarray) -> np.ndarray:
        return face.reshape(12, -1).mean(axis=1)

    def estimate(self, faces: np.ndarray) -> np.ndarray:
        self.sizes.append(len(faces))
        time.sleep(self.random.uniform(0, 0.05))
        return np.stack([self.intensities(face) for face in faces])


def jobs_for(folder: Path, *videos: str) -> list[ClipJob]:
    return [ClipJob(folder / video, folder / f"{video}.csv", 3) for video in videos]


def test_every_face_gets_its_own_values_back(tmp_path):
    """From two workers and two threads; the report is in the order of the clips, and a bad clip disturbs no other."""
    pictures = {"long.avi": moving_face(70), "none.avi": [GREY] * 40, "short.avi": moving_face(3, 5)}
    pictures["some.avi"] = [*moving_face(5, 9), GREY, *moving_face(33, 15)]
    for name, frames in pictures.items():
        film(tmp_path / name, frames, "MJPG")
    cut_avi(tmp_path / "cut.avi", 60, 45)
    (tmp_path / "empty.avi").touch()
    jobs = jobs_for(tmp_path, "empty.avi", "long.avi", "none.avi", "cut.avi", "some.avi", "short.avi")
    told, network, n_threads = [], KnownNetwork(), torch.get_num_threads()
    torch.set_num_threads(n_threads + 1)
    report = process_clips(jobs, FACEMESH, network, workers=2, progress=lambda *news: told.append(news))
    assert torch.get_num_threads() == n_threads + 1
    torch.set_num_threads(n_threads)
    assert (report.n_clips, report.n_frames, report.without_face) == (4, 152, [tmp_path / "none.avi"])
    assert report.failures == [f"{jobs[0].video} is empty", f"{jobs[3].video} breaks off after 45 of 60 frames"]
    assert_allclose(np.sum(told, axis=0), [152 + 32, 6])
    assert max(network.sizes[:-1]) == min(network.sizes[:-1]) == 8  # no face waits for its clip
    assert not jobs[0].output.exists() and not jobs[3].output.exists()
    for name in pictures:
        lines = []
        for _, picture in read_frames(tmp_path / name):
            (face,) = shared_aligner(FACEMESH).align([picture])
            found = face and [face.score, face.pitch_ratio, face.yaw_ratio, *KnownNetwork.intensities(face.picture)]
            lines.append(found or NO_FACE)
        expected = format_clip(np.arange(len(lines)) / 30, lines, 3)
        assert (tmp_path / f"{name}.csv").read_bytes() == expected, name


class FeignedVideo:
    """Grey pictures of a size; before each is decoded, ``n_held`` are held somewhere and ``ahead`` not estimated."""

    def __init__(self, n_frames: int, shape: tuple[int, int], rate: float):
        self.n_frames, self.shape, self.promised = n_frames, shape, 0.0
        self.frame_seconds = 1 / rate if rate else 0.0
        self.network, self.living = KnownNetwork(), weakref.WeakValueDictionary()
        self.n_held: list[int] = []
        self.ahead: list[int] = []

    def frames(self):
        for index in range(self.n_frames):
            self.n_held.append(len(self.living))
            self.ahead.append(index - 8 * len(self.network.sizes))
            picture = self.living[index] = np.full((*self.shape, 3), 128, np.uint8)
            yield 0.0, picture
            del picture


def processed(video: FeignedVideo, folder: Path, monkeypatch, face=None) -> list[str]:
    """The times that are written; each frame has that face."""

    def align(pictures: list[np.ndarray]) -> list:
        return [face] * len(pictures)

    monkeypatch.setattr(clips, "FaceAligner", lambda settings: types.SimpleNamespace(align=align))
    monkeypatch.setattr(clips, "Video", lambda path: contextlib.nullcontext(video))
    process_clips(jobs_for(folder, "a.mp4"), FACEMESH, video.network, workers=0)
    return [line.split(",")[1] for line in (folder / "a.mp4.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(("n", "rate"), [(1, 0), (63, 0), (64, 10), (65, 0)])
def test_one_picture_is_held_at_a_time(tmp_path, monkeypatch, n, rate):
    """No frame is lost, none is held when the next one is decoded, and all are counted at the rate, or 30 FPS."""
    video = FeignedVideo(n, (50, 50), rate)
    assert processed(video, tmp_path, monkeypatch) == [f"{index / (rate or 30):.3f}" for index in range(n)]
    assert video.n_held == [0] * n


def test_decoding_does_not_run_ahead_of_the_network(tmp_path, monkeypatch):
    """A group, a batch that is not full, and four batches that wait or are estimated are all that is held."""
    video = FeignedVideo(400, (8, 8), 0)
    face = AlignedFace(np.zeros((112, 112, 3), np.uint8), 0.9, 0.7, 0.5, (0, 0, 8, 8), None)
    processed(video, tmp_path, monkeypatch, face)
    assert sum(video.network.sizes) == 400 and 32 <= max(video.ahead) <= 32 + 8 + 4 * 8


@pytest.mark.parametrize(("alignment", "error", "message"), [
    (filmed.FatalAlignment(), FergiError, r"^A worker process died while reading {}/face\.avi \(exit code: -9\), "
     r"most likely out of memory\. Replace or remove what it read, or run again with fewer --workers; "
     r"finished clips stay\.$"),
    (dataclasses.replace(FACEMESH, luma="none"), KeyError, r"This happened while reading {}/face\.avi"),
], ids=["killed", "error"])  # fmt: skip
def test_a_worker_that_fails(tmp_path, alignment, error, message):
    """Killed: one sentence with its exit code and the video, which is not the first. Or an error with its traceback.

    Both within a minute of the last news, in place of waiting for ever; on a busy machine a worker starts slowly.
    """
    film(tmp_path / "grey.avi", [GREY] * 5, "MJPG")
    film(tmp_path / "face.avi", moving_face(5), "MJPG")
    jobs, news = jobs_for(tmp_path, "grey.avi", "face.avi"), [time.monotonic()]
    with pytest.raises(error, match=message.format(tmp_path)):
        process_clips(jobs, alignment, KnownNetwork(), workers=1, progress=lambda *_: news.append(time.monotonic()))
    assert time.monotonic() - news[-1] < 60
    assert not jobs[1].output.exists() and multiprocessing.active_children() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyTorch's destructor
def test_workers_that_cannot_be_started(tmp_path, monkeypatch):
    """Those that run are ended, and Ctrl-C works as before."""
    start, n_left = multiprocessing.context.ForkServerProcess.start, [1, 0]

    def start_one(process) -> None:
        if not n_left.pop(0):
            raise OSError("Cannot allocate memory")
        start(process)

    monkeypatch.setattr(multiprocessing.context.ForkServerProcess, "start", start_one)
    with pytest.raises(OSError, match="Cannot allocate"):
        process_clips(jobs_for(tmp_path, "a.mp4", "b.mp4"), FACEMESH, KnownNetwork(), workers=2)
    for process in multiprocessing.active_children():
        process.join(20)
    assert multiprocessing.active_children() == []
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# The script, without workers


@pytest.fixture
def in_process(monkeypatch):
    """See ``filmed``."""
    without_workers(monkeypatch)


@pytest.fixture(scope="module")
def _videos(tmp_path_factory, checkpoint) -> Path:
    """A root with five good clips. There is no face in three frames of reaction 2 and in all of reaction 10."""
    root = tmp_path_factory.mktemp("videos") / "root"
    (root / "AU_models").mkdir(parents=True)
    shutil.copy(checkpoint, root / "AU_models")
    session = root / "data" / "101" / "session_1"
    film(session / "baseline_clip_1.mp4", moving_face(9))
    film(session / "reaction_clip_1.mp4", moving_face(9, 4))
    pictures = enumerate(moving_face(40, 20))
    film(session / "reaction_clip_2.mp4", [GREY if index in (2, 32, 39) else picture for index, picture in pictures])
    film(session / "reaction_clip_10.mp4", [GREY] * 5)
    film(root / "data/102/session_3/reaction_clip_1.avi", moving_face(11, 9), "MJPG", rate=25)
    return root


def run(root: Path, *options: str) -> dict[str, bytes]:
    """Run the script in this process; gives the feature files."""
    stage.main(["--root", str(root), *SMALL, "--workers", "1", *options])
    return snapshot(root / "data", FEATURES)


@pytest.fixture(scope="module")
def _finished(_videos, tmp_path_factory) -> Path:
    root = Path(shutil.copytree(_videos, tmp_path_factory.mktemp("finished") / "root"))
    with pytest.MonkeyPatch.context() as patch:
        without_workers(patch)
        run(root)
    return root


@pytest.fixture
def root(_videos, tmp_path, in_process) -> Path:
    """The videos, of which none is done."""
    return Path(shutil.copytree(_videos, tmp_path / "root"))


@pytest.fixture
def finished(_finished, tmp_path, in_process) -> Path:
    """The videos with their feature files."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))


@pytest.fixture
def expected(_finished) -> dict[str, bytes]:
    """The feature files of one undisturbed run."""
    return snapshot(_finished / "data", FEATURES)


def refuses(root: Path, message: str, *options: str) -> None:
    """The script ends with that sentence, and every file is as before."""
    before = snapshot(root)
    with pytest.raises(FergiError, match=message) as caught:
        run(root, *options)
    assert "\n" not in str(caught.value)
    assert snapshot(root) == before


def interrupt(monkeypatch, root: Path, *options: str) -> None:
    """Ctrl-C before the first clip."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "process_clips", Mock(side_effect=KeyboardInterrupt))
        run(root, *options)


def test_every_clip_has_its_file(_finished, expected, checkpoint):
    """Beside its video, in the order of the names, with a row for each frame; and one file of settings."""
    lengths = [9, 5, 9, 40, 11]
    assert list(expected) == [*(f"101/session_1/{name}_features.csv" for name in NAMES), FROM_AVI]
    features, problems = read_clips([_finished / "data" / name for name in expected])
    assert problems == [] and features.lengths.tolist() == lengths
    assert features.column("timestamp")[-10] == 0.04
    assert expected[TEN] == format_clip(np.arange(5) / 30, [NO_FACE] * 5, 3)
    confidence = features.column("face_detection_confidence_score")
    assert (confidence > 0.8).sum() == sum(lengths) - 3 - 5
    seen = features.values[confidence > 0]
    assert ((seen[:, 3] > 0.55) & (seen[:, 3] < 0.85) & (seen[:, 4] > 0.3) & (seen[:, 4] < 0.7)).all()
    settings = json.loads((_finished / "data/settings.json").read_text())
    assert "bundled short-range detector" in settings["detector"]
    assert settings["landmarks"] == "facemesh" and settings["luma"] == "released"
    assert settings["network"] == "ir10-thin" and settings["precision"] == "float32" and settings["device"] == "cpu"
    assert settings["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_values_are_those_of_a_plain_loop(_finished, expected, checkpoint):
    """Frame by frame with OpenCV, the aligner and the network, the last batch filled up with black."""
    capture = cv2.VideoCapture(str(_finished / "data/101/session_1/reaction_clip_2.mp4"))
    found = []
    while (frame := capture.read())[0]:
        found += shared_aligner(FACEMESH).align([np.ascontiguousarray(frame[1][..., ::-1])])
    assert len(found) == 40 and [index for index, face in enumerate(found) if face is None] == [2, 32, 39]
    network = load_network(checkpoint, "ir10-thin").to(memory_format=torch.channels_last)
    faces = torch.zeros(5 * 8, 112, 112, 3, dtype=torch.uint8)
    faces[:37] = torch.from_numpy(np.stack([face.picture for face in found if face]))
    with torch.inference_mode():
        outputs = torch.cat([network(network_input(batch)) for batch in faces.split(8)])
    estimates = iter(outputs[:, np.array(ACTION_UNITS) - 1].numpy())
    rows = [[face.score, face.pitch_ratio, face.yaw_ratio, *next(estimates)] if face else NO_FACE for face in found]
    assert expected[TWO] == format_clip(np.arange(40) / 30, rows, 3)


def test_of_two_faces_the_wider_counts():
    """On either side, and although the other is detected with more confidence; the pitch ratio shows which it is."""
    wide = (cv2.GaussianBlur(portrait(), (0, 0), 2) * 0.5).astype(np.uint8)
    narrow = np.full_like(wide, 60)
    narrow[:, 14:177] = cv2.resize(portrait(), (163, 192), interpolation=cv2.INTER_AREA)
    nobody = np.zeros_like(wide)
    pairs = [
        np.concatenate(pair, axis=1) for pair in ((wide, nobody), (nobody, narrow), (wide, narrow), (narrow, wide))
    ]
    pictures = [np.pad(pair, ((96, 96), (0, 0), (0, 0))) for pair in pairs]
    wider, other, left, right = shared_aligner(FACEMESH).align(pictures)
    assert other.score > wider.score + 0.05 and wider.score > 0.5
    assert other.pitch_ratio > wider.pitch_ratio + 0.1
    assert_allclose([left.pitch_ratio, right.pitch_ratio], wider.pitch_ratio, atol=0.03)


def test_bad_videos_are_listed_and_the_rest_is_done(root, expected, capsys):
    """Each with its cause, in the order of the clips; run again with better ones, and they are done too."""
    good, empty = (root / f"data/101/session_1/reaction_clip_{image}.mp4" for image in (2, 3))
    content = good.read_bytes()
    good.write_text("not a video")
    empty.touch()
    cause = f"{good} is not a video that OpenCV can open"
    message = rf"^2 of 6 videos have no feature file \(first: {cause}\)\. Replace or remove them and run again; the .*$"
    with pytest.raises(FergiError, match=message):
        run(root)
    out = capsys.readouterr().out.splitlines()
    assert out[-2:] == [f"  {cause}", f"  {empty} is empty"]
    assert any(line.startswith("Wrote 4 feature files, 34 frames, ") for line in out)
    assert snapshot(root / "data", FEATURES) == {name: expected[name] for name in expected if name != TWO}
    good.write_bytes(content)
    empty.unlink()
    assert run(root) == expected
    assert "5 clips, 4 of them done already." in capsys.readouterr().out


def test_finished_clips_are_skipped(finished, expected, capsys):
    """They are not even opened. Done again are all with --redo, and one whose video is newer, unless that is gone."""
    (finished / "data" / ONE).unlink()
    (finished / "data" / TWO).write_text("mine")
    assert run(finished) == expected | {TWO: b"mine"}
    assert capsys.readouterr().out.startswith("5 clips, 4 of them done already.\n")
    run(finished)
    assert capsys.readouterr().out == "5 clips, 5 of them done already.\n"
    assert run(finished, "--redo") == expected
    assert capsys.readouterr().out.startswith("5 clips, 0 of them done already.\n")
    session = finished / "data/101/session_1"
    shutil.copyfile(session / "reaction_clip_2.mp4", session / "reaction_clip_1.mp4")
    (session / "baseline_clip_1.mp4").unlink()
    (session / "baseline_clip_1.mp4").symlink_to("nowhere")
    assert run(finished) == expected | {ONE: expected[TWO]}
    assert capsys.readouterr().out.startswith("5 clips, 4 of them done already.\n")


def test_a_clip_alone_gives_what_it_gives_with_others(root, expected):
    """Every clip falls to one of five shards; batches of other faces make no difference."""
    found = {}
    for part in range(1, 6):
        own = run(root, "--shard", f"{part}/5")
        assert len(own) == part and own.items() >= found.items()
        found = own
    assert found == expected


def test_torchrun_divides_clips_and_cores(finished, expected, monkeypatch, capsys):
    """Parts and parts of parts are not mixed."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    joined = MagicMock()
    monkeypatch.setattr(stage, "joined_process", joined)
    run(finished)
    assert capsys.readouterr().out == "2 clips, 2 of them done already.\n"
    joined.return_value.__enter__.return_value.wait.assert_called_once_with()
    with pytest.raises(SystemExit, match="2"):
        run(finished, "--shard", "1/4")
    assert "error: torchrun divides the clips itself; remove --shard, or start" in capsys.readouterr().err
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert stage.parse([]).workers == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert stage.parse([]).workers == 1


@pytest.mark.parametrize(("options", "message"), [
    *(([f"--shard={shard}"], f"--shard must be like 1/4, the first of four parts, not {shard}")
      for shard in ("0/2", "3/2", "1", "1/", "/2", "1/2/3", "a/b", "-1/2", "1.5/2", "")),
    (["--videos", "."], "--videos and --out go together"),
    (["--out", "."], "--videos and --out go together"),
    (["--workers", "0"], "--workers must be at least 1"),
    (["--baseline-decimals", "4"], "--baseline-decimals"),
    (["--network", "ir51"], "--network"),
    (["--precision", "float8"], "--precision"),
])  # fmt: skip
def test_impossible_options(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        stage.main(options)
    assert message in capsys.readouterr().err


def test_a_folder_of_any_videos(tmp_path, root, expected, capsys):
    """The bytes of a data set, in the same subfolders. A baseline clip has two decimals if wanted, as in the release.

    The script says how many, by what, how fast, and which clip has no face.
    """
    videos, outputs = tmp_path / "in", tmp_path / "out"
    names = {"baseline_clip_1": "me/baseline_clip_x", "reaction_clip_1": "b", "reaction_clip_2": "mine/holiday"}
    names["reaction_clip_10"] = "none"
    for name, new in names.items():
        (videos / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"data/101/session_1/{name}.mp4", videos / f"{new}.mp4")
    before = snapshot(videos)
    run(root, "--videos", str(videos), "--out", str(outputs), "--baseline-decimals", "2")
    assert snapshot(videos) == before and not list(root.rglob(FEATURES))
    assert set(snapshot(outputs)) == {"settings.json", *(f"{new}_features.csv" for new in names.values())}
    found = {name: (outputs / f"{new}_features.csv").read_bytes() for name, new in names.items()}
    precise, rounded = (
        np.array([line.split(b",") for line in content.splitlines()[1:]])
        for content in (expected[BASELINE], found.pop("baseline_clip_1"))
    )
    assert found == {name: expected[f"101/session_1/{name}_features.csv"] for name in found}
    assert all(cell[::-1].index(b".") == 2 for cell in rounded[:, 2:].ravel())
    assert_array_equal(rounded[:, :2], precise[:, :2])
    assert_allclose(rounded[:, 2:].astype(float), precise[:, 2:].astype(float), atol=0.00551)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 clips, 0 of them done already."
    assert lines[1].startswith("Landmarks by facemesh; ir10-thin from ") and lines[1].endswith(
        " on cpu, float32, torch."
    )
    assert lines[2].startswith("Wrote 4 feature files, 63 frames, ") and lines[2].endswith(" frames/s.")
    assert lines[3:] == [f"1 of them have no face in any frame (first: {videos / 'none.mp4'})."]


@pytest.mark.parametrize(("options", "message"), [
    (["--luma", "correct"], r"settings\.json says that luma was 'released' for the files that are there, and now it is "
     r"'correct'\. Use the same settings, another folder, or --redo\."),
    (["--precision", "bfloat16"], r"says that precision was 'float32' .* now it is 'bfloat16'"),
    (["--checkpoint", "{root}/other.pth"], r"says that checkpoint_sha256 was "),
    (["--baseline-decimals", "2"], r"says that baseline_decimals was 3"),
])  # fmt: skip
def test_files_of_different_settings_are_not_mixed(finished, options, message):
    """Nor are they taken for new ones when all is done."""
    save_weights(random_network("ir10-thin", 6).state_dict(), finished / "other.pth")
    options = [option.format(root=finished) for option in options]
    refuses(finished, message, *options)
    (finished / "data" / BASELINE).unlink()
    refuses(finished, message, *options)


def test_files_of_unknown_settings_are_not_mixed_with_new_ones(finished, expected, monkeypatch):
    """As the published ones: if one is missing it is not made, and --redo makes all, even when it is interrupted."""
    (finished / "data/settings.json").unlink()
    for name in expected:
        (finished / "data" / name).write_text("somebody else's")
    assert len(run(finished)) == 5  # nothing is to be done
    (finished / "data" / ONE).unlink()
    refuses(
        finished,
        r"^4 of 5 videos have feature files \(first: .*baseline_clip_1_features\.csv\), and their settings are unknown "
        r"without .*/data/settings\.json\. Make all again with --redo, or move them away\.$",
    )
    interrupt(monkeypatch, finished, "--redo")
    assert run(finished) == expected


@pytest.mark.parametrize("whole", [True, False])
def test_an_unfinished_redo_leaves_no_file_of_the_old_settings(finished, monkeypatch, expected, whole):
    """Whether it was interrupted or was for one shard: what counts as done has the settings that stand beside it."""
    if whole:
        interrupt(monkeypatch, finished, "--redo", "--luma", "correct")
    else:
        run(finished, "--redo", "--luma", "correct", "--shard", "1/2")
    after = run(finished, "--luma", "correct")
    assert json.loads((finished / "data/settings.json").read_text())["luma"] == "correct"
    assert {name for name in expected if after[name] == expected[name]} == {TEN}  # which has no face


@pytest.mark.parametrize(("n_bytes", "options", "message"), [
    (None, [*SMALL, "--estimator", "fergi"], r"checkpoint_epoch3\.pth\)\. Fetch .* fetch au-model .*; or train one"),
    (100_000, SMALL, r"checkpoint_epoch3\.pth cannot be read: it is cut off"),
    (-1, ["--network", "ir50"], r"checkpoint_epoch3\.pth does not fit IResNet .* missing \(first: "),
    (-1, ["--landmarks", "mobilefacenet"], r"mobilefacenet_model_best\.pth\.tar"),
    (-1, ["--precision", "tf32"], r"^There is no tf32 on cpu\. Choose --precision float32 or bfloat16\.$"),
    (-1, ["--videos", "{root}/data", "--out", "{root}/AU_models/checkpoint_epoch3.pth"],
     r"^Cannot write into .*/checkpoint_epoch3\.pth: .* choose another --out\.$"),
])  # fmt: skip
def test_what_is_found_before_any_work(root, n_bytes, options, message):
    """The AU model is missing, cut off, or of the small network where IR-50 is expected; and other causes."""
    path = root / "AU_models/checkpoint_epoch3.pth"
    content = path.read_bytes()
    path.unlink() if n_bytes is None else path.write_bytes(content[: n_bytes if n_bytes > 0 else None])
    refuses(root, message, *(option.format(root=root) for option in options))


@pytest.mark.parametrize("pages", [0, 4])
def test_a_small_disk(_videos, pages, in_process, tmp_path, expected):
    """One sentence; files that were finished are whole, nothing else is there, and the next run resumes."""
    options = ["--root", "{disk}", *SMALL, "--workers", "1"]
    left, message = run_with_room_for(pages, _videos, tmp_path, "clips_facial_process.py", *options)
    assert re.fullmatch(
        r"clips_facial_process\.py: Cannot write .*/disk/data/.*: No space left on device\. "
        r"Make room or choose another --root\.",
        message,
    )
    found = snapshot(left / "data", FEATURES, "*.part", ".*")
    assert found.items() < expected.items() and bool(found) == (pages == 4)
    assert run(left) == expected


def command(root: Path, *options: str) -> subprocess.Popen:
    """The script as a process and a group of its own, from another folder."""
    return subprocess.Popen(
        [sys.executable, str(CHECKOUT / "clips_facial_process.py"), "--root", str(root), *SMALL, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        # Tests that run in the background of a shell would pass it on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def _living(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    states = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = file.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                states.append(file.parent.name)
    return states


def test_a_run_that_is_killed(root, expected):
    """What is there is whole, no process is left, and a second run does the rest; two workers give what one gives."""
    session = root / "data/103/session_1"
    session.mkdir(parents=True)
    for image in range(1, 6):
        shutil.copy(root / "data/101/session_1/reaction_clip_2.mp4", session / f"reaction_clip_{image}.mp4")
        expected[f"103/session_1/reaction_clip_{image}_features.csv"] = expected[TWO]
    script = command(root, "--workers", "2")
    try:
        while len(list(root.rglob(FEATURES))) < 3 and script.poll() is None:
            time.sleep(0.01)
        script.kill()
        assert script.wait(30) == -signal.SIGKILL
        deadline = time.monotonic() + 5
        while _living(script.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert _living(script.pid) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        script.communicate()
    found = snapshot(root / "data", FEATURES)
    assert len(found) >= 3 and found.items() < expected.items()
    script = command(root, "--workers", "2")
    _, err = script.communicate(timeout=180)
    assert script.returncode == 0 and "Traceback" not in err
    assert snapshot(root / "data", FEATURES) == expected


def test_an_interruption_while_processes_start(root):
    """Ctrl-C is sent to all of them, and one sentence is said."""
    script = command(root, "--workers", "1")
    while not (root / "data/settings.json").is_file() and script.poll() is None:
        time.sleep(0.02)
    while len(_living(script.pid)) < 3 and script.poll() is None:
        time.sleep(0.02)
    time.sleep(1)  # they are importing what they need
    os.killpg(script.pid, signal.SIGINT)
    _, err = script.communicate(timeout=60)
    assert err.splitlines()[0] == "Interrupted; finished files are complete."
    assert script.returncode == 1 and "Traceback" not in err


def test_a_bad_video_in_one_process_of_torchrun(root, tmp_path, expected):
    """The first has nothing else and is ready first; the other one's clip is done nevertheless."""
    videos, outputs = tmp_path / "in", tmp_path / "out"
    videos.mkdir()
    (videos / "1.mp4").write_text("not a video")
    shutil.copy(root / "data/101/session_1/reaction_clip_2.mp4", videos / "2.mp4")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--root", str(root), *SMALL, "--videos", str(videos), "--out", str(outputs)]
    done = subprocess.run(
        [sys.executable, *torchrun, filmed.__file__, *options],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)},
        timeout=180,
    )
    assert done.returncode == 1
    assert f"filmed.py: 1 of 1 videos have no feature file (first: {videos / '1.mp4'} is not a " in done.stderr
    assert (outputs / "2_features.csv").read_bytes() == expected[TWO]
