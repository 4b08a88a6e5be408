"""From videos to per-frame feature files (Section 5, Appendix C).

The workers of a DataLoader decode videos and find and align faces. An estimator that belongs to the workers estimates
there too. The AU network belongs to this process, which runs it on full batches that are filled across clips; on a CPU
in one thread for each worker, which is faster than one batch on all cores. The values of a face do not depend on its
batch (see ``AUEstimator.estimate``). So a clip's file depends on the clip alone: not on the number of workers, on other
clips, or on interruptions.
"""

import multiprocessing
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from fergi.action_units.estimator import AUEstimator, Estimator
from fergi.action_units.network import SIDE
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import NO_FACE, format_clip
from fergi.files import FergiError, replacing
from fergi.processes import WorkerDied, items_from_workers
from fergi.video import UnreadableVideo, Video, increasing

GROUP_SIZE = 32  # frames whose values a worker hands over together


@dataclass(frozen=True)
class ClipJob:
    """One video, the feature file to write, and its decimals."""

    video: Path
    output: Path
    decimals: int


@dataclass(frozen=True)
class ClipsReport:
    """What became of the clips."""

    n_clips: int  # written
    n_frames: int  # in them
    without_face: list[Path]  # videos without a face in any frame; their files were written
    failures: list[str]  # why a video has no file


@dataclass(frozen=True)
class _Frames:
    """Successive frames of a clip, aligned, and estimated unless ``faces`` are to be."""

    times: list[float]  # seconds
    values: np.ndarray  # (n_frames, 15), see ``format_clip``
    faces: np.ndarray | None  # (n_faces, 112, 112, 3), uint8: of the frames that have one


@dataclass(frozen=True)
class _End:
    """A clip was decoded to its end, or ``failure`` says why not; see ``Video`` for ``frame_seconds``."""

    frame_seconds: float = 0.0
    failure: str | None = None


class _AlignedClips(IterableDataset):
    """What a worker does: align clips from the queue ``unread``, (number, path), until there comes a None.

    Each item is a clip's number, its next frames or its end, and what part of the clip that is. ``estimator`` is the
    workers' own, if they are to estimate. ``readers`` has for each clip the id of the process that reads it, else 0.
    """

    def __init__(self, alignment: AlignmentSettings, estimator: Estimator | None, unread: Any, readers: Any):
        self._alignment, self._estimator = alignment, estimator
        self._unread, self._readers = unread, readers

    def __iter__(self) -> Iterator[tuple[int, _Frames | _End, float]]:
        aligner = FaceAligner(self._alignment)
        for clip, path in iter(self._unread.get, None):
            self._readers[clip] = os.getpid()
            n_frames, done, end = 0, 0.0, _End()
            try:
                with Video(path) as video:
                    aligned = self._aligned(aligner, video)
                    while group := list(islice(aligned, GROUP_SIZE)):
                        n_frames, before = n_frames + len(group), done
                        done = min(n_frames / video.promised, 1.0) if video.promised > 0 else 0.0
                        yield clip, self._frames(group), done - before
                    end = _End(video.frame_seconds)
            except UnreadableVideo as error:
                end = _End(failure=str(error))
            except Exception as error:
                error.add_note(f"This happened while reading {path}.")
                raise
            self._readers[clip] = 0
            yield clip, end, 1.0 - done

    def _aligned(self, aligner: FaceAligner, video: Video) -> Iterator[tuple[float, np.ndarray, np.ndarray | None]]:
        """Time, values and face to be estimated of each frame; its picture is gone when the next one is decoded."""
        for time, picture in video.frames():
            to_estimate = None
            if self._estimator is not None:
                (values,) = self._estimator.frame_values(aligner, [picture])
            else:
                values = np.array(NO_FACE, float)
                (face,) = aligner.align([picture])
                if face is not None:
                    values[:3] = face.score, face.pitch_ratio, face.yaw_ratio
                    to_estimate = face.picture
            del picture
            yield time, values, to_estimate

    def _frames(self, group: Sequence[tuple[float, np.ndarray, np.ndarray | None]]) -> _Frames:
        times, values, faces = zip(*group, strict=True)
        if self._estimator is not None:
            return _Frames(list(times), np.array(values), None)
        pictures = np.array([face for face in faces if face is not None], np.uint8)
        return _Frames(list(times), np.array(values), pictures.reshape(-1, SIDE, SIDE, 3))


@dataclass
class _Clip:
    """What has arrived of one clip."""

    times: list[float] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    n_missing: int = 0  # faces that the network has not estimated
    end: _End | None = None


class _FeatureWriter:
    """Fills batches with the faces that arrive, and writes each clip when its last face is estimated.

    Without an ``estimator`` all frames arrive estimated.
    """

    def __init__(self, jobs: Sequence[ClipJob], estimator: AUEstimator | None, threads: ThreadPoolExecutor, slots: int):
        self._jobs, self._estimator, self._threads = jobs, estimator, threads
        self._unfinished: dict[int, _Clip] = defaultdict(_Clip)
        self._waiting: list[tuple[int, np.ndarray, np.ndarray]] = []  # clip, row of its values, face
        self._in_flight: deque[tuple[Future, list]] = deque()  # batches, oldest first
        self._slots = slots  # for batches in flight
        self._n_frames: dict[int, int] = {}  # of each clip that was written
        self._without_face: list[int] = []
        self._failures: dict[int, str] = {}

    def take(self, clip: int, news: _Frames | _End) -> None:
        """The next frames of a clip, or its end."""
        if isinstance(news, _End):
            self._unfinished[clip].end = news
            self._finish_if_complete(clip)
            return
        self._unfinished[clip].times += news.times
        self._unfinished[clip].values.append(news.values)
        if news.faces is None:
            return
        self._unfinished[clip].n_missing += len(news.faces)
        rows = (row for row in news.values if row[0] > 0)
        self._waiting += [(clip, row, face) for row, face in zip(rows, news.faces, strict=True)]
        while len(self._waiting) >= self._estimator.batch_size:
            self._send_batch()
        while self._in_flight and self._in_flight[0][0].done():
            self._fill_in_oldest()

    def report(self) -> ClipsReport:
        """When nothing more is to come: estimate and write what is left."""
        while self._waiting:
            self._send_batch()
        while self._in_flight:
            self._fill_in_oldest()
        return ClipsReport(
            len(self._n_frames),
            sum(self._n_frames.values()),
            [self._jobs[clip].video for clip in sorted(self._without_face)],
            [self._failures[clip] for clip in sorted(self._failures)],
        )

    def _send_batch(self) -> None:
        if len(self._in_flight) == self._slots:
            self._fill_in_oldest()
        size = self._estimator.batch_size
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        faces = np.stack([face for _, _, face in batch])
        self._in_flight.append((self._threads.submit(self._estimator.estimate, faces), batch))

    def _fill_in_oldest(self) -> None:
        estimates, batch = self._in_flight.popleft()
        for (clip, row, _), intensities in zip(batch, estimates.result(), strict=True):
            row[3:] = intensities
            self._unfinished[clip].n_missing -= 1
        for clip in {clip for clip, _, _ in batch}:
            self._finish_if_complete(clip)

    def _finish_if_complete(self, number: int) -> None:
        clip, job = self._unfinished[number], self._jobs[number]
        if clip.end is None or clip.n_missing:
            return
        del self._unfinished[number]
        if clip.end.failure:
            self._failures[number] = clip.end.failure
            return
        values, times = np.concatenate(clip.values), increasing(np.array(clip.times), clip.end.frame_seconds)
        with replacing(job.output) as file:
            file.write(format_clip(times, values, job.decimals))
        self._n_frames[number] = len(values)
        if not (values[:, 0] > 0).any():
            self._without_face.append(number)


def process_clips(
    jobs: Sequence[ClipJob],
    alignment: AlignmentSettings,
    estimator: Estimator,
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
    estimator : Estimator
        What gives the intensities: in the workers if it belongs to them, else an ``AUEstimator``, in this process.
    workers : int
        Aligning processes, and on a CPU also threads of the network; with 0 this process aligns.
    progress : callable
        Told how many frames were aligned, and what part of a clip that is; the parts of a clip add up to 1.

    Raises
    ------
    FergiError
        If a worker dies, or a file cannot be written. Clips finished before that are whole.
    """
    n_readers = min(workers, len(jobs))
    of_workers, of_parent = (estimator, None) if estimator.in_workers else (None, estimator)
    n_threads = 1 if of_workers or estimator.device.type != "cpu" else max(1, workers)
    unread = multiprocessing.get_context("spawn").Queue()
    unread.cancel_join_thread()  # else a failed run waits at its end for somebody to read the rest
    readers = multiprocessing.RawArray("q", len(jobs))
    for item in [*((clip, job.video) for clip, job in enumerate(jobs)), *[None] * max(1, n_readers)]:
        unread.put(item)
    n_threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as threads,
            items_from_workers(_AlignedClips(alignment, of_workers, unread, readers), n_readers) as items,
        ):
            if of_parent:
                threads.submit(of_parent.load)  # while the workers start; an error comes again with the first batch
            writer = _FeatureWriter(jobs, of_parent, threads, slots=4 * n_threads)
            for clip, news, part in items:
                progress(len(news.times) if isinstance(news, _Frames) else 0, part)
                writer.take(clip, news)
            return writer.report()
    except WorkerDied as error:
        reading = [f" while reading {job.video}" for job, pid in zip(jobs, readers, strict=True) if pid == error.pid]
        raise FergiError(
            f"A worker process died{''.join(reading)} (exit code: {error.exit_code}), most likely out of memory. "
            "Replace or remove what it read, or run again with fewer --workers; finished clips stay."
        ) from error
    finally:
        torch.set_num_threads(n_threads_before)
