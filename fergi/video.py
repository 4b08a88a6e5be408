"""Frames of a video, one after another."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

# Some containers name a few frames more than they have; a recording without a tenth of its frames is cut off.
LEAST_SHARE = 0.9


class UnreadableVideo(Exception):
    """A file that is no video, has no frames, or breaks off; the message says which."""


def read_frames(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """The frames of a video with their times; errors and all as with ``Video`` and its ``frames``."""
    with Video(path) as video:
        yield from video.frames()


class Video(contextlib.AbstractContextManager):
    """An open video, which closes at the end of a ``with`` block.

    ``frame_seconds`` are from one frame to the next at the container's rate, 0 if it names none. ``promised`` is how
    many frames the container says that it holds, 0 or less if it does not say.
    """

    def __init__(self, path: Path):
        """Open it.

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
        # The exceptions say what OpenCV and FFmpeg would print on the terminal.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        # An absolute path, because OpenCV takes what stands before a colon for a protocol.
        self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            raise UnreadableVideo(f"{path} is not a video that OpenCV can open")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._path, self.frame_seconds = path, 1 / rate if rate > 0 else 0.0
        self.promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)

    def __exit__(self, *_) -> None:
        self._capture.release()

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        """The frames with their times; once only.

        Yields
        ------
        time : float
            Position of the frame in the video, in seconds, as the container has it.
        picture : ndarray of uint8, shape (height, width, 3)
            RGB.

        Raises
        ------
        UnreadableVideo
            If the video has no frames or breaks off. The frames before the break come first.
        """
        n_frames, last, decoded = 0, 0.0, None
        while (found := self._capture.read(decoded))[0]:
            n_frames, last = n_frames + 1, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            decoded = found[1]  # the next one goes into the same memory: new memory costs nearly as much as decoding
            yield last, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        if n_frames == 0:
            raise UnreadableVideo(f"{self._path} has no frames that OpenCV can decode")
        # Some containers estimate their number of frames, and some have no positions, so both must be too small.
        ends_early = last + self.frame_seconds < LEAST_SHARE * self.frame_seconds * self.promised
        if ends_early and n_frames < LEAST_SHARE * self.promised:
            raise UnreadableVideo(f"{self._path} breaks off after {n_frames} of {self.promised:.0f} frames")


def increasing(times: np.ndarray, frame_seconds: float = 0.0) -> np.ndarray:
    """Times that increase from frame to frame in whole milliseconds.

    A time that does not increase becomes one millisecond more than the one before it. Where that would be most times,
    as in a container without usable positions, frames are counted at the container's rate instead.

    ``times`` are seconds, shape (n_frames,); ``frame_seconds`` as in ``Video``. At a millisecond or less these are the
    step of a clock and no rate, and 30 FPS are assumed.
    """
    number = np.arange(len(times))
    milliseconds = np.array([round(1000 * round(time, 3)) for time in times.tolist()], float)  # as they are written
    least = np.maximum.accumulate(milliseconds - number) + number
    if 2 * np.count_nonzero(least > milliseconds) > len(times) - 1:
        return number * (frame_seconds if frame_seconds > 0.001 else 1 / 30)
    return np.where(least > milliseconds, least / 1000, times)
