"""Videos and pictures of a face for the tests, and threads in the place of the scripts' processes.

The face is Eileen Collins, from scikit-image, in the public domain: on it the real detector and landmarks work.
"""

import functools
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from fergi.faces import pipeline
from fergi.faces.pipeline import AlignmentSettings, FaceAligner

GREY = np.full((192, 192, 3), 128, np.uint8)
RATE = 30


@functools.cache
def portrait() -> np.ndarray:
    """One face, about 75 pixels wide, RGB, 192 × 192."""
    return cv2.resize(astronaut()[0:320, 60:380], (192, 192), interpolation=cv2.INTER_AREA)


def moving_face(n: int, start: int = 0) -> list[np.ndarray]:
    """Frames in which the face moves to the side and back and gets brighter, so that no two are alike."""
    return [
        np.clip(np.roll(portrait(), abs((start + i) % 24 - 12) - 6, axis=1) * (0.8 + 0.006 * (i % 40)), 0, 255).astype(
            np.uint8
        )
        for i in range(n)
    ]


def film(path: Path, pictures: Iterable[np.ndarray], codec: str = "mp4v", rate: float = RATE, side: int = 192) -> Path:
    """Write RGB pictures of side × side pixels as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (side, side))
    assert writer.isOpened(), f"OpenCV does not write {codec} into {path.suffix}"
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def snapshot(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Every file below a folder (that fits one of the patterns, if there are any) and what is in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (not patterns or any(path.match(pattern) for pattern in patterns))
    }


@functools.cache
def _facemesh(luma: str) -> FaceAligner:
    return FaceAligner(AlignmentSettings(Path("no weights"), "facemesh", luma))


def shared_aligner(settings: AlignmentSettings) -> FaceAligner:
    """A FaceAligner; the one with nothing but what mediapipe brings along is loaded once."""
    if settings.landmarks == "facemesh" and not settings.pretrained_models.is_dir():
        return _facemesh(settings.luma)
    return FaceAligner(settings)


class _Queue(queue.Queue):
    def cancel_join_thread(self) -> None:
        """Threads need no such thing."""


class _Thread(threading.Thread):
    """A thread with what is used of multiprocessing's Process."""

    def __init__(self, target, args, daemon: bool) -> None:
        super().__init__(daemon=daemon)
        self._work, self._arguments, self._code = target, args, None

    def run(self) -> None:
        try:
            self._work(*self._arguments)
            self._code = 0
        except BaseException:  # noqa: BLE001  a process, too, prints it and ends
            traceback.print_exc()
            self._code = 1

    @property
    def exitcode(self) -> int | None:
        return None if self.is_alive() else self._code

    def terminate(self) -> None:
        """Not in the middle of something, but before the next piece of work."""
        for each in self._arguments:
            if isinstance(each, _Queue):
                while not each.empty():
                    each.get_nowait()
                for _ in range(4):
                    each.put(None)
            elif isinstance(each, threading.Semaphore):
                each.release(1000)
        self.join(30)
        assert not self.is_alive()


class _Threads:
    """Stands for a context of multiprocessing."""

    Process, Queue, Semaphore = _Thread, _Queue, threading.Semaphore


def threads_for_processes(patch: pytest.MonkeyPatch) -> None:
    """Let the code run its own functions in threads: a process takes seconds to import what it needs.

    Use it with ``--workers 1``, since the models of one thread must not be used in another at the same time.
    """
    import clips_facial_process
    from fergi import clips
    from fergi.action_units import aligned_faces

    patch.setattr(multiprocessing, "get_context", lambda method: _Threads)
    patch.setattr(aligned_faces, "ProcessPoolExecutor", lambda n, mp_context, **more: ThreadPoolExecutor(n, **more))
    for module in (clips, aligned_faces, clips_facial_process, pipeline):
        patch.setattr(module, "FaceAligner", shared_aligner)


def killed(*_) -> None:
    """What a worker process may run into: the system ends it without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed_while_reading(settings, number, jobs, messages, places, under_way) -> None:
    """Likewise, brought down by its second video."""
    for _ in range(2):
        under_way[number] = jobs.get()[0] + 1
    killed()


if __name__ == "__main__":  # what torchrun starts in a test
    time.sleep(4 * int(os.environ["RANK"]))
    threads_for_processes(pytest.MonkeyPatch())
    from clips_facial_process import main
    from fergi.script import run

    run(main)
