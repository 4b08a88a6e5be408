"""From videos to per-frame feature files (Section 5, Appendix C).

Aligning processes decode videos and find and align faces. The AU network runs on full batches, which are filled
across clips: on a GPU in this process, on a CPU in processes of one thread each, which share the cores better than
threads that wait for each other. Every batch has the same number of faces, the last one filled up with black,
because the last bits of what a network gives depend on the size of its batch but not on a face's place in it. So a
clip's file depends on the clip alone: not on the number of workers, on what else is processed, or on interruptions.
"""

import multiprocessing
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fergi.action_units.estimator import AUEstimator, EstimatorSettings
from fergi.action_units.network import SIDE
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import NO_FACE, format_clip
from fergi.files import FergiError, replacing
from fergi.processes import end_with_parent, out_of_reach
from fergi.video import UnreadableVideo, increasing, open_video

FRAMES_AT_A_TIME = 32  # decoded and aligned before they are handed over; fewer of pictures larger than the next line
PIXELS_OF_FULL_GROUPS = 1_000_000
CHUNKS_PER_WORKER = 6  # of that many frames, on their way at a time
PATIENCE = 0.2  # seconds without news after which a batch is not waited for any longer


@dataclass(frozen=True)
class ClipJob:
    """One video, the feature file to write, and its decimals."""

    video: Path
    output: Path
    decimals: int


# Messages to the collecting process.


@dataclass(frozen=True)
class _Frames:
    """Some frames of a clip: values (n, 15) with the intensities still missing, and the faces of ``rows``.

    ``promised`` is how many frames its container says that it holds, in all.
    """

    job: int
    times: list[float]
    values: np.ndarray
    faces: np.ndarray
    rows: list[int]
    promised: float = 0.0


@dataclass(frozen=True)
class _End:
    """A clip is decoded to its end: its container's rate (see ``Video``), and why it failed, if it did."""

    job: int
    failure: str | None = None
    frame_seconds: float = 0.0


@dataclass(frozen=True)
class _Estimates:
    """What the network gave for a batch."""

    batch: int
    values: np.ndarray


def _groups(
    frames: Iterable[tuple[float, np.ndarray]], size: int = FRAMES_AT_A_TIME
) -> Iterator[tuple[list[float], list[np.ndarray]]]:
    """Frames of a video in groups; none is kept here when the next one is decoded."""
    times: list[float] = []
    pictures: list[np.ndarray] = []
    for time, picture in frames:
        times.append(time)
        pictures.append(picture)
        pixels = picture.shape[0] * picture.shape[1]
        del picture
        if len(times) >= min(size, max(1, size * PIXELS_OF_FULL_GROUPS // pixels)):
            yield times, pictures
            times, pictures = [], []
    if times:
        yield times, pictures


def _align_clips(
    settings: AlignmentSettings, number: int, jobs: Any, messages: Any, places: Any, under_way: Any
) -> None:
    """The aligning process of a number: take clips until there are none.

    In ``under_way`` it says which clip it reads, counted from 1, or 0: a message could be lost with a process that a
    video brings down.
    """
    end_with_parent()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    aligner = FaceAligner(settings)
    while (job := jobs.get()) is not None:
        index, path = job
        under_way[number] = index + 1
        try:
            with open_video(path) as video:
                for times, pictures in _groups(video.frames()):
                    aligned = aligner.align(pictures)
                    pictures.clear()  # before the next ones are decoded
                    rows = [row for row, face in enumerate(aligned) if face is not None]
                    values = np.tile(NO_FACE, (len(times), 1))
                    for row in rows:
                        values[row, :3] = aligned[row].score, aligned[row].pitch_ratio, aligned[row].yaw_ratio
                    faces = np.array([aligned[row].picture for row in rows], np.uint8).reshape(-1, SIDE, SIDE, 3)
                    places.acquire()
                    messages.put(_Frames(index, times, values, faces, rows, video.promised))
                messages.put(_End(index, frame_seconds=video.frame_seconds))
        except UnreadableVideo as error:
            messages.put(_End(index, str(error)))
        under_way[number] = 0


def _estimate_batches(settings: EstimatorSettings, batches: Any, messages: Any) -> None:
    """An estimating process, for a CPU: take batches for as long as there are any."""
    end_with_parent()
    torch.set_num_threads(1)
    estimator = AUEstimator(settings)
    while (batch := batches.get()) is not None:
        index, faces = batch
        messages.put(_Estimates(index, estimator.estimate(faces)))


@dataclass(frozen=True)
class ClipsReport:
    """What became of the clips.

    Attributes
    ----------
    n_clips, n_frames : int
        Written.
    without_face : list of Path
        Videos in which no frame has a face; their files were written.
    failures : list of str
        Why a video has no file.
    """

    n_clips: int
    n_frames: int
    without_face: list[Path]
    failures: list[str]


def process_clips(
    jobs: Sequence[ClipJob],
    alignment: AlignmentSettings,
    estimator: EstimatorSettings,
    *,
    workers: int,
    progress: Callable[[int, float], None] = lambda frames, clips: None,
) -> ClipsReport:
    """Write the feature file of every clip; a clip that cannot be read is reported, and the rest is done.

    Parameters
    ----------
    jobs : sequence of ClipJob
        What to do.
    alignment : AlignmentSettings
        How faces are found and aligned.
    estimator : EstimatorSettings
        The AU network.
    workers : int
        Aligning processes; without a GPU also as many estimating ones.
    progress : callable
        Told how many frames were aligned, and what part of a clip that is; the parts of a clip add up to 1.

    Raises
    ------
    FergiError
        If a process dies, or a file cannot be written. Clips finished before that are whole.
    """
    context = multiprocessing.get_context("spawn")
    waiting, messages, batches = context.Queue(), context.Queue(), context.Queue()
    places = context.Semaphore(CHUNKS_PER_WORKER * workers)
    on_cpu = estimator.device_type == "cpu"
    aligning = min(workers, len(jobs))
    under_way = multiprocessing.RawArray("q", aligning)
    processes = [
        context.Process(
            target=_align_clips, args=(alignment, number, waiting, messages, places, under_way), daemon=True
        )
        for number in range(aligning)
    ]
    if on_cpu:
        processes += [
            context.Process(target=_estimate_batches, args=(estimator, batches, messages), daemon=True)
            for _ in range(workers)
        ]
    started = []
    try:
        for index, job in enumerate(jobs):
            waiting.put((index, job.video))
        for _ in range(aligning):
            waiting.put(None)
        with out_of_reach():
            for process in processes:
                process.start()
                started.append(process)
        here = None if on_cpu else AUEstimator(estimator)
        collector = _Collector(jobs, estimator.batch_size, here, batches, places, progress, under_way)
        return collector.collect(messages, processes)
    finally:
        for process in started:
            process.terminate()
        for each in (waiting, messages, batches):
            each.cancel_join_thread()


@dataclass
class _Chunk:
    """Frames of one clip whose faces are on their way through the network."""

    job: int
    values: np.ndarray
    n_left: int


@dataclass
class _Clip:
    """What has arrived of one clip."""

    times: list[float] = field(default_factory=list)
    chunks: list[_Chunk] = field(default_factory=list)
    decoded: bool = False
    frame_seconds: float = 0.0
    told: float = 0.0  # the part of it that was reported

    @property
    def complete(self) -> bool:
        return self.decoded and all(chunk.n_left == 0 for chunk in self.chunks)


class _Collector:
    """Fills batches with what the aligning processes send, and writes each clip when its last face is through."""

    def __init__(
        self,
        jobs: Sequence[ClipJob],
        batch_size: int,
        estimator: AUEstimator | None,
        batches: Any,
        places: Any,
        progress: Callable[[int, float], None],
        begun: Sequence[int] = (),
    ):
        self._jobs, self._batch_size, self._progress = jobs, batch_size, progress
        self._estimator, self._batches, self._places = estimator, batches, places
        self._begun = begun  # see ``_align_clips``
        self._clips: dict[int, _Clip] = {index: _Clip() for index in range(len(jobs))}  # not finished
        self._faces: list[tuple[_Chunk, int, np.ndarray]] = []  # which wait for a batch
        self._under_way: dict[int, list[tuple[_Chunk, int, np.ndarray]]] = {}
        self._n_batches = 0
        self._n_frames = 0
        self._without_face: list[int] = []
        self._failures: dict[int, str] = {}

    def collect(self, messages: Any, processes: Sequence[Any]) -> ClipsReport:
        """Until every clip is written or has failed."""
        while self._clips:
            while len(self._faces) >= self._batch_size:
                self._send()
            try:
                message = messages.get(timeout=PATIENCE)
            except queue.Empty:
                if not all(process.is_alive() or process.exitcode == 0 for process in processes):
                    raise FergiError(self._dead_process(processes)) from None
                if self._faces and not self._under_way:
                    self._send()
                continue
            if isinstance(message, _Frames):
                self._take(message)
            elif isinstance(message, _Estimates):
                self._fill_in(message)
            else:
                self._end(message)
        return ClipsReport(
            len(self._jobs) - len(self._failures),
            self._n_frames,
            [self._jobs[index].video for index in sorted(self._without_face)],
            [self._failures[index] for index in sorted(self._failures)],
        )

    def _take(self, frames: _Frames) -> None:
        clip, chunk = self._clips[frames.job], _Chunk(frames.job, frames.values, len(frames.rows))
        clip.times += frames.times
        clip.chunks.append(chunk)
        self._faces += [(chunk, row, face) for row, face in zip(frames.rows, frames.faces, strict=True)]
        if chunk.n_left == 0:
            self._places.release()
        part = min(len(clip.times) / frames.promised, 1.0) - clip.told if frames.promised > 0 else 0.0
        clip.told += part
        self._progress(len(frames.times), part)

    def _send(self) -> None:
        """One batch to the network; full unless nothing more is to come soon."""
        batch, self._faces = self._faces[: self._batch_size], self._faces[self._batch_size :]
        faces = np.stack([face for _, _, face in batch])
        self._n_batches += 1
        self._under_way[self._n_batches] = batch
        if self._estimator is None:
            self._batches.put((self._n_batches, faces))
        else:
            self._fill_in(_Estimates(self._n_batches, self._estimator.estimate(faces)))

    def _fill_in(self, estimates: _Estimates) -> None:
        batch = self._under_way.pop(estimates.batch)
        for (chunk, row, _), values in zip(batch, estimates.values, strict=True):
            chunk.values[row, 3:] = values
            chunk.n_left -= 1
            if chunk.n_left == 0:
                self._places.release()
        for job in dict.fromkeys(chunk.job for chunk, _, _ in batch):
            self._write_if_complete(job)

    def _end(self, end: _End) -> None:
        clip = self._clips[end.job]
        clip.decoded, clip.frame_seconds = True, end.frame_seconds
        if end.failure is None:
            self._write_if_complete(end.job)
        else:  # faces of it that are still under way come back to nobody
            self._failures[end.job] = end.failure
            del self._clips[end.job]
            self._progress(0, 1 - clip.told)

    def _write_if_complete(self, index: int) -> None:
        clip = self._clips.get(index)
        if clip is None or not clip.complete:
            return
        job, values = self._jobs[index], np.concatenate([chunk.values for chunk in clip.chunks])
        with replacing(job.output) as file:
            file.write(format_clip(increasing(np.array(clip.times), clip.frame_seconds), values, job.decimals))
        if not (values[:, 0] > 0).any():
            self._without_face.append(index)
        self._n_frames += len(values)
        del self._clips[index]
        self._progress(0, 1 - clip.told)

    def _dead_process(self, processes: Sequence[Any]) -> str:
        """What to say when a process is gone, and what it was reading."""
        dead = [number for number, process in enumerate(processes) if process.exitcode]
        begun = [self._begun[number] for number in dead if number < len(self._begun)]
        videos = ", ".join(str(self._jobs[index - 1].video) for index in begun if index)
        return (
            f"{len(dead)} of {len(processes)} worker processes died{videos and f' while reading {videos}'} (first exit "
            f"code: {processes[dead[0]].exitcode}); its message stands above, and without one it was most likely out "
            f"of memory. {'Replace or remove what it read, or run' if videos else 'Run'} again with fewer --workers; "
            "finished clips stay."
        )
