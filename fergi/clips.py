"""From videos to per-frame feature files (Section 5, Appendix C).

Aligning processes decode videos and find and align faces. The AU network runs on full batches, which are filled
across clips: on a GPU in this process, on a CPU in processes of one thread each, which share the cores better than
threads that wait for each other. Every batch has the same number of faces, the last one filled up with black,
because the last bits of what a network gives depend on the size of its batch but not on a face's place in it. So a
clip's file depends on the clip alone: not on the number of workers, on what else is processed, or on interruptions.
"""

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fergi.action_units.network import SIDE, intensities, load_network, network_input
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS, NO_FACE, format_clip
from fergi.files import FergiError, replacing, sha256
from fergi.video import UnreadableVideo, increasing, read_frames
from fergi.workers import end_with_parent

FRAMES_AT_A_TIME = 32  # decoded and aligned before they are handed over
CHUNKS_PER_WORKER = 6  # of that many frames, on their way at a time
BATCH_SIZES = {"cpu": 8, "cuda": 128}  # 8 was the fastest of 1, 8, 16 and 32 on two cores
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PATIENCE = 0.2  # seconds without news after which a batch is not waited for any longer


@dataclass(frozen=True)
class ClipJob:
    """One video, the feature file to write, and its decimals."""

    video: Path
    output: Path
    decimals: int


@dataclass(frozen=True)
class EstimatorSettings:
    """Which AU network, and how it is run; small enough to hand to other processes.

    Attributes
    ----------
    checkpoint : Path
        The trained weights.
    network : str
        Their layout.
    device : str
        "cpu", "cuda", "cuda:1" and so on.
    precision : str
        float32, or bfloat16, which is faster where the hardware has it and less exact.
    """

    checkpoint: Path
    network: str
    device: str
    precision: str = "float32"

    @property
    def batch_size(self) -> int:
        """Faces in every batch."""
        return BATCH_SIZES[self.device.partition(":")[0]]

    def describe(self) -> dict[str, str]:
        """What a reader of the outputs should know."""
        return {
            "network": self.network,
            "checkpoint_sha256": sha256(self.checkpoint),
            "precision": self.precision,
        }


class AUEstimator:
    """The AU network on a device, in batches of one size."""

    def __init__(self, settings: EstimatorSettings):
        """Load the weights strictly.

        Raises
        ------
        FergiError
            If the file is missing, damaged, or of another layout.
        """
        network = load_network(settings.checkpoint, settings.network)
        self._network = network.to(settings.device, memory_format=torch.channels_last)
        self._device, self._precision = torch.device(settings.device), PRECISIONS[settings.precision]
        self.batch_size = settings.batch_size

    def estimate(self, faces: np.ndarray) -> np.ndarray:
        """Intensities (n, 12) of at most one batch of aligned RGB faces (n, 112, 112, 3), uint8."""
        batch = np.zeros((self.batch_size, SIDE, SIDE, 3), np.uint8)
        batch[: len(faces)] = faces
        reduced = self._precision != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._precision, enabled=reduced):
            outputs = self._network(network_input(torch.from_numpy(batch).to(self._device)))
        return intensities(outputs.float(), ACTION_UNITS)[: len(faces)].cpu().numpy()


# Messages to the collecting process.


@dataclass(frozen=True)
class _Frames:
    """Some frames of a clip: values (n, 15) with the intensities still missing, and the faces of ``rows``."""

    job: int
    times: list[float]
    values: np.ndarray
    faces: np.ndarray
    rows: list[int]


@dataclass(frozen=True)
class _End:
    """A clip is decoded to its end; why it failed, if it did."""

    job: int
    failure: str | None = None


@dataclass(frozen=True)
class _Estimates:
    """What the network gave for a batch."""

    batch: int
    values: np.ndarray


def _chunks(path: Path, size: int) -> Iterator[tuple[list[float], list[np.ndarray]]]:
    """Frames of a video in groups."""
    times: list[float] = []
    pictures: list[np.ndarray] = []
    for time, picture in read_frames(path):
        times.append(time)
        pictures.append(picture)
        if len(times) == size:
            yield times, pictures
            times, pictures = [], []
    if times:
        yield times, pictures


def _align_clips(settings: AlignmentSettings, jobs: Any, messages: Any, places: Any) -> None:
    """An aligning process: take clips until there are none."""
    end_with_parent()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    aligner = FaceAligner(settings)
    while (job := jobs.get()) is not None:
        index, path = job
        try:
            for times, pictures in _chunks(path, FRAMES_AT_A_TIME):
                aligned = aligner.align(pictures)
                rows = [row for row, face in enumerate(aligned) if face is not None]
                values = np.tile(NO_FACE, (len(times), 1))
                for row in rows:
                    values[row, :3] = aligned[row].score, aligned[row].pitch_ratio, aligned[row].yaw_ratio
                faces = np.array([aligned[row].picture for row in rows], np.uint8).reshape(-1, SIDE, SIDE, 3)
                places.acquire()
                messages.put(_Frames(index, times, values, faces, rows))
            messages.put(_End(index))
        except UnreadableVideo as error:
            messages.put(_End(index, str(error)))


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
    progress: Callable[[int, int], None] = lambda frames, clips: None,
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
        Told about frames and clips as they are finished.

    Raises
    ------
    FergiError
        If a process dies, or a file cannot be written. Clips finished before that are whole.
    """
    context = multiprocessing.get_context("spawn")
    waiting, messages, batches = context.Queue(), context.Queue(), context.Queue()
    places = context.Semaphore(CHUNKS_PER_WORKER * workers)
    on_cpu = torch.device(estimator.device).type == "cpu"
    aligning = min(workers, len(jobs))
    processes = [
        context.Process(target=_align_clips, args=(alignment, waiting, messages, places), daemon=True)
        for _ in range(aligning)
    ]
    if on_cpu:
        processes += [
            context.Process(target=_estimate_batches, args=(estimator, batches, messages), daemon=True)
            for _ in range(workers)
        ]
    for index, job in enumerate(jobs):
        waiting.put((index, job.video))
    for _ in range(aligning):
        waiting.put(None)
    for process in processes:
        process.start()
    try:
        here = None if on_cpu else AUEstimator(estimator)
        collector = _Collector(jobs, estimator.batch_size, here, batches, places, progress)
        return collector.collect(messages, processes)
    finally:
        for process in processes:
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
        progress: Callable[[int, int], None],
    ):
        self._jobs, self._batch_size, self._progress = jobs, batch_size, progress
        self._estimator, self._batches, self._places = estimator, batches, places
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
                    raise FergiError(_dead_process(processes)) from None
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
        self._progress(len(frames.times), 0)

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
        self._clips[end.job].decoded = True
        if end.failure is None:
            self._write_if_complete(end.job)
        else:  # faces of it that are still under way come back to nobody
            self._failures[end.job] = end.failure
            del self._clips[end.job]
            self._progress(0, 1)

    def _write_if_complete(self, index: int) -> None:
        clip = self._clips.get(index)
        if clip is None or not clip.complete:
            return
        job, values = self._jobs[index], np.concatenate([chunk.values for chunk in clip.chunks])
        with replacing(job.output) as file:
            file.write(format_clip(increasing(np.array(clip.times)), values, job.decimals))
        if not (values[:, 0] > 0).any():
            self._without_face.append(index)
        self._n_frames += len(values)
        del self._clips[index]
        self._progress(0, 1)


def _dead_process(processes: Sequence[Any]) -> str:
    """What to say when a process is gone."""
    codes = [process.exitcode for process in processes if process.exitcode]
    return (
        f"{len(codes)} of {len(processes)} worker processes died (first exit code: {codes[0]}); its message stands "
        "above, and without one it was most likely out of memory. Run again with fewer --workers; finished clips stay."
    )
