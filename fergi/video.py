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
    with open_video(path) as video:
        yield from video.frames()


@contextlib.contextmanager
def open_video(path: Path) -> Iterator["Video"]:
    """A video whose frames and promises can be asked for.

    Raises
    ------
    UnreadableVideo
        If the file cannot be opened as a video.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:  # OpenCV would end the process
        name = os.fsencode(path).decode(errors="backslashreplace")
        raise UnreadableVideo(f"{name} is not a name in UTF-8, as OpenCV needs it") from None
    if not path.is_file():
        raise UnreadableVideo(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise UnreadableVideo(f"{path} is empty")
    with contextlib.closing(Video(path)) as video:
        if not video.opened:
            raise UnreadableVideo(f"{path} is not a video that OpenCV can open")
        yield video


class Video:
    """An open video; see ``open_video``.

    Attributes
    ----------
    frame_seconds : float
        From one frame to the next at the container's rate; 0 if it names none.
    promised : float
        How many frames the container says that it holds; 0 or less if it does not say.
    """

    def __init__(self, path: Path):
        # OpenCV and FFmpeg say on the terminal what the exceptions above say.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._path = path
        # A whole path, since OpenCV takes what stands before a colon for a protocol.
        self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        self.opened = self._capture.isOpened()
        rate = self._capture.get(cv2.CAP_PROP_FPS) if self.opened else 0.0
        self.frame_seconds = 1 / rate if rate > 0 else 0.0
        self.promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) if self.opened else 0.0

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """See ``read_frames``; once only."""
        n_frames, last = 0, 0.0
        while (frame := self._read()) is not None:
            n_frames, last = n_frames + 1, frame[0]
            yield frame
            del frame  # the pictures of a large video are large
        if n_frames == 0:
            raise UnreadableVideo(f"{self._path} has no frames that OpenCV can decode")
        # Some containers estimate their number of frames, and some have no positions: only both together tell.
        ends_early = last + self.frame_seconds < LEAST_SHARE * self.frame_seconds * self.promised
        if ends_early and n_frames < LEAST_SHARE * self.promised:
            raise UnreadableVideo(f"{self._path} breaks off after {n_frames} of {self.promised:.0f} frames")

    def _read(self) -> tuple[float, np.ndarray] | None:
        good, picture = self._capture.read()
        if not good:
            return None
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()


def increasing(times: np.ndarray, frame_seconds: float = 0.0) -> np.ndarray:
    """Times that increase from frame to frame in whole milliseconds.

    A time that does not becomes one millisecond more than the one before it. Where that would be most of them, as in
    a container without usable positions, frames are counted at the container's rate instead.

    Parameters
    ----------
    times : ndarray, shape (n_frames,)
        Seconds.
    frame_seconds : float
        See ``Video``. At a millisecond or less it is the step of a clock and no rate, and 30 FPS are taken.
    """
    repaired, n_repaired = times.copy(), 0
    for index in range(1, len(times)):
        least = round(repaired[index - 1], 3) + 0.001
        if round(times[index], 3) < least - 0.0005:
            repaired[index] = least
            n_repaired += 1
    if 2 * n_repaired > len(times) - 1:
        return np.arange(len(times)) * (frame_seconds if frame_seconds > 0.001 else 1 / 30)
    return repaired
