"""The feature CSV: one file a clip, one row a frame.

Columns: the frame's number from 1, its time in seconds, the confidence of the face detection (0–1), the
pitch and yaw indicative ratios (eqs. 18–19), and the estimated intensity of twelve AUs (about 0–5, not clipped).
A frame without a face has confidence 0, ratios −1 and intensities −1.
"""

import codecs
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

ACTION_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
COLUMNS = (
    "frame",
    "timestamp",
    "face_detection_confidence_score",
    "pitch_indicative_ratio",
    "yaw_indicative_ratio",
    *(f"AU{unit}" for unit in ACTION_UNITS),
)


@dataclass(frozen=True)
class ClipFeatures:
    """The frames of several clips, one clip after another.

    Attributes
    ----------
    starts : ndarray of int, shape (n_clips + 1,)
        Clip ``c`` owns the frames ``starts[c]`` up to, not including, ``starts[c + 1]``.
    values : ndarray of float, shape (n_frames, 17)
        The columns of ``COLUMNS``.
    """

    starts: np.ndarray
    values: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """One column, shape (n_frames,)."""
        return self.values[:, COLUMNS.index(name)]

    @property
    def intensities(self) -> np.ndarray:
        """The AU intensities, shape (n_frames, 12)."""
        return self.values[:, COLUMNS.index("AU1") :]

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each clip, shape (n_clips,)."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class FrameLimits:
    """Which frames count as frontal and not occluded (Section 5.1, Appendix C). Bounds are included."""

    minimum_detection_confidence: float
    pitch_ratio: tuple[float, float]
    yaw_ratio: tuple[float, float]


NO_FACE = (0.0, *[-1.0] * (len(COLUMNS) - 3))


def format_clip(timestamps: ArrayLike, values: ArrayLike, decimals: int) -> bytes:
    """One clip's feature CSV.

    ``timestamps`` are seconds, shape (n_frames,), written with three decimals. ``values`` are the columns after them,
    shape (n_frames, 15), written with ``decimals`` of them; ``NO_FACE`` for a frame without a face.
    """
    lines = [",".join(COLUMNS)]
    for frame, (time, row) in enumerate(zip(np.asarray(timestamps), np.asarray(values), strict=True), 1):
        cells = [f"{cell:.{decimals}f}" for cell in row] if row[0] > 0 else [f"{cell:.0f}" for cell in NO_FACE]
        lines.append(",".join([str(frame), f"{time:.3f}", *cells]))
    return ("\n".join(lines) + "\n").encode()


def valid_frames(features: ClipFeatures, limits: FrameLimits) -> np.ndarray:
    """Which frames have a confidently detected face that looks ahead (Appendix C), shape (n_frames,), bool."""
    valid = features.column("face_detection_confidence_score") >= limits.minimum_detection_confidence
    for name, (least, most) in (("pitch", limits.pitch_ratio), ("yaw", limits.yaw_ratio)):
        ratio = features.column(f"{name}_indicative_ratio")
        valid &= (ratio >= least) & (ratio <= most)
    return valid


def read_clips(paths: Sequence[Path]) -> tuple[ClipFeatures, list[str]]:
    """Read feature files, one a clip, and check them.

    The rows of all files are parsed together, which is several times faster than file by file.

    Returns
    -------
    features : ClipFeatures
        Not to be used if there are problems.
    problems : list of str
        Path, place and cause for each unusable file.
    """
    nothing = ClipFeatures(np.zeros(1, int), np.zeros((0, len(COLUMNS))))
    problems: list[str] = []
    bodies: list[bytes] = []
    for path in paths:
        try:
            bodies.append(_rows(path))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        return nothing, problems
    values = _parse(b"".join(bodies))
    if values is None:
        return nothing, [cause for each in zip(paths, bodies, strict=True) if (cause := _bad_cell(*each))]

    starts = np.cumsum([0, *(body.count(b"\n") for body in bodies)])
    features = ClipFeatures(starts, values)
    frame, time = features.column("frame"), features.column("timestamp")
    number = np.arange(len(values)) - np.repeat(starts[:-1], features.lengths) + 1
    rows = np.flatnonzero((frame != number) | ((np.diff(time, prepend=-np.inf) <= 0) & (number > 1)))
    clips, firsts = np.unique(np.searchsorted(starts, rows, side="right") - 1, return_index=True)
    for clip, row in zip(clips, rows[firsts], strict=True):
        if frame[row] != number[row]:
            cause = f"frame {frame[row]:g} instead of frame {number[row]}"
        else:
            cause = f"time {time[row]:g} s does not come after {time[row - 1]:g} s"
        problems.append(f"{paths[clip]}, line {number[row] + 1}: {cause}")
    return features, problems


def _rows(path: Path) -> bytes:
    """The lines below the header.

    Raises
    ------
    ValueError
        If the file is missing, unreadable, empty, without a row, cut off, or not of the right columns.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if not content:
        raise ValueError(f"{path} is empty")
    header, _, rows = content.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").partition(b"\n")
    names = header.decode(errors="replace").split(",")
    if names != list(COLUMNS):
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]}")
        if len(names) > len(COLUMNS):
            extra = next((name for name in names if name not in COLUMNS), "one of them twice")
            raise ValueError(f"{path} has {len(names)} columns instead of {len(COLUMNS)} (first other: {extra})")
        raise ValueError(f"{path} has its columns in another order than {COLUMNS[0]}, {COLUMNS[1]}, …, {COLUMNS[-1]}")
    if not rows:
        raise ValueError(f"{path} has a header but no frames")
    n_rows = rows.count(b"\n")
    if not rows.endswith(b"\n"):
        raise ValueError(f"{path} is cut off in line {n_rows + 2}")
    if b'"' in rows or not rows.isascii():
        lines = rows.split(b"\n")
        line = next(index for index, each in enumerate(lines) if b'"' in each or not each.isascii())
        raise ValueError(f"{path}, line {line + 2}: there is something else than numbers and commas")
    fields = [line.count(b",") + 1 for line in rows.split(b"\n")[:-1]]
    if set(fields) != {len(COLUMNS)}:
        line = next(index for index, count in enumerate(fields) if count != len(COLUMNS))
        raise ValueError(f"{path}, line {line + 2}: {fields[line]} values instead of {len(COLUMNS)}")
    return rows


def _parse(rows: bytes) -> np.ndarray | None:
    """Rows without a header as numbers; None if a cell is no finite number."""
    try:
        values = pd.read_csv(io.BytesIO(rows), header=None, names=list(COLUMNS), dtype=np.float64).to_numpy()
    except ValueError as error:
        # Reading from memory cannot fail: this is what pandas makes of Ctrl-C.
        if "Calling read(nbytes) on source failed" in str(error):
            raise KeyboardInterrupt from error
        return None
    return values if np.isfinite(values).all() else None


def _bad_cell(path: Path, rows: bytes) -> str | None:
    """Where the first cell is that is no finite number, if there is one."""
    cells = pd.read_csv(io.BytesIO(rows), header=None, names=list(COLUMNS), dtype=str, keep_default_na=False)
    numbers = cells.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    for row, column in np.argwhere(~np.isfinite(numbers)):
        return f"{path}, line {row + 2}, column {COLUMNS[column]}: {cells.iloc[row, column]!r} is not a number"
    return None
