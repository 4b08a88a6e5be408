"""The feature CSV: one file a clip, one row a frame.

Columns: the frame's number from 1, its time in seconds, the confidence of the face detection (0–1), the
pitch and yaw indicative ratios (eqs. 18–19), and the estimated intensity of twelve AUs (about 0–5, not clipped).
A frame without a face has confidence 0, ratios −1 and intensities −1. An AU that the estimator does not give is empty
in every row that has a face, and NaN in memory.

Which estimator made the files stands in the ``settings.json`` nearest above them (``estimator_of``). One table takes
one estimator (``require_one_estimator``).
"""

import codecs
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from fergi.files import FergiError, read_json

ACTION_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
COLUMNS = (
    "frame",
    "timestamp",
    "face_detection_confidence_score",
    "pitch_indicative_ratio",
    "yaw_indicative_ratio",
    *(f"AU{unit}" for unit in ACTION_UNITS),
)
_FIRST_AU = COLUMNS.index("AU1")
SETTINGS_FILE = "settings.json"
PUBLISHED_ESTIMATOR = {"estimator": "fergi", "estimator_version": "published"}


@dataclass(frozen=True)
class ClipFeatures:
    """The frames of several clips, one clip after another.

    Attributes
    ----------
    starts : ndarray of int, shape (n_clips + 1,)
        Clip ``c`` owns the frames ``starts[c]`` up to, not including, ``starts[c + 1]``.
    values : ndarray of float, shape (n_frames, 17)
        The columns of ``COLUMNS``; NaN for an AU that the clip does not have.
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
    shape (n_frames, 15), written with ``decimals`` of them; ``NO_FACE`` for a frame without a face. NaN is written as
    an empty cell.
    """
    lines = [",".join(COLUMNS)]
    for frame, (time, row) in enumerate(zip(np.asarray(timestamps), np.asarray(values), strict=True), 1):
        cells = [f"{cell:.{decimals}f}" for cell in row] if row[0] > 0 else [f"{cell:.0f}" for cell in NO_FACE]
        cells = ["" if cell == "nan" else cell for cell in cells]
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
    if np.isnan(values).any():
        problems = _partly_empty(paths, features)
        if problems:
            return nothing, problems
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
    """Rows without a header as numbers, NaN where an AU is empty; None if another cell is no finite number."""
    import pandas as pd  # scripts that only write features need not wait for it

    try:
        # Without the default list of words for NaN, which would take "nan" and "NA" for empty cells.
        form = {"header": None, "names": list(COLUMNS), "keep_default_na": False, "na_values": [""]}
        values = pd.read_csv(io.BytesIO(rows), dtype=np.float64, **form).to_numpy()
    except ValueError as error:
        # Reading from memory cannot fail: this is what pandas makes of Ctrl-C.
        if "Calling read(nbytes) on source failed" in str(error):
            raise KeyboardInterrupt from error
        return None
    if np.isfinite(values).all():
        return values
    usable = np.isfinite(values[:, :_FIRST_AU]).all() and not np.isinf(values).any()
    return values if usable else None


def _partly_empty(paths: Sequence[Path], features: ClipFeatures) -> list[str]:
    """Where an AU is empty that other rows of the same file with a face have."""
    empty = np.isnan(features.intensities)
    with_face = features.column("face_detection_confidence_score") > 0
    given = np.logical_or.reduceat(~empty & with_face[:, None], features.starts[:-1])
    problems = []
    for clip, path in enumerate(paths):
        rows, units = np.nonzero(empty[features.starts[clip] : features.starts[clip + 1]] & given[clip])
        if len(rows):
            where = f"line {rows[0] + 2}, column {COLUMNS[_FIRST_AU + units[0]]}"
            problems.append(f"{path}, {where}: it is empty, and not in every row with a face")
    return problems


def _bad_cell(path: Path, rows: bytes) -> str | None:
    """Where the first cell is that is no finite number and no empty AU, if there is one."""
    import pandas as pd

    cells = pd.read_csv(io.BytesIO(rows), header=None, names=list(COLUMNS), dtype=str, keep_default_na=False)
    numbers = cells.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    bad = ~np.isfinite(numbers)
    bad[:, _FIRST_AU:] &= cells.iloc[:, _FIRST_AU:].to_numpy() != ""
    for row, column in np.argwhere(bad):
        return f"{path}, line {row + 2}, column {COLUMNS[column]}: {cells.iloc[row, column]!r} is not a number"
    return None


# Which estimator ---------------------------------------------------------------------------------------------------


def estimator_of(folder: Path, top: Path | None = None) -> dict[str, str]:
    """The estimator of the feature files or activation tables in a folder: ``estimator`` and ``estimator_version``.

    The ``settings.json`` of the folder says it, or else that of the next folder above, up to ``top`` (default: the
    folder itself). Two estimators are the same if both entries are. Files without settings are the published ones,
    and files of the AU model from before estimators had names have its checksum as their version.

    Raises
    ------
    FergiError
        If such a file is not JSON or not of settings.
    """
    again = "Make it again together with the files beside it."
    for each in (folder, *(folder.parents if top else ())):
        if (each / SETTINGS_FILE).is_file():
            there = read_json(each / SETTINGS_FILE, again)
            if not isinstance(there, dict):
                raise FergiError(f"{each / SETTINGS_FILE} does not map settings to their values. {again}")
            version = there.get("estimator_version", there.get("checkpoint_sha256"))
            if version is not None:
                return {"estimator": there.get("estimator", "fergi"), "estimator_version": str(version)}
        if each == top:
            break
    return PUBLISHED_ESTIMATOR


def require_known_estimator(home: Path, own: Iterable[Path] = ()) -> None:
    """Stop before settings are written into ``home`` that would count for files of another, unknown estimator.

    These are feature files below ``home``, other than ``own``, without settings above them.

    Raises
    ------
    FergiError
        If there are such files: how many, and the first one.
    """
    others = sorted(set(home.rglob("*_features.csv")) - set(own))
    unknown = [path for path in others if estimator_of(path.parent, home) == PUBLISHED_ESTIMATOR]
    if unknown:
        raise FergiError(
            f"{home} has {len(unknown)} feature files (first: {unknown[0]}) and no {SETTINGS_FILE} that says which "
            "estimator made them, as with the published ones. Choose another folder or move them away."
        )


def require_one_estimator(folders: Iterable[Path], top: Path | None = None) -> dict[str, str]:
    """The one estimator of everything in some folders, as ``estimator_of``; folders that do not exist do not count.

    Raises
    ------
    FergiError
        If there are several: how many, each with the first folder that has it.
    """
    first: dict[tuple[str, str], Path] = {}
    for folder in filter(Path.is_dir, folders):
        found = estimator_of(folder, top)
        first.setdefault((found["estimator"], found["estimator_version"]), folder)
    if len(first) > 1:
        named = ", ".join(f"{name} {version[:12]} in {where}" for (name, version), where in first.items())
        raise FergiError(
            f"The AU intensities come from {len(first)} estimators: {named}. Intensities of different estimators "
            "cannot stand in one table; make all of them with one, or keep them under different --root folders."
        )
    return dict(zip(PUBLISHED_ESTIMATOR, next(iter(first), PUBLISHED_ESTIMATOR.values()), strict=True))
