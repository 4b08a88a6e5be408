"""DISFA and DISFA+ on disk: which frames there are, and how their AUs are labelled (Appendix B.1).

DISFA    Images_{Left,Right}Camera/<SN###>/<frame>.<ending>  or  Videos_LeftCamera/LeftVideo<SN###>_comp.avi (and Right)
         ActionUnit_Labels/<SN###>/<SN###>_au<n>.txt          lines "frame,intensity"
DISFA+   Images/<SN###>/<trial>/<frame>.<ending>
         Labels/<SN###>/<trial>/AU<n>.txt                     two header lines, then "<frame file>     <intensity>"

Intensities are 0–5. A label that is missing or is none of these counts as −1, "not labelled", as in the release.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fergi.features import ACTION_UNITS
from fergi.files import FergiError, summarise

CAMERAS = ("Left", "Right")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NOT_LABELLED = -1


@dataclass(frozen=True)
class LabelledFrames:
    """The frames of one person in one camera or trial.

    Attributes
    ----------
    subject : str
        SN001 and so on.
    part : str
        LeftCamera or RightCamera; the trial's name.
    pictures : tuple of Path
        One file a frame, in order; empty if ``video`` is there.
    video : Path or None
        One file for all frames, which are numbered from 1.
    names : tuple of str
        The frames' names in the labels: numbers, or names of files. A video has one for each label.
    labels : ndarray of int8, shape (n_frames, 12)
        Intensities; −1 where there is none.
    n_missing, n_out_of_range : int
        How many labels are missing, and how many are not 0–5.
    """

    subject: str
    part: str
    pictures: tuple[Path, ...]
    video: Path | None
    names: tuple[str, ...]
    labels: np.ndarray
    n_missing: int
    n_out_of_range: int


def read_disfa(root: Path, cameras: Sequence[str] = CAMERAS) -> list[LabelledFrames]:
    """All frames of DISFA, by subject and camera; extracted frames where there are any, else the videos.

    Raises
    ------
    FergiError
        If the data set, a camera's frames of a subject or a label file is missing, a frame is there twice, or a label
        file is unreadable.
    """
    label_root = _folder(root / "ActionUnit_Labels")
    subjects = set(_subfolders(label_root))
    for camera in cameras:
        subjects |= set(_subfolders(root / f"Images_{camera}Camera"))
        videos = (root / f"Videos_{camera}Camera").glob(f"{camera}Video*_comp.avi")
        subjects |= {video.name.removeprefix(f"{camera}Video").removesuffix("_comp.avi") for video in videos}
    if not subjects:
        raise FergiError(f"{label_root} has no subjects (SN001 and so on). Name DISFA's folder with --disfa DIR.")
    problems: list[str] = []
    found = []
    for subject in sorted(subjects):
        files = {unit: label_root / subject / f"{subject}_au{unit}.txt" for unit in ACTION_UNITS}
        labels = _read_labels(files, problems, separator=",", header_lines=0)
        for camera in cameras:
            folder = root / f"Images_{camera}Camera" / subject
            video = root / f"Videos_{camera}Camera" / f"{camera}Video{subject}_comp.avi"
            pictures = _pictures(folder, _frame_number, problems)
            if pictures:
                names = [str(_frame_number(path)) for path in pictures]
                found.append(_labelled(subject, f"{camera}Camera", pictures, names, labels))
            elif video.is_file():
                names = sorted({name for unit in labels.values() for name in unit}, key=int)
                found.append(_labelled(subject, f"{camera}Camera", [], names, labels, video))
            else:
                problems.append(f"{folder} has no frames, and {video} does not exist")
    return _complete(found, problems, "DISFA")


def read_disfa_plus(root: Path) -> list[LabelledFrames]:
    """All frames of DISFA+, by subject and trial.

    Raises
    ------
    FergiError
        If the data set, a trial's labels or frames are missing, a frame is there twice, or a label file is unreadable.
    """
    image_root, label_root = _folder(root / "Images"), root / "Labels"
    subjects = sorted({*_subfolders(image_root), *_subfolders(label_root)})
    if not any(_subfolders(image_root / subject) for subject in subjects):
        raise FergiError(f"{image_root} has no subjects (SN001 and so on). Name DISFA+'s folder with --disfa-plus DIR.")
    problems: list[str] = []
    found = []
    for subject in subjects:
        trials = sorted({*_subfolders(image_root / subject), *_subfolders(label_root / subject)})
        if not trials:
            problems.append(f"{image_root / subject} has no trials")
        for trial in trials:
            folder = image_root / subject / trial
            files = {unit: label_root / subject / trial / f"AU{unit}.txt" for unit in ACTION_UNITS}
            labels = _read_labels(files, problems, separator=None, header_lines=2)
            pictures = _pictures(folder, lambda path: path.stem, problems)
            if pictures:
                found.append(_labelled(subject, trial, pictures, [path.name for path in pictures], labels))
            else:
                problems.append(f"{folder} has no frames")
    return _complete(found, problems, "DISFA+")


def _subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder; none if it does not exist."""
    return sorted(path.name for path in folder.glob("*/"))


def _folder(path: Path) -> Path:
    """A folder that must exist."""
    if not path.is_dir():
        raise FergiError(
            f"{path} does not exist. Request the data set from its authors and unpack it there, or name its folder "
            "(see --help)."
        )
    return path


def _pictures(folder: Path, name: Callable[[Path], int | str], problems: list[str]) -> list[Path]:
    """The pictures in a folder, ordered by what ``name`` makes of them; two of one name are a problem."""
    pictures = [path for path in folder.glob("*") if path.suffix.lower() in PICTURE_ENDINGS]
    pictures.sort(key=lambda path: (name(path), path.name))
    for one, other in itertools.pairwise(pictures):
        if name(one) == name(other):
            problems.append(f"{one} and {other.name} are the same frame")
            break
    return pictures


def _frame_number(path: Path) -> int:
    """The number at the end of a frame's name."""
    number = re.search(r"(\d+)$", path.stem)
    if number is None:
        raise FergiError(f"{path} has no frame number at the end of its name. Name frames by their number.")
    return int(number[1])


def _read_labels(
    files: dict[int, Path], problems: list[str], *, separator: str | None, header_lines: int
) -> dict[int, dict[str, int]]:
    """AU → frame → intensity, as the files have them; what is wrong is added to ``problems``."""
    labels: dict[int, dict[str, int]] = {}
    for unit, file in files.items():
        labels[unit] = {}
        if not file.is_file():
            problems.append(f"{file} does not exist")
            continue
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines[header_lines:], header_lines + 1):
            if not line.strip():
                continue
            try:
                frame, intensity = line.split(separator)
                frame = frame if separator is None else str(int(frame))
                value = int(intensity)
            except ValueError:
                problems.append(f"{file}, line {number}: {line.strip()!r} is not a frame and an intensity")
                break
            if frame in labels[unit]:
                problems.append(f"{file}, line {number}: frame {frame} appears twice")
                break
            labels[unit][frame] = value
    return labels


def _labelled(
    subject: str,
    part: str,
    pictures: Sequence[Path],
    names: Sequence[str],
    labels: dict[int, dict[str, int]],
    video: Path | None = None,
) -> LabelledFrames:
    """Frames with the labels that belong to them."""
    table = np.array([[labels[unit].get(name, np.nan) for unit in ACTION_UNITS] for name in names])
    table = table.reshape(len(names), len(ACTION_UNITS))
    is_missing, is_intensity = np.isnan(table), np.isin(table, range(6))
    known = np.where(is_intensity, table, NOT_LABELLED).astype(np.int8)
    counts = int(is_missing.sum()), int((~is_intensity & ~is_missing).sum())
    return LabelledFrames(subject, part, tuple(pictures), video, tuple(names), known, *counts)


def _complete(found: list[LabelledFrames], problems: list[str], dataset: str) -> list[LabelledFrames]:
    """What was found, if nothing is wrong."""
    if problems:
        raise summarise(problems, len(problems) + len(found), f"parts of {dataset}", "Complete the data set.")
    return found
