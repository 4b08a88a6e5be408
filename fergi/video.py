"""Frames of a video, one after another."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

# Containers may promise a little more than they hold; a tenth less is a recording that was cut off.
LEAST_SHARE = 0.9


class UnreadableVideo(Exception):
    """A file that is no video, has no frames, or breaks off; the text says which."""


def read_frames(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """The frames of a video with their times.

    Yields
    ------
    time : float
        Position of the frame in the video, in seconds, as the container has it.
    picture : ndarray of uint8, shape (height, width, 3)
        RGB.

    Raises
    ------
    UnreadableVideo
        If the file cannot be opened as a video, has no frames, or breaks off. Frames before the break were given.
    """
    if not path.is_file():
        raise UnreadableVideo(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise UnreadableVideo(f"{path} is empty")
    with contextlib.closing(_Capture(path)) as capture:
        if not capture.opened:
            raise UnreadableVideo(f"{path} is not a video that OpenCV can open")
        n_frames, last = 0, 0.0
        while (frame := capture.read()) is not None:
            n_frames, last = n_frames + 1, frame[0]
            yield frame
        if n_frames == 0:
            raise UnreadableVideo(f"{path} has no frames that OpenCV can decode")
        # Some containers estimate their number of frames, and some have no positions: only both together tell.
        ends_early = last + capture.frame_seconds < LEAST_SHARE * capture.seconds
        if ends_early and n_frames < LEAST_SHARE * capture.promised:
            raise UnreadableVideo(f"{path} breaks off after {n_frames} of {capture.promised:.0f} frames")


class _Capture:
    """OpenCV's reader with what is wanted of it."""

    def __init__(self, path: Path):
        # OpenCV and FFmpeg say on the terminal what the exceptions above say.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        self.opened = self._capture.isOpened()
        rate = self._capture.get(cv2.CAP_PROP_FPS) if self.opened else 0.0
        self.frame_seconds = 1 / rate if rate > 0 else 0.0
        self.promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if self.opened else 0.0
        self.seconds = self.frame_seconds * self.promised

    def read(self) -> tuple[float, np.ndarray] | None:
        good, picture = self._capture.read()
        if not good:
            return None
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        self._capture.release()


def increasing(times: np.ndarray, frames_per_second: float = 30.0) -> np.ndarray:
    """Times that increase from frame to frame in whole milliseconds.

    A container without usable positions gives zeros or repeats; then frames are counted at the rate given.
    """
    if len(times) < 2 or (np.diff(np.round(times, 3)) > 0).all():
        return times
    return np.arange(len(times)) / frames_per_second
