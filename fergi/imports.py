"""Feature files from the tables of OpenFace, py-feat and LibreFace.

Each tool has a function from its table to ``Faces``. ``docs/estimators.md`` says which version each was written for and
what was read for it. The pitch and yaw ratios (eqs. 18–19) come from the tool's landmarks where its table has them, and
else from its angles (``ratios_of_angles``).
"""

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fergi.faces.alignment import face_frame
from fergi.features import ACTION_UNITS, NO_FACE

MAP_VERSION = "1"
PROBABILITY_TO_INTENSITY = 5.0  # a presence, 0–1, gets the range of an intensity; it does not become one
# Of MediaPipe's canonical face model, in distances between its eyes; see ``ratios_of_angles``.
NOSTRILS_BELOW_EYES, NOSTRILS_BEFORE_EYES = 0.714, 0.314
JAW_BEHIND_EYES = 0.621  # in twice the distance from an eye to the edge of the face at the same side
# Of WFLW's 98 landmarks, those that stand for the 68.
WFLW_POINTS = (
    *range(0, 33, 2), 33, 34, 35, 36, 37, 42, 43, 44, 45, 46, *range(51, 60), 60, 61, 63, 64, 65, 67,
    68, 69, 71, 72, 73, 75, *range(76, 96),
)  # fmt: skip
# OpenFace 3.0 does not name its outputs; its training takes these labels of DISFA (docs/estimators.md).
OPENFACE_3_UNITS = (1, 2, 4, 6, 9, 12, 25, 26)
OPENFACE_3_FACE = 0.5  # score from which OpenFace 3.0 itself speaks of a face


@dataclass(frozen=True)
class Options:
    """What a table does not say: frames a second, which of several faces (see ``clip``), width and height in pixels."""

    frames_per_second: float | None = None
    face: str | None = None
    picture: tuple[int, int] | None = None


@dataclass(frozen=True)
class Faces:
    """The rows of a tool's table, a face in a frame each.

    Attributes
    ----------
    frame : ndarray of int, shape (n,)
        Number of the frame, as the tool counts.
    seconds : ndarray or None, shape (n,)
        Time of the frame, if the table has it.
    name : ndarray of str, shape (n,)
        Which face it is.
    found : ndarray of bool, shape (n,)
        Whether there is a face in that row.
    score : ndarray, shape (n,)
        How sure the tool is of the face or its landmarks, 0–1.
    intensities : dict of int to ndarray, shape (n,)
        Of the AUs that the tool gives, about 0–5.
    landmarks : ndarray or None, shape (n, 68, 2)
        In pixels.
    angles : ndarray or None, shape (n, 2)
        Pitch, positive downwards, and yaw, positive to the person's right, in radians.
    """

    frame: np.ndarray
    seconds: np.ndarray | None
    name: np.ndarray
    found: np.ndarray
    score: np.ndarray
    intensities: dict[int, np.ndarray]
    landmarks: np.ndarray | None = None
    angles: np.ndarray | None = None


@dataclass(frozen=True)
class Table:
    """The cells of a tool's table, as text; errors name the file, the line and the column."""

    path: Path
    cells: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read a CSV table; ValueError if it is none, has no rows or is cut off."""
        try:
            text = path.read_text(encoding="utf-8-sig")
            rows = list(csv.reader(text.splitlines(), skipinitialspace=True))
        except FileNotFoundError:
            raise ValueError(f"{path} does not exist") from None
        except (OSError, csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV table: {error}") from None
        if not rows:
            raise ValueError(f"{path} is empty")
        if len(rows) == 1:
            raise ValueError(f"{path} has a header but no rows")
        if not text.endswith("\n"):
            raise ValueError(f"{path} is cut off in line {len(rows)}")
        for line, row in enumerate(rows, start=1):
            if len(row) != len(rows[0]):
                raise ValueError(f"{path}, line {line}: {len(row)} values instead of {len(rows[0])}")
        cells = pd.DataFrame(rows[1:], columns=[name.strip() for name in rows[0]], dtype=str)
        if not cells.columns.is_unique:
            raise ValueError(f"{path} has two columns {cells.columns[cells.columns.duplicated()][0]}")
        return cls(path, cells)

    def require(self, columns: Iterable[str]) -> None:
        """ValueError unless the columns are there."""
        missing = [name for name in columns if name not in self.cells]
        if missing:
            raise ValueError(f"{self.path} has no column {missing[0]}")

    def has(self, columns: Iterable[str]) -> bool:
        """Whether all of the columns are there."""
        return all(name in self.cells for name in columns)

    def numbers(self, *columns: str) -> np.ndarray:
        """Columns as numbers, shape (n_rows, n_columns); NaN for an empty cell. ValueError at what is no number."""
        self.require(columns)
        text = self.cells[list(columns)]
        values = text.apply(pd.to_numeric, errors="coerce").to_numpy(float)
        for row, column in np.argwhere(~np.isfinite(values) & ~text.isin(["", "nan", "NaN"]).to_numpy()):
            self.fail(row, columns[column], f"{text.iloc[row, column]!r} is not a number")
        return values

    def names(self, column: str | None) -> np.ndarray:
        """A column as names of faces (0 for what pandas wrote as 0.0), "0" for all if there is no such column."""
        if column not in self.cells:
            return np.full(len(self.cells), "0")
        return self.cells[column].str.removesuffix(".0").to_numpy(str)

    def lists(self, column: str) -> list[np.ndarray | None]:
        """A column of lists of numbers, as Python and JSON write them; None for an empty cell."""
        self.require([column])
        found: list[np.ndarray | None] = []
        for row, cell in enumerate(self.cells[column]):
            try:
                found.append(np.array(json.loads(cell), float) if cell.strip() else None)
            except ValueError:
                self.fail(row, column, f"{cell[:20]!r} is not a list of numbers")
        return found

    def whole(self, column: str) -> np.ndarray:
        """A column of frame numbers; ValueError at what is none."""
        values = self.numbers(column)[:, 0]
        for row in np.flatnonzero(~(values % 1 == 0)):
            text = self.cells[column].iloc[row]
            hint = "; it looks like seconds" if 0 < values[row] < 1 else ""
            self.fail(row, column, f"{text!r} is no number of a frame{hint}")
        return values.astype(int)

    def fail(self, row: int, column: str, what: str) -> None:
        """ValueError with the place."""
        raise ValueError(f"{self.path}, line {row + 2}, column {column}: {what}")


@dataclass(frozen=True)
class Tool:
    """A tool whose tables can be read: its name and version as an estimator, and its function from table to faces."""

    estimator: str
    version: str  # that the function was written for
    faces: "Callable[[Table, Options], Faces]"
    leaves_out_frames: bool = False  # frames without a face have no row


def ratios_of_angles(pitch: ArrayLike, yaw: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    r"""Pitch and yaw ratios (eqs. 19, 18) that a standard head has at some angles.

    .. math::
        r_{pitch} = \frac{a \cos φ}{\cos θ} + b \sin φ, \qquad r_{yaw} = \frac{1}{2} - c \tan θ

    with the pitch φ, positive downwards, and the yaw θ, positive to the person's right; a is how far the nostrils lie
    below the eyes, b how far before them, both in distances between the eyes, and c how far the edge of the face at
    the jaw's first point lies behind the eyes, in twice its distance from the eye. The picture is a parallel
    projection of MediaPipe's canonical face model.

    So the limits of Appendix C are 17.9 degrees of yaw to either side (ratios 0.3–0.7) and 21.4 degrees upwards (0.55).
    Downwards the ratio stays below 0.79, so that only a face turned sideways exceeds 0.85.

    Parameters
    ----------
    pitch, yaw : array_like, shape (n,)
        Radians.
    """
    pitch, yaw = np.asarray(pitch, float), np.asarray(yaw, float)
    pitch_ratio = NOSTRILS_BELOW_EYES * np.cos(pitch) / np.cos(yaw) + NOSTRILS_BEFORE_EYES * np.sin(pitch)
    return pitch_ratio, 0.5 - JAW_BEHIND_EYES * np.tan(yaw)


def ratios_of_landmarks(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pitch and yaw ratios of faces from their landmarks in pixels, shape (n, 68, 2); NaN where they make no face."""
    ratios = np.full((len(landmarks), 2), np.nan)
    for row, points in enumerate(landmarks):
        try:
            frame = face_frame(points)
        except ValueError:
            continue
        ratios[row] = frame.pitch_ratio, frame.yaw_ratio
    return ratios[:, 0], ratios[:, 1]


# The tools --------------------------------------------------------------------------------------------------------


def _two_digits(unit: int) -> str:
    return f"AU{unit:02d}"


def _points_68(table: Table, x: str, y: str) -> np.ndarray | None:
    """68 landmarks from columns such as x_0 … x_67, y_0 … y_67; None if the table does not have them."""
    names = [f"{axis}{point}" for axis in (x, y) for point in range(68)]
    if not table.has(names):
        return None
    return table.numbers(*names).reshape(-1, 2, 68).transpose(0, 2, 1)


def _facemesh_68(table: Table, x: str, y: str) -> np.ndarray:
    """The landmarks that stand for the 68 among MediaPipe's 478; {} in the names is the point."""
    from fergi.faces.landmarks import FACEMESH_POINTS  # it imports MediaPipe and PyTorch

    names = [axis.format(point) for axis in (x, y) for point in FACEMESH_POINTS]
    return table.numbers(*names).reshape(-1, 2, 68).transpose(0, 2, 1)


def _openface_2(table: Table, options: Options) -> Faces:
    """OpenFace 2.2: intensities 0–5, angles in radians, confidence of the landmarks; a row a frame."""
    table.require(["frame", "confidence", "success"])
    units = {unit: table.numbers(f"{_two_digits(unit)}_r")[:, 0] for unit in ACTION_UNITS}
    confidence, success = table.numbers("confidence", "success").T
    landmarks = _points_68(table, "x_", "y_")
    if landmarks is None and not table.has(["pose_Rx", "pose_Ry"]):
        raise ValueError(f"{table.path} has neither landmarks (columns x_0, …) nor angles (pose_Rx, pose_Ry)")
    return Faces(
        frame=table.whole("frame"),
        seconds=table.numbers("timestamp")[:, 0] if table.has(["timestamp"]) else None,
        name=table.names("face_id"),
        found=success == 1,
        score=confidence,
        intensities=units,
        landmarks=landmarks,
        angles=table.numbers("pose_Rx", "pose_Ry") if landmarks is None else None,
    )


def _openface_3(table: Table, options: Options) -> Faces:
    """OpenFace 3.0: presences 0–1 of the face with the highest score, which all rows of a frame repeat; no times."""
    table.require(["frame_index", "face_detection", "landmarks", "action_units"])
    detections, landmarks, outputs = (table.lists(name) for name in ("face_detection", "landmarks", "action_units"))
    n = len(detections)
    score, points, presences = np.zeros(n), np.full((n, 68, 2), np.nan), np.full((n, len(OPENFACE_3_UNITS)), np.nan)
    for row in range(n):
        if detections[row] is None:
            continue
        for cells, column, size in ((detections, "face_detection", 5), (landmarks, "landmarks", 98 * 2)):
            if cells[row] is None or cells[row].size < size:
                table.fail(row, column, f"it must have {size} numbers")
        if outputs[row] is None or outputs[row].size != len(OPENFACE_3_UNITS):
            table.fail(row, "action_units", f"it must have {len(OPENFACE_3_UNITS)} numbers")
        score[row], points[row] = detections[row][4], landmarks[row].reshape(98, 2)[list(WFLW_POINTS)]
        presences[row] = outputs[row].ravel()
    return Faces(
        frame=table.whole("frame_index"),
        seconds=None,
        name=table.names("face_id"),
        found=score >= OPENFACE_3_FACE,
        score=score,
        intensities=dict(zip(OPENFACE_3_UNITS, PROBABILITY_TO_INTENSITY * presences.T, strict=True)),
        landmarks=points,
    )


def _py_feat(table: Table, options: Options) -> Faces:
    """py-feat 2: presences 0–1, angles in radians (pitch positive upwards), times only to the second."""
    table.require(["frame", "FaceScore"])
    presences = table.numbers(*map(_two_digits, ACTION_UNITS))
    score = np.nan_to_num(table.numbers("FaceScore")[:, 0])
    landmarks = _facemesh_68(table, "x_{}", "y_{}") if table.has(["x_477"]) else _points_68(table, "x_", "y_")
    if landmarks is None and not table.has(["Pitch", "Yaw"]):
        raise ValueError(f"{table.path} has neither landmarks (columns x_0, …) nor angles (Pitch, Yaw)")
    return Faces(
        frame=table.whole("frame"),
        seconds=None,
        name=table.names("Identity"),
        found=score > 0,
        score=score,
        intensities=dict(zip(ACTION_UNITS, PROBABILITY_TO_INTENSITY * presences.T, strict=True)),
        landmarks=landmarks,
        angles=table.numbers("Pitch", "Yaw") * [-1, 1] if landmarks is None else None,
    )


def _libreface(table: Table, options: Options) -> Faces:
    """LibreFace 0.2: intensities 0–5, landmarks in shares of the picture, no score; a frame without a face has no row.

    Its column ``frame_time_in_ms`` has seconds in 0.2.0; milliseconds are recognised. Its angles are not used: they are
    degrees times 360, of a fit that takes the pixels of a picture for the points of a head.
    """
    table.require(["frame_idx", "frame_time_in_ms"])
    units = {unit: table.numbers(f"au_{unit}_intensity")[:, 0] for unit in ACTION_UNITS}
    if options.picture is None:
        raise ValueError(f"{table.path} has landmarks in shares of the picture; give its size with --picture 640x480")
    landmarks = _facemesh_68(table, "lm_mp_{}_x", "lm_mp_{}_y") * options.picture
    frame, seconds = table.whole("frame_idx"), table.numbers("frame_time_in_ms")[:, 0]
    if len(frame) > 1 and np.median(np.diff(seconds) / np.maximum(np.diff(frame), 1)) >= 1:
        seconds = seconds / 1000
    found = np.isfinite(landmarks).all(axis=(1, 2))
    return Faces(frame, seconds, table.names(None), found, found.astype(float), units, landmarks)


OPENFACE_2 = Tool("openface-2.2", "2.2.0", _openface_2)
OPENFACE_3 = Tool("openface-3.0", "3.0 (openface-test 0.1.26)", _openface_3)
PY_FEAT = Tool("py-feat-2", "2.1.5", _py_feat)
LIBREFACE = Tool("libreface-0.2", "0.2.0", _libreface, leaves_out_frames=True)
TOOLS = ("openface", "py-feat", "libreface")


def tool_of(name: str, table: Table) -> Tool:
    """The tool of that name in ``TOOLS`` that wrote a table; versions of OpenFace differ in their columns."""
    if name == "openface":
        return OPENFACE_3 if table.has(["action_units"]) else OPENFACE_2
    return {"py-feat": PY_FEAT, "libreface": LIBREFACE}[name]


# From faces to a feature file -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """Times in seconds, shape (n_frames,), and values, shape (n_frames, 15), as ``format_clip`` takes them.

    ``ratios`` says what the pitch and yaw ratios come from: landmarks or angles.
    """

    times: np.ndarray
    values: np.ndarray
    ratios: str


def clip(table: Table, tool: Tool, options: Options) -> Clip:
    """The frames of one table, of one face each.

    Of several faces in a frame ``options.face`` takes one: ``largest`` (the widest), ``first`` (of the table), or the
    face of that name. Frames that the table lacks are frames without a face; if it has each k-th frame only, those are
    its frames.

    Raises
    ------
    ValueError
        With the file and the cause: a missing column, what is no number, several faces and no rule, no times and no
        frame rate, times and frame rate that differ, or numbers of frames that cannot be that.
    """
    faces = tool.faces(table, options)
    chosen = _chosen_faces(faces, options.face, table.path)
    frames = _all_frames(faces.frame, table.path, from_0=tool.leaves_out_frames)
    times = _times(faces, frames, options.frames_per_second, table.path)
    if faces.landmarks is None:
        ratios = ratios_of_angles(*faces.angles[chosen].T)
    else:
        ratios = ratios_of_landmarks(faces.landmarks[chosen])
    rows = np.full((len(chosen), len(NO_FACE)), np.nan)
    rows[:, 0], rows[:, 1], rows[:, 2] = faces.score[chosen], *ratios
    for unit, intensities in faces.intensities.items():
        rows[:, 3 + ACTION_UNITS.index(unit)] = intensities[chosen]
        empty = chosen[~np.isfinite(intensities[chosen])]
        if len(empty):
            raise ValueError(f"{table.path}, line {empty[0] + 2}: there is a face without AU{unit}")
    values = np.tile(NO_FACE, (len(frames), 1))
    usable = (rows[:, 0] > 0) & np.isfinite(rows[:, :3]).all(axis=1)
    values[np.searchsorted(frames, faces.frame[chosen[usable]])] = rows[usable]
    return Clip(times, values, "angles" if faces.landmarks is None else "landmarks")


def _chosen_faces(faces: Faces, rule: str | None, path: Path) -> np.ndarray:
    """The rows of one face a frame, in the order of the frames; frames without a face have none."""
    rows = np.flatnonzero(faces.found)
    if rule not in (None, "first", "largest"):
        rows = rows[faces.name[rows] == rule]
        if not len(rows):
            there = ", ".join(sorted(set(faces.name[faces.found]))) or "none"
            raise ValueError(f"{path} has no face {rule} (its faces: {there})")
    size = np.zeros(len(rows))
    if rule == "largest":
        if faces.landmarks is None:
            raise ValueError(f"{path} has no landmarks, so that the largest face is not known; choose another --face")
        size = np.ptp(faces.landmarks[rows, :, 0], axis=1)
    rows = rows[np.lexsort((rows, -size, faces.frame[rows]))]
    frames, firsts, counts = np.unique(faces.frame[rows], return_index=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if len(several) and rule not in ("first", "largest"):
        frame = frames[several[0]]
        names = ", ".join(faces.name[rows[faces.frame[rows] == frame]])
        raise ValueError(
            f"{path} has several faces in {len(several)} of {len(np.unique(faces.frame))} frames "
            f"(first: frame {frame}, faces {names})"
        )
    return rows[firsts]


def _all_frames(numbers: np.ndarray, path: Path, *, from_0: bool) -> np.ndarray:
    """Numbers of all frames between the first and the last, also of those without a row."""
    there = np.unique(numbers)
    step = int(np.gcd.reduce(np.diff(there))) if len(there) > 1 else 1
    first = int(there[0] % step) if from_0 else int(there[0])
    frames = np.arange(first, there[-1] + 1, step)
    if len(there) < len(frames) / 2:
        raise ValueError(
            f"{path} has only {len(there)} of the frames {first} to {there[-1]}; do its numbers count frames?"
        )
    return frames


def _times(faces: Faces, frames: np.ndarray, frames_per_second: float | None, path: Path) -> np.ndarray:
    """Seconds from the first frame."""
    if faces.seconds is None:
        if frames_per_second is None:
            raise ValueError(f"{path} does not say when its frames were taken")
        return (frames - frames[0]) / frames_per_second
    there, firsts = np.unique(faces.frame, return_index=True)
    seconds = faces.seconds[firsts]
    late = np.flatnonzero(~(np.diff(seconds) > 0))
    if len(late) or np.isnan(seconds[0]):
        frame = there[late[0] + 1] if len(late) else there[0]
        raise ValueError(f"{path}: the time of frame {frame} does not come after the one before it")
    pace = (seconds[-1] - seconds[0]) / (there[-1] - there[0]) if len(there) > 1 else 0.0
    if pace >= 1:
        raise ValueError(f"{path}: its times grow by {pace:g} a frame, so that they cannot be seconds")
    if frames_per_second is not None and pace and abs(1 / pace / frames_per_second - 1) > 0.02:
        raise ValueError(f"{path} has times of {1 / pace:.3g} frames a second, not {frames_per_second:g}")
    times = np.interp(frames, there, seconds)
    times[frames < there[0]] -= pace * (there[0] - frames[frames < there[0]])
    return times - times[0]
