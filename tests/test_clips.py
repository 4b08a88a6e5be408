"""From videos to feature files: the released format, and the same bytes however the work is divided."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import weakref
from dataclasses import dataclass
from pathlib import Path

import cv2
import filmed
import numpy as np
import pytest
import torch
from filmed import GREY, film, moving_face, portrait, shared_aligner, snapshot, threads_for_processes
from numpy.testing import assert_allclose, assert_array_equal
from small_disk import run_with_room_for
from test_video import cut_avi
from test_weights import largest_file

import clips_facial_process as stage
from fergi import clips
from fergi.action_units.estimator import AUEstimator, EstimatorSettings
from fergi.action_units.network import load_network, network_input, random_network
from fergi.clips import ClipJob, _Collector, _End, _Estimates, _Frames
from fergi.dataset import Folders, find_videos, find_videos_anywhere
from fergi.faces.pipeline import AlignmentSettings
from fergi.features import ACTION_UNITS, NO_FACE, format_clip, read_clips
from fergi.files import FergiError
from fergi.video import read_frames
from fergi.weights import save_weights

CHECKOUT = Path(__file__).resolve().parent.parent
HEADER = (
    "frame,timestamp,face_detection_confidence_score,pitch_indicative_ratio,yaw_indicative_ratio,"
    "AU1,AU2,AU4,AU5,AU6,AU9,AU12,AU15,AU17,AU20,AU25,AU26"
)
NOTHING = "0,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1"
SMALL = ["--network", "ir10-thin", "--device", "cpu"]
FEATURES = "*_features.csv"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tests share the machine; threads that wait for each other would make them many times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The format


def test_a_feature_file_by_hand():
    """The released format: a small negative value keeps its sign, a frame without a face has whole numbers."""
    face = [0.95, 0.7, 0.49996, 1.23456, -0.0004, 0, 5, 4.9999, -1.5, 2, 3, 1e-9, 0.0625, 10, 0.1]
    rows = [face, NO_FACE, face]
    assert format_clip([0, 1 / 30, 2 / 30], rows, 3).decode() == (
        f"{HEADER}\n"
        "1,0.000,0.950,0.700,0.500,1.235,-0.000,0.000,5.000,5.000,-1.500,2.000,3.000,0.000,0.062,10.000,0.100\n"
        f"2,0.033,{NOTHING}\n"
        "3,0.067,0.950,0.700,0.500,1.235,-0.000,0.000,5.000,5.000,-1.500,2.000,3.000,0.000,0.062,10.000,0.100\n"
    )
    assert format_clip([0], [face], 2).decode() == (
        f"{HEADER}\n1,0.000,0.95,0.70,0.50,1.23,-0.00,0.00,5.00,5.00,-1.50,2.00,3.00,0.00,0.06,10.00,0.10\n"
    )


@pytest.mark.parametrize("decimals", [2, 3])
def test_what_was_written_is_read_back(tmp_path, decimals):
    values = np.random.default_rng(1).uniform(-1, 5, (40, 15))
    values[:, 0] = np.linspace(0.5, 1, 40)
    values[[0, 7, 39]] = NO_FACE
    times = np.arange(40) / 30
    (tmp_path / "a.csv").write_bytes(format_clip(times, values, decimals))
    features, problems = read_clips([tmp_path / "a.csv"])
    assert problems == []
    assert features.column("frame").tolist() == list(range(1, 41))
    assert_allclose(features.column("timestamp"), times, atol=5.001e-4)
    assert_allclose(features.values[:, 2:], values, atol=0.5001 * 10**-decimals)
    assert_array_equal(features.values[[0, 7, 39], 2:], [NO_FACE] * 3)


def test_as_many_times_as_rows():
    with pytest.raises(ValueError, match="zip"):
        format_clip([0, 1], [NO_FACE], 3)


# Which videos there are


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_videos_in_order_of_numbers(tmp_path):
    """Participant, session, kind, image; 2 before 10. Other files are left alone."""
    touched(
        tmp_path / "data",
        "102/session_1/reaction_clip_1.mp4",
        *(f"101/session_{session}/reaction_clip_{image}.mp4" for session in (10, 2) for image in (10, 2, 1)),
        "101/session_2/baseline_clip_3.AVI",
        "101/session_2/baseline_clip_3_features.csv",
        "101/session_2/baseline_clip_x.mp4",
        "101/session_2/old_reaction_clip_1.mp4",
        "101/session_2/reaction_clip_1.txt",
        "101/session_2/image1.png",
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


def test_no_videos(tmp_path):
    for content in ("101/session_1/reaction_clip_1_features.csv", "101/session_1/film.mp4"):
        touched(tmp_path / "data", content)
        with pytest.raises(FergiError, match=r"There are no videos in .*/data \(.*\)\. Put them there, or .*--videos"):
            find_videos(Folders(tmp_path))


def test_videos_anywhere(tmp_path):
    """The subfolders come back under the folder for the results."""
    touched(tmp_path / "in", "b/c/second.MOV", "first.mp4", "b/notes.txt", "b/first.webm")
    found = find_videos_anywhere(tmp_path / "in", tmp_path / "out")
    assert list(found) == sorted(found)
    assert found == {
        tmp_path / "in/b/c/second.MOV": tmp_path / "out/b/c/second_features.csv",
        tmp_path / "in/b/first.webm": tmp_path / "out/b/first_features.csv",
        tmp_path / "in/first.mp4": tmp_path / "out/first_features.csv",
    }


def test_where_videos_are_looked_for(tmp_path):
    """Behind links to folders, each once; neither in what is hidden, as macOS's own files, nor in folders' names."""
    touched(tmp_path / "in", "._a.mp4", ".cache/b.mp4", "c.mp4/notes.txt", "d.mp4/inside.mp4", "e/f.mp4")
    touched(tmp_path / "elsewhere", "g.mp4")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/e/again").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.mp4").symlink_to("nowhere")
    found = find_videos_anywhere(tmp_path / "in", tmp_path / "out")
    assert [video.relative_to(tmp_path / "in").as_posix() for video in found] == [
        *("d.mp4/inside.mp4", "e/f.mp4", "gone.mp4", "linked/g.mp4")
    ]
    touched(tmp_path / "data/101/session_1", "._reaction_clip_1.mp4", "reaction_clip_3.mp4")
    (tmp_path / "data/101/session_1/reaction_clip_2.mp4").mkdir()
    assert [video.name for video in find_videos(Folders(tmp_path))] == ["reaction_clip_3.mp4"]


def test_no_videos_anywhere(tmp_path):
    with pytest.raises(FergiError, match=r"/in is not a folder\. Name one that holds videos\."):
        find_videos_anywhere(tmp_path / "in", tmp_path / "out")
    touched(tmp_path / "in", "a.txt")
    with pytest.raises(FergiError, match=r"There is no video in .*/in \(looked for \.mp4, \.avi, .*\.mpeg\)\. Name"):
        find_videos_anywhere(tmp_path / "in", tmp_path / "out")


def test_two_videos_with_one_output(tmp_path):
    """In both ways to name videos."""
    touched(tmp_path / "data/101/session_1", "reaction_clip_1.mp4", "reaction_clip_1.avi")
    message = r"reaction_clip_1\.avi and .*reaction_clip_1\.mp4 would both write reaction_clip_1_features\.csv\. Rename"
    with pytest.raises(FergiError, match=message):
        find_videos(Folders(tmp_path))
    with pytest.raises(FergiError, match=message):
        find_videos_anywhere(tmp_path / "data", tmp_path / "out")
    touched(tmp_path / "data/101/session_2", "reaction_clip_1.avi")
    (tmp_path / "data/101/session_1/reaction_clip_1.avi").unlink()
    assert len(find_videos(Folders(tmp_path))) == 2


# The network in batches


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "checkpoint_epoch3.pth"
    save_weights(random_network("ir10-thin", 5).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    aligned = shared_aligner(AlignmentSettings(Path("no weights"), "facemesh")).align(moving_face(12))
    return np.stack([face.picture for face in aligned])


def test_a_face_does_not_notice_its_batch(checkpoint, faces):
    """To the last bit: wherever it stands and whoever stands beside it."""
    estimator = AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cpu"))
    assert estimator.batch_size == 8
    expected = estimator.estimate(faces[:8])
    for face, values in zip(faces[:8], expected, strict=True):
        assert estimator.estimate(face[None]).tobytes() == values.tobytes()
    assert estimator.estimate(faces[[11, 3, 10]])[1].tobytes() == expected[3].tobytes()
    assert np.abs(np.diff(expected, axis=0)).max() > 0.01


def test_estimates_are_those_of_one_picture_at_a_time(checkpoint, faces):
    """Channel AU − 1 of the network on picture/255."""
    network = load_network(checkpoint, "ir10-thin")
    with torch.inference_mode():
        alone = [
            network(torch.from_numpy(face).permute(2, 0, 1)[None].float() / 255)[0, np.array(ACTION_UNITS) - 1].numpy()
            for face in faces[:8]
        ]
    found = AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cpu")).estimate(faces[:8])
    assert found.shape == (8, 12)
    assert_allclose(found, alone, rtol=1e-4, atol=1e-4)


def test_reduced_precision_is_near(checkpoint, faces):
    """Seven bits of mantissa: not the same, but the same to a few hundredths of the spread."""
    whole = AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cpu")).estimate(faces[:8])
    reduced = AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cpu", "bfloat16")).estimate(faces[:8])
    assert reduced.dtype == np.float32
    assert 0 < np.abs(reduced - whole).max() < 0.05 * whole.std()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_same_on_cuda(checkpoint, faces):
    """A face does not notice its batch, and float32 is not the tf32 that PyTorch makes of it."""
    estimator = AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cuda"))
    expected = estimator.estimate(faces)
    assert estimator.estimate(faces[[11, 3, 10]])[1].tobytes() == expected[3].tobytes()
    tf32 = AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cuda", "tf32")).estimate(faces)
    assert estimator.estimate(faces).tobytes() == expected.tobytes()
    on_cpu = AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cpu")).estimate(faces[:8])
    assert_allclose(expected[:8], on_cpu, rtol=1e-4, atol=1e-4)
    assert 0 < np.abs(tf32 - expected).max() < 0.05 * expected.std()


def test_precisions_and_memory_that_a_device_has_not(checkpoint, faces, monkeypatch):
    """One sentence each."""
    with pytest.raises(FergiError, match=r"^There is no tf32 on cpu\. Choose --precision float32 or bfloat16\.$"):
        AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cpu", "tf32"))
    estimator = AUEstimator(EstimatorSettings(checkpoint, "ir10-thin", "cpu"))

    def full(pictures: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 3 GiB")

    monkeypatch.setattr(estimator, "_network", full)
    with pytest.raises(FergiError, match=r"^cpu has too little memory for the AU network and batches of 8 faces\."):
        estimator.estimate(faces[:2])


# Filling batches and putting clips together, with a network that gives a face's own number


class _Post:
    """Messages of four clips in a random order, and a network that answers when it likes."""

    def __init__(self, seed: int, batch_size: int):
        self.random, self.batch_size = random.Random(seed), batch_size
        self.clips: dict[int, list] = {}
        self.answers: list[_Estimates] = []
        self.expected: dict[int, np.ndarray] = {}
        self.sizes: list[int] = []
        self.n_places = 0
        number = 0
        for job, n_chunks in enumerate((3, 1, 4, 2)):
            messages, values = [], []
            for chunk in range(n_chunks):
                # Clip 1 has no face at all, and the second chunk of the others has none either.
                rows = [] if job == 1 or chunk == 1 else sorted(self.random.sample(range(5), 3))
                chunk_values = np.tile(NO_FACE, (5, 1))
                given = np.zeros((len(rows), 112, 112, 3), np.uint8)
                for position, row in enumerate(rows):
                    number += 1
                    given[position] = number
                    chunk_values[row] = [0.9, 0.7, 0.5, *[number] * 12]
                sent = chunk_values.copy()
                sent[rows, 3:] = -1
                times = [(5 * chunk + i) / 30 for i in range(5)]
                # Clip 0 promises what it has, 2 too little, 3 too much; 1 says nothing.
                messages.append(_Frames(job, times, sent, given, rows, (15, 0, 10, 60)[job]))
                values.append(chunk_values)
            self.clips[job] = messages
            self.expected[job] = np.concatenate(values)

    def acquire(self, message) -> None:
        self.n_places += isinstance(message, _Frames)

    def release(self) -> None:
        self.n_places -= 1

    def put(self, batch: tuple[int, np.ndarray]) -> None:
        """A batch for the network."""
        index, given = batch
        assert 0 < len(given) <= self.batch_size
        if len(given) < self.batch_size:  # only when there is nothing better to do
            assert not self.answers or not any(self.clips.values())
        self.sizes.append(len(given))
        self.answers.append(_Estimates(index, np.repeat(given[:, :1, 0, 0].astype(float), 12, axis=1)))

    def get(self, timeout: float):
        """The next message: of any clip, or an answer."""
        waiting = [job for job, messages in self.clips.items() if messages]
        if self.answers and (not waiting or self.random.random() < 0.3):
            return self.answers.pop(self.random.randrange(len(self.answers)))
        if not waiting or self.random.random() < 0.1:
            raise queue.Empty
        message = self.clips[self.random.choice(waiting)].pop(0)
        self.acquire(message)
        return message


@pytest.mark.parametrize("seed", range(12))
def test_every_face_gets_its_own_values_back(tmp_path, seed):
    """In whatever order clips and answers arrive; a clip that fails in between takes nobody with it."""
    post = _Post(seed, batch_size=4)
    for job, messages in post.clips.items():
        messages.append(_End(job, "3.mp4 breaks off" if job == 3 else None))
    jobs = [ClipJob(Path(f"{job}.mp4"), tmp_path / f"{job}.csv", 3) for job in range(4)]
    told = np.zeros(2)

    def progress(*news: int) -> None:
        told[:] += news

    report = _Collector(jobs, 4, None, post, post, progress).collect(post, [])
    for job in range(3):
        n = len(post.expected[job])
        assert (tmp_path / f"{job}.csv").read_bytes() == format_clip(np.arange(n) / 30, post.expected[job], 3)
    assert not (tmp_path / "3.csv").exists()
    assert (report.n_clips, report.n_frames) == (3, 40)
    assert report.without_face == [Path("1.mp4")] and report.failures == ["3.mp4 breaks off"]
    assert_allclose(told, [50, 4])


def test_every_place_is_given_back_once(tmp_path):
    """Else the aligning processes would wait for ever, or run away."""
    for seed in range(6):
        post = _Post(seed, batch_size=4)
        for job, messages in post.clips.items():
            messages.append(_End(job))
        jobs = [ClipJob(Path(f"{job}.mp4"), tmp_path / f"{job}.csv", 3) for job in range(4)]
        _Collector(jobs, 4, None, post, post, lambda *news: None).collect(post, [])
        assert post.n_places == 0
        assert sum(post.sizes) == 6 + 0 + 9 + 3


def test_a_network_in_the_same_process(tmp_path):
    """As on a GPU: answers come at once, and nothing waits for other processes."""

    class Estimator:
        @staticmethod
        def estimate(given: np.ndarray) -> np.ndarray:
            return np.repeat(given[:, :1, 0, 0].astype(float), 12, axis=1)

    post = _Post(3, batch_size=4)
    for job, messages in post.clips.items():
        messages.append(_End(job))
    jobs = [ClipJob(Path(f"{job}.mp4"), tmp_path / f"{job}.csv", 2) for job in range(4)]
    report = _Collector(jobs, 4, Estimator(), None, post, lambda *news: None).collect(post, [])
    assert post.n_places == 0 and report.n_frames == 50
    for job, values in post.expected.items():
        assert (tmp_path / f"{job}.csv").read_bytes() == format_clip(np.arange(len(values)) / 30, values, 2)


@pytest.mark.parametrize(("rate", "expected"), [(0, ["0.000", "0.033", "0.067"]), (10, ["0.000", "0.100", "0.200"])])
def test_a_container_without_times(tmp_path, rate, expected):
    """Frames are counted at its rate, else at thirty a second, over all groups of frames of a clip."""
    messages = queue.Queue()
    for n in (2, 1):
        messages.put(_Frames(0, [0.0] * n, np.tile(NO_FACE, (n, 1)), np.zeros((0, 112, 112, 3), np.uint8), []))
    messages.put(_End(0, frame_seconds=1 / rate if rate else 0.0))
    jobs = [ClipJob(Path("1.mp4"), tmp_path / "1.csv", 3)]
    _Collector(jobs, 4, None, None, threading.Semaphore(), lambda *news: None).collect(messages, [])
    times = [line.split(",")[1] for line in (tmp_path / "1.csv").read_text().splitlines()[1:]]
    assert times == expected


@pytest.mark.parametrize(("n", "lengths"), [(7, [4, 3]), (8, [4, 4]), (9, [4, 4, 1]), (3, [3])])
def test_frames_are_handed_over_in_groups(tmp_path, n, lengths):
    """None is lost or empty at the end."""
    groups = list(clips._groups(read_frames(film(tmp_path / "a.mp4", moving_face(n))), 4))
    assert [len(times) for times, _ in groups] == lengths == [len(pictures) for _, pictures in groups]
    assert_allclose([time for times, _ in groups for time in times], np.arange(n) / 30, atol=1e-6)


def test_few_large_pictures_are_held_at_a_time(monkeypatch):
    """Sixteen of two million pixels, and none of them any longer when the next one is decoded."""
    living, groups = weakref.WeakValueDictionary(), []

    class Clip:
        promised = frame_seconds = 0.0

        def frames(self):
            for index in range(40):
                assert len(living) == index % 16, "pictures that were aligned are still there"
                picture = living[index] = np.empty((1000, 2000, 3), np.uint8)
                yield 0.0, picture
                del picture

    def align(pictures: list[np.ndarray]) -> list[None]:
        groups.append(len(pictures))
        assert under_way == [1]
        return [None] * len(pictures)

    jobs = queue.Queue()
    for job in ((0, Path("a.mp4")), None):
        jobs.put(job)
    aligner = types.SimpleNamespace(align=align)
    monkeypatch.setattr(clips, "FaceAligner", lambda settings: aligner)
    monkeypatch.setattr(clips, "open_video", lambda path: contextlib.nullcontext(Clip()))
    under_way = [0]
    clips._align_clips(None, 0, jobs, queue.Queue(), threading.Semaphore(9), under_way)
    assert groups == [16, 16, 8] and under_way == [0]


def test_the_report_is_in_the_order_of_the_clips(tmp_path):
    """In whatever order the workers come to them."""
    messages = queue.Queue()
    for job in (5, 3, 4, 0, 2, 1):
        if job % 2 == 0:
            nothing = np.zeros((0, 112, 112, 3), np.uint8)
            messages.put(_Frames(job, [0.0], np.array([NO_FACE]), nothing, []))
        messages.put(_End(job, f"{job}.mp4 is empty" if job % 2 else None))
    jobs = [ClipJob(Path(f"{job}.mp4"), tmp_path / f"{job}.csv", 3) for job in range(6)]
    report = _Collector(jobs, 4, None, None, threading.Semaphore(), lambda *news: None).collect(messages, [])
    assert report.failures == ["1.mp4 is empty", "3.mp4 is empty", "5.mp4 is empty"]
    assert report.without_face == [Path("0.mp4"), Path("2.mp4"), Path("4.mp4")]
    assert (report.n_clips, report.n_frames) == (3, 3)


class _Gone:
    """A process that has ended."""

    def __init__(self, code: int):
        self.exitcode = code

    def is_alive(self) -> bool:
        return False


class _Silence:
    """Messages that do not come."""

    n_left = 20

    def get(self, timeout: float) -> None:
        self.n_left -= 1
        assert self.n_left > 0, "it waits for ever"
        raise queue.Empty


def test_a_process_that_is_gone_is_not_waited_for(tmp_path):
    jobs = [ClipJob(Path("1.mp4"), tmp_path / "1.csv", 3)]
    collector = _Collector(jobs, 4, None, None, None, lambda *news: None)
    with pytest.raises(
        FergiError, match=r"^1 of 3 worker processes died \(first exit code: -9\); .* memory\. Run again with few"
    ):
        collector.collect(_Silence(), [_Gone(0), _Gone(-9), _Gone(0)])


def test_what_a_process_read_that_is_gone_is_named(tmp_path):
    """Of two that read something, the one that died; an estimating process reads nothing."""
    jobs = [ClipJob(Path(f"{job}.mp4"), tmp_path / f"{job}.csv", 3) for job in range(3)]
    for gone, said in (((0, -11, 0), r" while reading 2\.mp4 \(first exit code: -11\)"), ((0, 0, 1), r" \(first")):
        collector = _Collector(jobs, 4, None, None, None, lambda *news: None, [1, 3])
        with pytest.raises(FergiError, match=rf"^1 of 3 worker processes died{said}.* again with fewer --workers;"):
            collector.collect(_Silence(), [_Gone(code) for code in gone])


class _NoMore:
    """Stands for a context of multiprocessing that starts one process and not a second."""

    def __init__(self) -> None:
        self.left, self.ended = [], []

    def Semaphore(self, n: int):
        return threading.Semaphore(n)

    def Queue(self):
        made = queue.Queue()
        made.cancel_join_thread = lambda: self.left.append(made)
        return made

    def Process(self, **_):
        def start() -> None:
            if self.ended == ["first"]:
                raise OSError("Cannot allocate memory")
            self.ended.append("first")

        return types.SimpleNamespace(start=start, terminate=self.ended.clear)


def test_processes_that_cannot_be_started(tmp_path, monkeypatch):
    """Those that run are ended, and nobody waits at the end for what was to be said to them."""
    context = _NoMore()
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)
    settings = EstimatorSettings(tmp_path / "none.pth", "ir10-thin", "cpu")
    with pytest.raises(OSError, match="Cannot allocate"):
        clips.process_clips([ClipJob(tmp_path / "a.mp4", tmp_path / "a.csv", 3)], None, settings, workers=1)
    assert context.ended == [] and len(context.left) == 3
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# The script, its processes being threads


@pytest.fixture
def threads(monkeypatch):
    """See ``filmed``."""
    threads_for_processes(monkeypatch)


@pytest.fixture(scope="module")
def _videos(tmp_path_factory, checkpoint) -> Path:
    """A root with five good clips, and what makes each of them different.

    reaction 2   40 frames, of which the 3rd, the 33rd and the last have no face
    reaction 10  no face in any frame
    """
    root = tmp_path_factory.mktemp("videos") / "root"
    (root / "AU_models").mkdir(parents=True)
    shutil.copy(checkpoint, root / "AU_models")
    session = root / "data" / "101" / "session_1"
    film(session / "baseline_clip_1.mp4", moving_face(9))
    film(session / "reaction_clip_1.mp4", moving_face(9, 4))
    pictures = moving_face(40, 20)
    for index in (2, 32, 39):
        pictures[index] = GREY
    film(session / "reaction_clip_2.mp4", pictures)
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
        threads_for_processes(patch)
        run(root)
    return root


@pytest.fixture
def root(_videos, tmp_path) -> Path:
    """The videos, of which none is done."""
    return Path(shutil.copytree(_videos, tmp_path / "root"))


@pytest.fixture
def finished(_finished, tmp_path) -> Path:
    """The videos with their feature files."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))


@pytest.fixture
def expected(_finished) -> dict[str, bytes]:
    """The feature files of one undisturbed run."""
    return snapshot(_finished / "data", FEATURES)


def expect(message: str, *arguments: str) -> None:
    """The script ends with that sentence."""
    with pytest.raises(FergiError, match=message) as caught:
        stage.main([*arguments])
    assert "\n" not in str(caught.value)


def test_every_clip_has_its_file(_finished, expected):
    """Beside its video, in the released format; frames without a face have the released row."""
    assert list(expected) == [
        "101/session_1/baseline_clip_1_features.csv",
        "101/session_1/reaction_clip_10_features.csv",
        "101/session_1/reaction_clip_1_features.csv",
        "101/session_1/reaction_clip_2_features.csv",
        "102/session_3/reaction_clip_1_features.csv",
    ]
    lengths = [9, 5, 9, 40, 11]
    features, problems = read_clips([_finished / "data" / name for name in expected])
    assert problems == [] and features.lengths.tolist() == lengths
    lines = {name: content.decode().splitlines() for name, content in expected.items()}
    assert all(each[0] == HEADER for each in lines.values())
    gone = [line for line in lines["101/session_1/reaction_clip_2_features.csv"] if line.endswith(f",{NOTHING}")]
    assert gone == [f"3,0.067,{NOTHING}", f"33,1.067,{NOTHING}", f"40,1.300,{NOTHING}"]
    assert lines["101/session_1/reaction_clip_10_features.csv"][1:] == [
        f"{frame},{(frame - 1) / 30:.3f},{NOTHING}" for frame in range(1, 6)
    ]
    assert lines["102/session_3/reaction_clip_1_features.csv"][2].startswith("2,0.040,")
    confidence = features.column("face_detection_confidence_score")
    assert (confidence > 0.8).sum() == sum(lengths) - 3 - 5
    seen = features.values[confidence > 0]
    assert ((seen[:, 3] > 0.55) & (seen[:, 3] < 0.85) & (seen[:, 4] > 0.3) & (seen[:, 4] < 0.7)).all()


def test_values_are_those_of_a_plain_loop(_finished, expected, checkpoint):
    """Frame by frame with OpenCV, the aligner and the network, the last batch filled up with black."""
    capture = cv2.VideoCapture(str(_finished / "data/101/session_1/reaction_clip_2.mp4"))
    aligner = shared_aligner(AlignmentSettings(Path("no weights"), "facemesh"))
    found = []
    while (frame := capture.read())[0]:
        found += aligner.align([np.ascontiguousarray(frame[1][..., ::-1])])
    assert len(found) == 40
    network = load_network(checkpoint, "ir10-thin").to(memory_format=torch.channels_last)
    pictures = [face.picture for face in found if face]
    batches = np.zeros((-(-len(pictures) // 8) * 8, 112, 112, 3), np.uint8)
    batches[: len(pictures)] = pictures
    with torch.inference_mode():
        outputs = [
            network(network_input(torch.from_numpy(batch))).numpy() for batch in batches.reshape(-1, 8, 112, 112, 3)
        ]
    estimates = iter(np.concatenate(outputs))
    lines = [HEADER]
    for index, face in enumerate(found):
        cells = NOTHING
        if face:
            values = next(estimates)
            numbers = [face.score, face.pitch_ratio, face.yaw_ratio, *(values[unit - 1] for unit in ACTION_UNITS)]
            cells = ",".join(f"{number:.3f}" for number in numbers)
        lines.append(f"{index + 1},{index / 30:.3f},{cells}")
    assert expected["101/session_1/reaction_clip_2_features.csv"].decode().splitlines() == lines


def test_two_decimals_for_baseline_clips_as_in_the_release(root, threads, expected):
    """The others keep three."""
    found = run(root, "--baseline-decimals", "2")
    name = "101/session_1/baseline_clip_1_features.csv"
    precise, rounded = (
        np.array([line.split(b",") for line in content.splitlines()[1:]])
        for content in (expected.pop(name), found.pop(name))
    )
    assert found == expected
    assert all(cell[::-1].index(b".") == 2 for cell in rounded[:, 2:].ravel())
    assert_array_equal(rounded[:, :2], precise[:, :2])
    assert_allclose(rounded[:, 2:].astype(float), precise[:, 2:].astype(float), atol=0.00551)


def test_what_the_script_says(root, threads, capsys):
    """How many, by what, how fast, and which clip has no face."""
    run(root)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 clips, 0 of them done already."
    assert lines[1].startswith("Landmarks by facemesh; ir10-thin from ") and lines[1].endswith(" on cpu, float32.")
    assert lines[2].startswith("Wrote 5 feature files, 74 frames, ") and lines[2].endswith(" frames/s.")
    clip = root / "data/101/session_1/reaction_clip_10.mp4"
    assert lines[3:] == [f"1 of them have no face in any frame (first: {clip})."]


def test_of_two_faces_the_wider_counts(tmp_path, threads, checkpoint):
    """On either side, and although the other one is seen more surely; which it is shows in the pitch ratio."""
    wide = (cv2.GaussianBlur(portrait(), (0, 0), 2) * 0.5).astype(np.uint8)
    narrow = np.full_like(wide, 60)
    narrow[:, 14:177] = cv2.resize(portrait(), (163, 192), interpolation=cv2.INTER_AREA)
    nobody = np.zeros_like(wide)
    for name, pair in (
        ("wide", (wide, nobody)),
        ("narrow", (nobody, narrow)),
        ("left", (wide, narrow)),
        ("right", (narrow, wide)),
    ):
        picture = np.zeros((384, 384, 3), np.uint8)
        picture[96:288] = np.concatenate(pair, axis=1)
        film(tmp_path / f"{name}.avi", [picture] * 4, "MJPG", side=384)
    options = [*SMALL, "--workers", "1", "--checkpoint", str(checkpoint), "--root", str(tmp_path)]
    stage.main([*options, "--videos", str(tmp_path), "--out", str(tmp_path / "out")])
    score, pitch = (
        {
            name: read_clips([tmp_path / "out" / f"{name}_features.csv"])[0].column(column)
            for name in ("wide", "narrow", "left", "right")
        }
        for column in ("face_detection_confidence_score", "pitch_indicative_ratio")
    )
    assert score["narrow"].min() > score["wide"].max() + 0.05 and score["wide"].min() > 0.5
    assert pitch["narrow"].min() > pitch["wide"].max() + 0.1
    assert_allclose(pitch["left"], pitch["wide"], atol=0.03)
    assert_allclose(pitch["right"], pitch["wide"], atol=0.03)


def test_bad_videos_are_listed_and_the_rest_is_done(root, threads, expected, capsys):
    """Each with its cause, in the order of the clips; run again with better ones, and they are done too."""
    session = root / "data/101/session_1"
    good = (session / "reaction_clip_2.mp4").read_bytes()
    (session / "reaction_clip_2.mp4").write_text("not a video")
    (session / "reaction_clip_3.mp4").touch()
    cut_avi(session / "reaction_clip_4.avi", 40, 35)
    cause = f"{session / 'reaction_clip_2.mp4'} is not a video that OpenCV can open"
    causes = [
        cause,
        f"{session / 'reaction_clip_3.mp4'} is empty",
        f"{session / 'reaction_clip_4.avi'} breaks off after 35 of 40 frames",
    ]
    expect(
        rf"^3 of 7 videos have no feature file \(first: {cause}\)\. Replace or remove them and run again; the others ",
        *("--root", str(root), *SMALL, "--workers", "1"),
    )
    out = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in out[-3:]] == causes
    assert any(line.startswith("Wrote 4 feature files, 34 frames, ") for line in out)
    name = "101/session_1/reaction_clip_2_features.csv"
    assert snapshot(root / "data", FEATURES) == {key: expected[key] for key in expected if key != name}

    (session / "reaction_clip_2.mp4").write_bytes(good)
    (session / "reaction_clip_3.mp4").unlink()
    (session / "reaction_clip_4.avi").unlink()
    assert run(root) == expected
    assert "5 clips, 4 of them done already." in capsys.readouterr().out


def test_finished_clips_are_skipped(finished, threads, expected, capsys):
    """They are not even opened; --redo does them again."""
    marked = finished / "data/101/session_1/reaction_clip_2_features.csv"
    marked.write_text("mine")
    lost = finished / "data/101/session_1/reaction_clip_1_features.csv"
    lost.unlink()
    found = run(finished)
    assert "5 clips, 4 of them done already." in capsys.readouterr().out
    assert found == expected | {"101/session_1/reaction_clip_2_features.csv": b"mine"}
    run(finished)
    assert capsys.readouterr().out == "5 clips, 5 of them done already.\n"
    assert run(finished, "--redo") == expected
    assert "5 clips, 0 of them done already." in capsys.readouterr().out


def test_a_video_that_was_replaced_is_done_again(finished, threads, expected, capsys):
    """It is newer than its features; a link to it that leads nowhere any longer is not."""
    session = finished / "data/101/session_1"
    shutil.copyfile(session / "reaction_clip_2.mp4", session / "reaction_clip_1.mp4")
    (session / "baseline_clip_1.mp4").unlink()
    (session / "baseline_clip_1.mp4").symlink_to("nowhere")
    found = run(finished)
    assert "5 clips, 4 of them done already." in capsys.readouterr().out
    one, two = (f"101/session_1/reaction_clip_{image}_features.csv" for image in (1, 2))
    assert found == expected | {one: expected[two]}


def test_a_clip_alone_gives_what_it_gives_with_others(root, threads, expected):
    """Batches of other faces make no difference."""
    name = "101/session_1/reaction_clip_2"
    for video in snapshot(root / "data", "*.mp4", "*.avi"):
        if not video.startswith(f"{name}."):
            (root / "data" / video).unlink()
    assert run(root) == {f"{name}_features.csv": expected[f"{name}_features.csv"]}


def test_two_shards_give_what_one_run_gives(root, threads, expected):
    """Every clip falls to one of them."""
    first = run(root, "--shard", "1/2")
    assert len(first) == 3
    (root / "data").rename(root / "first")
    shutil.copytree(root / "first", root / "data", ignore=shutil.ignore_patterns(FEATURES))
    second = run(root, "--shard", "2/2")
    assert not set(first) & set(second)
    assert first | second == expected


def test_torchrun_divides_clips_and_cores(finished, threads, expected, monkeypatch, capsys):
    """Parts and parts of parts are not mixed."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    met = []
    monkeypatch.setattr(stage, "wait_for_other_processes", lambda: met.append(True))
    run(finished)
    assert capsys.readouterr().out == "2 clips, 2 of them done already.\n" and met == [True]
    with pytest.raises(SystemExit, match="2"):
        run(finished, "--shard", "1/4")
    assert "error: torchrun divides the clips itself; leave out --shard, or start" in capsys.readouterr().err
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert stage.parse([]).workers == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert stage.parse([]).workers == 1


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/", "/2", "1/2/3", "a/b", "-1/2", "1.5/2", ""])
def test_impossible_shards(shard, capsys):
    with pytest.raises(SystemExit, match="2"):
        stage.main([f"--shard={shard}"])
    assert f"--shard must be like 1/4, the first of four parts, not {shard}" in capsys.readouterr().err


def test_options_that_do_not_go_together(tmp_path, capsys):
    for options, message in (
        (["--videos", str(tmp_path)], "--videos and --out go together"),
        (["--out", str(tmp_path)], "--videos and --out go together"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--baseline-decimals", "4"], "--baseline-decimals"),
        (["--network", "ir51"], "--network"),
        (["--precision", "float8"], "--precision"),
    ):
        with pytest.raises(SystemExit, match="2"):
            stage.main(options)
        assert message in capsys.readouterr().err


def test_a_folder_of_any_videos(tmp_path, root, threads, expected):
    """The same bytes as in a data set; subfolders are kept; a file named like a baseline clip is rounded like one."""
    session = root / "data/101/session_1"
    for name, new in (
        ("reaction_clip_2", "mine/holiday"),
        ("reaction_clip_1", "b"),
        ("baseline_clip_1", "me/baseline_clip_x"),
    ):
        (tmp_path / "in" / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(session / f"{name}.mp4", tmp_path / "in" / f"{new}.mp4")
    before = snapshot(tmp_path / "in")
    run(root, "--videos", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert snapshot(tmp_path / "in") == before
    assert snapshot(tmp_path / "out", FEATURES) == {
        "b_features.csv": expected["101/session_1/reaction_clip_1_features.csv"],
        "me/baseline_clip_x_features.csv": expected["101/session_1/baseline_clip_1_features.csv"],
        "mine/holiday_features.csv": expected["101/session_1/reaction_clip_2_features.csv"],
    }
    assert set(snapshot(tmp_path / "out")) - set(snapshot(tmp_path / "out", FEATURES)) == {"features_settings.json"}
    assert not list(root.rglob(FEATURES))


# Settings


def test_the_settings_stand_beside_the_files(_finished, checkpoint):
    settings = json.loads((_finished / "data/features_settings.json").read_text())
    assert "bundled short-range detector" in settings["detector"]
    assert settings["landmarks"] == "facemesh" and settings["luma"] == "released"
    assert settings["network"] == "ir10-thin" and settings["precision"] == "float32" and settings["device"] == "cpu"
    assert settings["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_files_of_different_settings_are_not_mixed(finished, threads, expected):
    """Neither another luma nor another model; --redo replaces all of them."""
    lost = finished / "data/101/session_1/reaction_clip_1_features.csv"
    lost.unlink()
    before = snapshot(finished)
    save_weights(random_network("ir10-thin", 6).state_dict(), finished / "other.pth")
    here = ("--root", str(finished), *SMALL, "--workers", "1")
    expect(
        r"features_settings\.json says that luma was 'released' for the files that are there, and now it is 'correct'\."
        r" Use the same settings, another folder, or --redo\.",
        *(*here, "--luma", "correct"),
    )
    expect(r"says that precision was 'float32' .* now it is 'bfloat16'", *here, "--precision", "bfloat16")
    expect(r"says that checkpoint_sha256 was ", *here, "--checkpoint", str(finished / "other.pth"))
    (finished / "other.pth").unlink()
    assert snapshot(finished) == before
    found = run(finished, "--redo", "--luma", "correct")
    assert json.loads((finished / "data/features_settings.json").read_text())["luma"] == "correct"
    name = "101/session_1/reaction_clip_2_features.csv"
    assert list(found) == list(expected) and found[name] != expected[name]


def test_what_older_settings_do_not_say_is_not_different(finished, threads, expected):
    """Where the network was run was not kept at first."""
    (finished / "data/101/session_1/reaction_clip_1_features.csv").unlink()
    path = finished / "data/features_settings.json"
    settings = json.loads(path.read_text())
    del settings["device"], settings["mediapipe"]
    path.write_text(json.dumps(settings))
    assert run(finished) == expected
    path.write_text(json.dumps(settings | {"device": "cuda"}))
    expect("says that device was 'cuda'", "--root", str(finished), *SMALL)


def test_files_of_which_nothing_is_known_are_not_mixed_with_new_ones(finished, threads, expected, monkeypatch):
    """As the published ones: if one is missing it is not made, and --redo makes all, even when it is interrupted."""
    (finished / "data/features_settings.json").unlink()
    for name in expected:
        (finished / "data" / name).write_text("somebody else's")
    lost = finished / "data/101/session_1/reaction_clip_1_features.csv"
    assert len(run(finished)) == 5  # nothing is to be done
    lost.unlink()
    before = snapshot(finished)
    expect(
        r"^4 of 5 videos have feature files \(first: .*baseline_clip_1_features\.csv\), and no "
        r".*/data/features_settings\.json says what .* Make all of them again with --redo, or move them away\.$",
        *("--root", str(finished), *SMALL),
    )
    assert snapshot(finished) == before

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "process_clips", interrupted)
        run(finished, "--redo")
    assert run(finished) == expected


def test_other_settings_are_refused_when_all_is_done(finished, threads):
    """Else somebody takes the old files for new ones."""
    expect("says that luma was 'released'", "--root", str(finished), *SMALL, "--luma", "correct")


def test_decimals_are_not_mixed(finished, threads):
    (finished / "data/101/session_1/baseline_clip_1_features.csv").unlink()
    expect("says that baseline_decimals was 3", "--root", str(finished), *SMALL, "--baseline-decimals", "2")


def test_an_interrupted_redo_leaves_no_file_of_the_old_settings(finished, threads, monkeypatch):
    """Whatever counts as done was made with the settings that stand beside it."""
    before = snapshot(finished / "data", FEATURES)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "process_clips", interrupted)
        run(finished, "--redo", "--luma", "correct")
    after = run(finished, "--luma", "correct")
    name = "101/session_1/reaction_clip_2_features.csv"
    assert after[name] != before[name]


def test_a_redo_of_one_shard_leaves_no_file_of_the_old_settings(finished, threads):
    """The other shards' clips do not count as done any longer."""
    before = snapshot(finished / "data", FEATURES)
    run(finished, "--redo", "--luma", "correct", "--shard", "1/2")
    after = run(finished, "--luma", "correct")
    changed = {name for name in before if after[name] != before[name]}
    assert changed == set(before) - {"101/session_1/reaction_clip_10_features.csv"}  # which has no face


def test_the_settings_do_not_depend_on_how_the_root_is_written(finished, threads, monkeypatch):
    """A detector in pretrained_models/ is the same file under ./ and under its whole path."""
    from fergi.faces.detection import MODEL_FILE, detector_model

    shutil.rmtree(finished / "data/102")
    for path in (finished / "data/101/session_1").glob("reaction*"):
        path.unlink()
    (finished / "data/features_settings.json").unlink()
    (finished / "data/101/session_1/baseline_clip_1_features.csv").unlink()
    (finished / "pretrained_models").mkdir()
    bundled = detector_model(Path("no weights"))[0]
    shutil.copy(bundled, finished / "pretrained_models" / MODEL_FILE)
    run(finished)
    (finished / "data/101/session_1/baseline_clip_1_features.csv").unlink()
    monkeypatch.chdir(finished)
    assert len(run(Path("."))) == 1


# Weights


def test_without_the_au_model(root, threads):
    (root / "AU_models/checkpoint_epoch3.pth").unlink()
    before = snapshot(root)
    expect(r"checkpoint_epoch3\.pth\)\. Run DISFAwithPlus_train_model\.py first\.", "--root", str(root), *SMALL)
    assert snapshot(root) == before


def test_an_au_model_of_another_layout(root, threads):
    """The file is of the small network and the script expects IR-50, and the other way round."""
    before = snapshot(root)
    expect(r"checkpoint_epoch3\.pth does not fit IResNet .* missing \(first: ", "--root", str(root), "--device", "cpu")
    assert snapshot(root) == before


def test_an_au_model_that_is_cut_off(root, threads):
    path = root / "AU_models/checkpoint_epoch3.pth"
    path.write_bytes(path.read_bytes()[:100_000])
    expect(r"checkpoint_epoch3\.pth cannot be read: it is cut off", "--root", str(root), *SMALL)
    assert not list(root.rglob(FEATURES)) and not (root / "data/features_settings.json").exists()


def test_without_the_landmark_network(root, threads):
    expect(r"mobilefacenet_model_best\.pth\.tar", "--root", str(root), *SMALL, "--landmarks", "mobilefacenet")
    assert not (root / "data/features_settings.json").exists()


# Interruptions


def test_a_full_disk(root, threads, expected):
    """One sentence; files that were finished are whole, nothing else is there, and the next run goes on."""
    with largest_file(2500):
        expect(
            r"^Cannot write .*/reaction_clip_2_features\.csv: File too large\. Make room or choose another --root\.$",
            *("--root", str(root), *SMALL, "--workers", "1"),
        )
    found = snapshot(root / "data", "*.csv", "*.part", ".*")
    assert "101/session_1/reaction_clip_2_features.csv" not in found
    assert found and found.items() <= expected.items()
    assert run(root) == expected


@pytest.mark.parametrize("pages", [0, 4])
def test_a_small_disk(_videos, pages, threads, tmp_path, expected):
    """The same where the whole disk is full: with room for nothing or for some of the clips."""
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


def test_a_folder_that_cannot_be_written(root, threads, tmp_path):
    """Before any work."""
    (tmp_path / "taken").touch()
    expect(
        r"^Cannot write into .*/taken: .* choose another --out\.$",
        "--root",
        str(root),
        *SMALL,
        "--videos",
        str(root / "data"),
        "--out",
        str(tmp_path / "taken"),
    )


# With processes


def command(root: Path, *options: str, **more) -> subprocess.Popen:
    """The script as a process of its own, from another folder."""
    return subprocess.Popen(
        [sys.executable, str(CHECKOUT / "clips_facial_process.py"), "--root", str(root), *SMALL, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # Tests that run in the background of a shell would pass it on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **more,
    )


def test_two_workers_give_what_one_gives(root, expected):
    """Two processes that align and two that estimate. One video more has no frames: exit code 1, and one line why."""
    empty = root / "data/101/session_1/reaction_clip_3.mp4"
    empty.touch()
    script = command(root, "--workers", "2")
    out, err = script.communicate(timeout=180)
    assert snapshot(root / "data", FEATURES) == expected
    assert script.returncode == 1
    assert f"\n  {empty} is empty\n" in out
    assert err.splitlines()[-1] == (
        f"clips_facial_process.py: 1 of 6 videos have no feature file (first: {empty} is empty). "
        "Replace or remove them and run again; the others are done."
    )
    assert "Traceback" not in err


def _living(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    states = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = file.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                states.append(file.parent.name)
    return states


@dataclass(frozen=True)
class Killed:
    """What a killed run leaves: its root, the feature files there, and processes that go on."""

    root: Path
    files: dict[str, bytes]
    processes: list[str]


@pytest.fixture(scope="module")
def killed(_videos, tmp_path_factory) -> Killed:
    """Thirteen clips, of which some are done when the script is killed."""
    root = Path(shutil.copytree(_videos, tmp_path_factory.mktemp("killed") / "root"))
    for image in range(1, 9):
        (root / "data/103/session_1").mkdir(parents=True, exist_ok=True)
        shutil.copy(
            root / "data/101/session_1/reaction_clip_2.mp4", root / f"data/103/session_1/reaction_clip_{image}.mp4"
        )
    script = command(root, "--workers", "1", start_new_session=True)
    try:
        for _ in range(6000):
            if len(list(root.rglob(FEATURES))) >= 3 or script.poll() is not None:
                break
            time.sleep(0.01)
        script.kill()
        assert script.wait(30) == -signal.SIGKILL
        for _ in range(50):
            if not _living(script.pid):
                break
            time.sleep(0.1)
        return Killed(root, snapshot(root / "data", FEATURES), _living(script.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        script.communicate()


def test_a_run_that_is_killed_goes_on(killed, expected, threads):
    """After SIGKILL in the middle what is there is whole; the second run gives what an undisturbed one gives."""
    long = expected["101/session_1/reaction_clip_2_features.csv"]
    everything = expected | {f"103/session_1/reaction_clip_{image}_features.csv": long for image in range(1, 9)}
    assert 3 <= len(killed.files) < len(everything)
    assert killed.files.items() < everything.items()
    assert run(killed.root) == everything


def test_a_run_that_is_killed_leaves_no_processes(killed):
    """Each holds 0.7 GB."""
    assert killed.processes == []


def test_a_worker_that_dies(root, monkeypatch):
    """One sentence with its exit code and what it read, instead of waiting for ever."""
    monkeypatch.setattr(clips, "_align_clips", filmed.killed_while_reading)
    started = time.monotonic()
    read = root / "data/101/session_1/reaction_clip_1.mp4"
    expect(
        rf"^1 of 2 worker processes died while reading {read} \(first exit code: -9\); its message stands above, and "
        r"without one it was most likely out of memory\. Replace or remove what it read, or run again with fewer "
        r"--workers; finished clips stay\.$",
        *("--root", str(root), *SMALL, "--workers", "1"),
    )
    assert time.monotonic() - started < 60
    assert not list(root.rglob(FEATURES))
    for process in multiprocessing.active_children():
        process.join(20)
    assert multiprocessing.active_children() == []


def test_an_interruption_while_processes_start(root):
    """Ctrl-C is sent to all of them, and one sentence is said."""
    script = command(root, "--workers", "1", start_new_session=True)
    while len(_living(script.pid)) < 4 and script.poll() is None:
        time.sleep(0.02)
    time.sleep(1)  # they are importing what they need
    os.killpg(script.pid, signal.SIGINT)
    _, err = script.communicate(timeout=60)
    assert err.splitlines()[0] == "Interrupted; every finished file is whole."
    assert script.returncode == 1 and "Traceback" not in err


def test_a_bad_video_in_one_process_of_torchrun(root, tmp_path, expected):
    """The first has nothing else and is ready first; the other one's clip is done nevertheless."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.mp4").write_text("not a video")
    shutil.copy(root / "data/101/session_1/reaction_clip_2.mp4", tmp_path / "in/2.mp4")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", filmed.__file__),
            *("--root", str(root), *SMALL, "--videos", str(tmp_path / "in"), "--out", str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)},
        timeout=180,
    )
    assert done.returncode == 1
    assert f"filmed.py: 1 of 1 videos have no feature file (first: {tmp_path / 'in/1.mp4'} is not a " in done.stderr
    found = (tmp_path / "out/2_features.csv").read_bytes()
    assert found == expected["101/session_1/reaction_clip_2_features.csv"]
