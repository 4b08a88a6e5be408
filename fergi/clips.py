"""From videos to per-frame feature files (Section 5, Appendix C).

Worker processes decode, find and align faces; this process runs the AU network on full batches that are filled
across clips. Every batch has the same number of faces, the last one filled up with black, because the last bits of
what a network gives depend on the size of its batch but not on a face's place in it. So a clip's file depends
on the clip alone, not on the number of workers, on what else is processed, or on an interruption.
"""

import multiprocessing
import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fergi.action_units.network import SIDE, intensities, network_input
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS, NO_FACE, format_clip
from fergi.files import FergiError, replacing
from fergi.video import UnreadableVideo, increasing, read_frames

FRAMES_AT_A_TIME = 32  # decoded and aligned by a worker before it hands them over
BATCH_SIZE = {"cpu": 8, "cuda": 128}  # fastest on two cores; beyond 128 a GPU gains nothing
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def settings_of_run(
    alignment: AlignmentSettings, network: str, checkpoint_sha256: str, precision: str
) -> dict[str, str]:
    """What feature files are made with, for the JSON file beside them."""
    return {
        **alignment.describe(),
        "network": network,
        "checkpoint_sha256": checkpoint_sha256,
        "precision": precision,
    }


@dataclass(frozen=True)
class ClipJob:
    """One video and the feature file to write."""

    video: Path
    output: Path
    decimals: int


@dataclass
class _Clip:
    """What has arrived of one clip."""

    times: list[float] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    n_waiting: int = 0
    complete: bool = False


@dataclass(frozen=True)
class _Frames:
    """Frames of one clip on their way from a worker."""

    job: int
    times: list[float]
    values: np.ndarray  # (n, 15), intensities still missing
    faces: np.ndarray  # (m, 112, 112, 3) of the m frames with a face
    rows: np.ndarray  # which frames those are


@dataclass(frozen=True)
class _End:
    """A worker is through with a clip; why it failed, if it did."""

    job: int
    failure: str | None = None


class AUEstimator:
    """The AU network on a device, in batches of one size."""

    def __init__(
        self, network: torch.nn.Module, device: torch.device, precision: str = "float32", batch_size: int | None = None
    ):
        """Put the network on the device.

        Parameters
        ----------
        network : Module
            ``fergi.action_units.network.load_network``.
        device : torch.device
            Where to compute.
        precision : {"float32", "bfloat16"}
            bfloat16 is faster where the hardware has it, and less exact.
        batch_size : int, optional
            Faces in every batch.
        """
        self._network = network.eval().to(device, memory_format=torch.channels_last)
        self._device, self._precision = device, PRECISIONS[precision]
        self.batch_size = batch_size or BATCH_SIZE[device.type]

    def estimate(self, faces: np.ndarray) -> np.ndarray:
        """Intensities (n, 12) of up to one batch of aligned RGB faces (n, 112, 112, 3), uint8."""
        batch = np.zeros((self.batch_size, SIDE, SIDE, 3), np.uint8)
        batch[: len(faces)] = faces
        reduced = self._precision != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._precision, enabled=reduced):
            outputs = self._network(network_input(torch.from_numpy(batch).to(self._device)))
        return intensities(outputs.float(), ACTION_UNITS)[: len(faces)].cpu().numpy()


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


def _work(settings: AlignmentSettings, jobs: Any, results: Any) -> None:
    """A worker: take clips until there are none."""
    import cv2

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
                faces = [aligned[row].picture for row in rows]
                stacked = np.stack(faces) if faces else np.zeros((0, SIDE, SIDE, 3), np.uint8)
                results.put(_Frames(index, times, values, stacked, np.array(rows, int)))
            results.put(_End(index))
        except UnreadableVideo as error:
            results.put(_End(index, str(error)))


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
    settings: AlignmentSettings,
    estimator: AUEstimator,
    *,
    workers: int,
    progress: Callable[[int, int], None] = lambda frames, clips: None,
) -> ClipsReport:
    """Write the feature file of every clip; a clip that cannot be read is reported, and the rest is done.

    Parameters
    ----------
    jobs : sequence of ClipJob
        What to do.
    settings : AlignmentSettings
        How faces are found and aligned.
    estimator : AUEstimator
        The AU network.
    workers : int
        Processes that decode and align.
    progress : callable
        Told about frames and clips as they are finished.

    Raises
    ------
    FergiError
        If a worker dies, or a file cannot be written. Clips finished before that are whole.
    """
    context = multiprocessing.get_context("spawn")
    waiting, results = context.Queue(), context.Queue(maxsize=4 * workers)
    for index, job in enumerate(jobs):
        waiting.put((index, job.video))
    for _ in range(workers):
        waiting.put(None)
    processes = [context.Process(target=_work, args=(settings, waiting, results), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        return _Collector(jobs, estimator, progress).collect(results, processes)
    finally:
        for process in processes:
            process.terminate()
        waiting.cancel_join_thread()


class _Collector:
    """Fills batches with what the workers send, and writes each clip when its last face is through."""

    def __init__(self, jobs: Sequence[ClipJob], estimator: AUEstimator, progress: Callable[[int, int], None]):
        self._jobs, self._estimator, self._progress = jobs, estimator, progress
        self._clips = [_Clip() for _ in jobs]
        self._faces: deque[tuple[int, np.ndarray, np.ndarray]] = deque()  # clip, its row, the face
        self._n_frames = 0
        self._written: list[int] = []
        self._without_face: list[Path] = []
        self._failures: dict[int, str] = {}

    def collect(self, results: Any, processes: Sequence[Any]) -> ClipsReport:
        """Until every clip is written or has failed."""
        while len(self._written) + len(self._failures) < len(self._jobs):
            while len(self._faces) >= self._estimator.batch_size:
                self._estimate()
            try:
                message = results.get(timeout=1)
            except queue.Empty:
                if self._faces:
                    self._estimate()
                elif not all(process.is_alive() or process.exitcode == 0 for process in processes):
                    raise FergiError(_dead_worker(processes)) from None
                continue
            if isinstance(message, _Frames):
                self._take(message)
            else:
                self._end(message)
            if not any(not clip.complete for clip in self._clips):
                while self._faces:
                    self._estimate()
        return ClipsReport(
            len(self._written),
            self._n_frames,
            self._without_face,
            [self._failures[index] for index in sorted(self._failures)],
        )

    def _take(self, frames: _Frames) -> None:
        clip = self._clips[frames.job]
        clip.times += frames.times
        clip.values.append(frames.values)
        clip.n_waiting += len(frames.rows)
        for row, face in zip(frames.rows, frames.faces, strict=True):
            self._faces.append((frames.job, frames.values[row], face))
        self._progress(len(frames.times), 0)

    def _end(self, end: _End) -> None:
        self._clips[end.job].complete = True
        if end.failure is not None:
            self._failures[end.job] = end.failure
            self._faces = deque(each for each in self._faces if each[0] != end.job)
            self._clips[end.job] = _Clip(complete=True)
            self._progress(0, 1)
        elif self._clips[end.job].n_waiting == 0:
            self._write(end.job)

    def _estimate(self) -> None:
        taken = [self._faces.popleft() for _ in range(min(len(self._faces), self._estimator.batch_size))]
        estimated = self._estimator.estimate(np.stack([face for _, _, face in taken]))
        for (job, row, _), values in zip(taken, estimated, strict=True):
            row[3:] = values  # a view into the clip's values
            clip = self._clips[job]
            clip.n_waiting -= 1
            if clip.complete and clip.n_waiting == 0:
                self._write(job)

    def _write(self, index: int) -> None:
        job, clip = self._jobs[index], self._clips[index]
        values = np.concatenate(clip.values)
        with replacing(job.output) as file:
            file.write(format_clip(increasing(np.array(clip.times)), values, job.decimals))
        self._written.append(index)
        self._n_frames += len(values)
        if not (values[:, 0] > 0).any():
            self._without_face.append(job.video)
        self._clips[index] = _Clip(complete=True)  # frees its values
        self._progress(0, 1)


def _dead_worker(processes: Sequence[Any]) -> str:
    """What to say when a worker is gone."""
    codes = [process.exitcode for process in processes if process.exitcode]
    return (
        f"{len(codes)} of {len(processes)} worker processes died (first exit code: {codes[0]}); its message stands "
        "above, and without one it was most likely out of memory. Run again with fewer --workers; finished clips stay."
    )
