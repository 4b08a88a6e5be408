"""One picture a video: what was found in it, to judge by eye before anything is computed from its features.

Six frames with landmarks, the aligned faces, and below them the course of every AU from the feature file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from fergi.faces.pipeline import AlignedFace, FaceAligner
from fergi.features import ACTION_UNITS, ClipFeatures, FrameLimits, read_clips, valid_frames
from fergi.files import FergiError, replacing
from fergi.video import UnreadableVideo, read_frames

NAMES: Mapping[int, str] = {  # of the Facial Action Coding System
    1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser", 6: "cheek raiser",
    9: "nose wrinkler", 12: "lip corner puller", 15: "lip corner depressor", 17: "chin raiser", 20: "lip stretcher",
    25: "lips part", 26: "jaw drop",
}  # fmt: skip
N_FRAMES = 6

_SIDE = 300  # pixels of the pictures of frames
_AROUND = 1.6  # side of the part of a frame that is shown, in sides of the detection
_DOTS = 150  # per inch
_INK, _GREY, _SHADE, _BLUE, _YELLOW = "#222222", "#767676", "#e4e4e4", "#0072b2", "#f0e442"
_BEYOND = (236, 236, 236)  # a picture's edge, RGB
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": _GREY,
}


@dataclass(frozen=True)
class ShownFrame:
    """A frame of a video: its number from 0, the part that is shown (side, side, 3), and what was found there.

    ``landmarks`` are in pixels of that part, shape (68, 2).
    """

    number: int
    picture: np.ndarray
    landmarks: np.ndarray | None
    face: AlignedFace | None


def write_preview(
    path: Path, video: Path, features: Path, aligner: FaceAligner, *, limits: FrameLimits, note: str = ""
) -> None:
    """Draw the picture of one video as PNG.

    Parameters
    ----------
    path : Path
        The picture, written whole or not at all.
    video, features : Path
        The video and its feature file.
    aligner : FaceAligner
        Finds the faces of the six frames again.
    limits : FrameLimits
        Which frames are valid.
    note : str
        Stands in the heading.

    Raises
    ------
    FergiError
        If a file is unusable, or the features have more frames than the video.
    """
    clip, problems = read_clips([features])
    if problems:
        raise FergiError(f"{problems[0]}. Make it again with clips_facial_process.py.")
    n_frames = len(clip.values)
    numbers = sorted({int((place + 0.5) * n_frames / N_FRAMES) for place in range(N_FRAMES)})
    frames = _shown_frames(video, numbers, aligner)
    if len(frames) < len(numbers):
        raise FergiError(
            f"{video} has no frame {numbers[len(frames)] + 1}, though {features.name} has. "
            "Put the video there that the features were made from, or make them again with clips_facial_process.py."
        )
    figure = preview_figure(video.name, frames, clip, valid_frames(clip, limits), note)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=_DOTS)


def _shown_frames(video: Path, numbers: Sequence[int], aligner: FaceAligner) -> list[ShownFrame]:
    """The frames of those ascending numbers, as far as the video has them; one whole frame in memory at a time."""
    shown = []
    try:
        for number, (_, picture) in enumerate(islice(read_frames(video), numbers[-1] + 1)):
            if number in numbers:
                (face,) = aligner.align([picture])
                shown.append(_shown(number, picture, face))
    except UnreadableVideo as error:
        raise FergiError(f"{error}. Put the whole video there.") from None
    return shown


def _shown(number: int, picture: np.ndarray, face: AlignedFace | None) -> ShownFrame:
    """The surroundings of the face as a square; the whole frame if there is no face."""
    height, width = picture.shape[:2]
    if face is None:
        side, middle = max(height, width), np.array([width, height]) / 2
    else:
        side = round(_AROUND * max(face.box[2:]))
        middle = np.array(face.box[:2]) + np.array(face.box[2:]) / 2
    scale, corner = _SIDE / side, middle - side / 2
    matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    reduced = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale) if scale < 0.5 else picture
    part = cv2.warpAffine(reduced, matrix, (_SIDE, _SIDE), borderValue=_BEYOND)
    return ShownFrame(number, part, None if face is None else (face.landmarks - corner) * scale, face)


@mpl.rc_context(_STYLE)
def preview_figure(
    name: str, frames: Sequence[ShownFrame], clip: ClipFeatures, valid: np.ndarray, note: str = ""
) -> Figure:
    """The picture: a column a frame, below it a panel an AU.

    ``name`` is the video's; ``clip`` its features; ``valid`` says which of its frames count, bool, shape (n_frames,).
    """
    times = clip.column("timestamp")
    figure = Figure(figsize=(12, 9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    n_faces = np.count_nonzero(clip.column("face_detection_confidence_score") > 0)
    given = [unit for unit in ACTION_UNITS if n_faces and not np.isnan(clip.column(f"AU{unit}")).any()]
    heading = f"{name}: {len(valid)} frames, {n_faces} with a face, {valid.sum()} valid"
    missing = [f"AU{unit}" for unit in ACTION_UNITS if unit not in given]
    heading += f"; not estimated: {', '.join(missing)}" if missing and n_faces else ""
    figure.suptitle(f"{heading}\n{note}" if note else heading, x=0.01, ha="left", fontsize=10, parse_math=False)
    _draw_frames(above, frames, times, valid)
    if n_faces:
        _draw_courses(below, given, clip, valid, times[[frame.number for frame in frames]])
    else:
        below.text(0.5, 0.9, "No frame has a face, so there are no AUs.", ha="center", fontsize=10)
    return figure


def _draw_frames(figure, frames: Sequence[ShownFrame], times: np.ndarray, valid: np.ndarray) -> None:
    """Frames above, aligned faces below."""
    axes = figure.subplots(2, N_FRAMES, height_ratios=(1, 0.7), squeeze=False)
    for each in axes.flat:
        each.set_axis_off()
    for place, (frame, (upper, lower)) in enumerate(zip(frames, axes.T, strict=False), 1):
        upper.imshow(frame.picture)
        state = "valid" if valid[frame.number] else "not valid"
        title = f"{place}: frame {frame.number + 1}, {times[frame.number]:.2f} s, {state}\n"
        if (face := frame.face) is None:
            upper.set_title(title + "no face")
            continue
        upper.set_title(f"{title}score {face.score:.2f}, pitch {face.pitch_ratio:.2f}, yaw {face.yaw_ratio:.2f}")
        upper.scatter(*frame.landmarks.T, s=5, color=_YELLOW, edgecolors=_INK, linewidths=0.3)
        lower.imshow(face.picture)


def _draw_courses(figure, given: Sequence[int], clip: ClipFeatures, valid: np.ndarray, marks: np.ndarray) -> None:
    """A panel for each AU that was estimated; numbered lines stand where the frames above are."""
    times, with_face = clip.column("timestamp"), clip.column("face_detection_confidence_score") > 0
    courses = {unit: np.where(with_face, clip.column(f"AU{unit}"), np.nan) for unit in given}
    known = np.concatenate([[0.0, 5.0], *(course[with_face] for course in courses.values())])
    margin = 0.05 * np.ptp(known)
    axes = figure.subplots(max(1, -(-len(given) // 3)), 3, sharex=True, sharey=True, squeeze=False)
    for unit, panel in zip(given, axes.flat, strict=False):
        _shade(panel, times, ~valid)
        panel.vlines(marks, known.min() - margin, known.max() + margin, color=_GREY, linewidth=0.6, linestyle=":")
        panel.plot(times, courses[unit], color=_BLUE, linewidth=1.2)
        panel.set_title(f"AU{unit}, {NAMES[unit]}", loc="left", pad=2)
        panel.yaxis.set_major_locator(MultipleLocator(5 if np.ptp(known) > 12 else 2))
        panel.grid(axis="y", color=_SHADE, linewidth=0.6)
        panel.tick_params(length=2, labelbottom=unit in given[-3:])
    for panel in axes.flat[len(given) :]:
        panel.set_axis_off()
    axes[0, 0].set_ylim(known.min() - margin, known.max() + margin)
    axes[0, 0].set_xlim(times[0], max(times[-1], times[0] + 0.001))
    for number, time in enumerate(marks, 1):
        for panel in axes[0]:
            panel.annotate(
                str(number), (time, 1), xycoords=("data", "axes fraction"), ha="left", va="top", color=_GREY, fontsize=7
            )
    figure.supylabel("intensity (about 0–5)", fontsize=8)
    figure.supxlabel("time (s); shaded: frames that are not valid", fontsize=8)


def _shade(panel: Axes, times: np.ndarray, shaded: np.ndarray) -> None:
    """Grey behind runs of frames, from half a frame before to half a frame behind."""
    edges = np.concatenate([times[:1], (times[1:] + times[:-1]) / 2, times[-1:]])
    changes = np.flatnonzero(np.diff(np.concatenate([[False], shaded, [False]]).astype(int)))
    for first, end in changes.reshape(-1, 2):
        panel.axvspan(edges[first], edges[end], color=_SHADE, linewidth=0, zorder=0)
