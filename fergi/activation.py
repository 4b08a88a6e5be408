"""AU activation values of clips (Section 5.2, eqs. 1–2)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.indexers import BaseIndexer
from tqdm import tqdm

from fergi.dataset import CLIP_KEY, Clip, Folders, find_clips, unlisted_sessions
from fergi.features import ACTION_UNITS, ClipFeatures, FrameLimits, read_clips, valid_frames
from fergi.files import FergiError, check_writable, summarise, write_tables

ACTIVATION_COLUMNS = tuple(f"AU{unit}_activation_value" for unit in ACTION_UNITS)


@dataclass(frozen=True)
class Activation:
    """Activation values of clips.

    Attributes
    ----------
    values : ndarray of float, shape (n_clips, 12)
        α of eq. 2 in intensity units; NaN for a clip without a complete window.
    valid_share : ndarray of float, shape (n_clips,)
        Share of each clip's frames that are valid.
    first_window : ndarray of int, shape (n_clips,)
        Frame, from 0, at which the clip's first complete window begins: 0 where eq. 2 holds as printed,
        −1 for a clip without a complete window.
    """

    values: np.ndarray
    valid_share: np.ndarray
    first_window: np.ndarray


def window_lengths(features: ClipFeatures, window_seconds: float) -> np.ndarray:
    """Frames of the moving window (eq. 1: 0.1 s, 3 frames at 30 FPS) in each clip, shape (n_clips,).

    The frame rate of a clip is measured from its timestamps and rounded to whole frames per second, since
    timestamps are rounded to milliseconds. A window has at least one frame.
    """
    time = features.column("timestamp")
    first, last = features.starts[:-1], features.starts[1:] - 1
    duration = np.where(last > first, time[last] - time[first], 1.0)
    frames_per_second = np.rint((last - first) / duration)
    return np.maximum(1, np.rint(frames_per_second * window_seconds)).astype(int)


class _WindowsWithinClips(BaseIndexer):
    """Windows that end at each frame and begin ``length`` frames earlier, but never before their clip."""

    def get_window_bounds(self, num_values=0, min_periods=None, center=None, closed=None, step=None):
        """Begin and end of each frame's window."""
        end = np.arange(1, num_values + 1, dtype=np.int64)
        return np.maximum(end - self.length_of_frame, self.start_of_frame), end


def clip_activation(features: ClipFeatures, valid: np.ndarray, window_seconds: float) -> Activation:
    r"""Activation values of clips (eqs. 1–2).

    .. math::
        \bar y_i^{(k)} = \frac{1}{3} \sum_{k'=k}^{k+2} \hat y_i^{(k')}, \qquad
        \alpha_i = \max_k \bar y_i^{(k)} - \bar y_i^{(1)}

    over the windows whose frames are all valid. Where the first frames of a clip are not valid, the first
    such window takes the place of window 1; the paper does not say what then holds, the release does this.

    Parameters
    ----------
    features : ClipFeatures
        The frames of ``n_clips`` clips.
    valid : ndarray of bool, shape (n_frames,)
        Which frames may be used.
    window_seconds : float
        Length of the moving window.
    """
    first, lengths = features.starts[:-1], features.lengths
    window = window_lengths(features, window_seconds)
    start_of_frame, length_of_frame = np.repeat(first, lengths), np.repeat(window, lengths)
    # pandas' moving mean, window by window from the clip's own start, gives the released values to the last bit.
    indexer = _WindowsWithinClips(start_of_frame=start_of_frame, length_of_frame=length_of_frame)
    means = pd.DataFrame(features.intensities).rolling(indexer, min_periods=1).mean().to_numpy()

    end = np.arange(1, len(valid) + 1)
    begin = np.maximum(end - length_of_frame, start_of_frame)
    valid_before = np.concatenate([[0], np.cumsum(valid)])
    complete = valid_before[end] - valid_before[begin] == length_of_frame

    highest = np.maximum.reduceat(np.where(complete[:, None], means, -np.inf), first)
    ends_of_windows = np.flatnonzero(complete)
    position = np.searchsorted(ends_of_windows, first)
    has_window = np.add.reduceat(complete.astype(int), first) > 0
    earliest = np.zeros(len(first), int)
    earliest[has_window] = ends_of_windows[position[has_window]]
    return Activation(
        values=np.where(has_window[:, None], highest - means[earliest], np.nan),
        valid_share=np.add.reduceat(valid.astype(int), first) / lengths,
        first_window=np.where(has_window, earliest + 1 - window - first, -1),
    )


@dataclass(frozen=True)
class ActivationTables:
    """The activation values of all participants, and what was counted on the way.

    Attributes
    ----------
    kind : str
        "baseline" or "reaction".
    tables : dict
        Participant → table of ``CLIP_KEY`` and ``ACTIVATION_COLUMNS``, valid clips only.
    n_clips, n_frames, n_valid_clips : int
        How many there are; valid as in Section 5.1, black images included.
    n_black : int
        Valid clips that are not in the tables because their image is black.
    n_later_start, latest_start : int
        Clips in the tables whose first complete window begins after the first frame, and the latest such frame.
    unlisted : list of Path
        Session folders that ``valid_sessions.json`` does not name.
    """

    kind: str
    tables: dict[str, pd.DataFrame]
    n_clips: int
    n_frames: int
    n_valid_clips: int
    n_black: int
    n_later_start: int
    latest_start: int
    unlisted: list[Path]

    def report(self) -> str:
        """What was found, for the terminal."""
        n_values = sum(len(table) for table in self.tables.values())
        lines = [
            f"{self.n_clips} {self.kind} clips of {len(self.tables)} participants, {self.n_frames} frames.",
            f"{self.n_valid_clips} clips are valid"
            + (f", {self.n_black} of them reactions to black images, which are left out." if self.n_black else "."),
            f"{n_values} clips x {len(ACTION_UNITS)} AUs = {n_values * len(ACTION_UNITS)} activation values.",
        ]
        if self.n_later_start:
            lines.append(
                f"In {self.n_later_start} clips the first valid window starts after the first frame "
                f"(at most {self.latest_start} frames later)."
            )
        if self.unlisted:
            lines.append(
                f"{len(self.unlisted)} session folders are not in valid_sessions.json and were not used "
                f"(first: {self.unlisted[0]})."
            )
        return "\n".join(lines)


def activation_tables(
    folders: Folders,
    kind: str,
    sessions: dict[str, list[int]],
    *,
    limits: FrameLimits,
    minimum_valid_share: float,
    window_seconds: float,
    left_out: dict[str, set[tuple[int, int]]] | None = None,
) -> ActivationTables:
    """Activation values of every participant's valid clips of one kind (Sections 5.1–5.2).

    Parameters
    ----------
    folders : Folders
        Where the feature files are.
    kind : {"baseline", "reaction"}
        Which clips.
    sessions : dict
        Participant → session numbers.
    limits : FrameLimits
        Which frames are valid.
    minimum_valid_share : float
        A clip is valid if at least this share of its frames is.
    window_seconds : float
        Length of the moving window of eq. 1.
    left_out : dict, optional
        Participant → (session, image) pairs that are not wanted in the tables (black images).

    Raises
    ------
    FergiError
        If a clip's feature file is missing or unusable or is that of another clip once more, or a participant has
        no valid clip. Every file is looked at first, so the sentence says how many there are.
    """
    clips = find_clips(folders, kind, sessions)
    n_clips = sum(len(each) for each in clips.values())
    tables: dict[str, pd.DataFrame] = {}
    problems: list[str] = []
    without_clips: list[str] = []
    seen: dict[bytes, Path] = {}
    n_frames = n_valid_clips = n_black = n_later_start = latest_start = 0
    with tqdm(total=n_clips, desc=f"{kind} clips", unit="clip", disable=None, leave=False) as bar:
        for participant, own_clips in clips.items():
            features, unusable = read_clips([clip.path for clip in own_clips])
            bar.update(len(own_clips))
            problems += unusable
            if unusable:
                continue
            activation = clip_activation(features, valid_frames(features, limits), window_seconds)
            valid = activation.valid_share >= minimum_valid_share
            problems += [
                f"{clip.path}: enough valid frames but never as many in a row as a window has"
                for clip in _select(own_clips, valid & (activation.first_window < 0))
            ]
            problems += _seen_before(_select(own_clips, valid), features.select(valid), seen)
            unwanted = left_out[participant] if left_out else set()
            black = np.array([(clip.session, clip.image) in unwanted for clip in own_clips])
            kept = valid & ~black
            if not kept.any():
                without_clips.append(f"{participant}, with {len(own_clips)} clips")
            table = pd.DataFrame([(clip.session, clip.image) for clip in own_clips], columns=list(CLIP_KEY))
            table[list(ACTIVATION_COLUMNS)] = activation.values
            tables[participant] = table[kept]
            n_frames += len(features.values)
            n_valid_clips += int(valid.sum())
            n_black += int((valid & black).sum())
            n_later_start += int((activation.first_window[kept] > 0).sum())
            latest_start = max(latest_start, int(activation.first_window[kept].max(initial=0)))

    if problems:
        raise summarise(
            problems,
            n_clips,
            f"{kind} feature files",
            "Make them again with clips_facial_process.py, or: python -m fergi.published --replace",
        )
    if without_clips:
        verb = "has" if len(without_clips) == 1 else "have"
        raise FergiError(
            f"{len(without_clips)} of {len(clips)} participants {verb} no valid {kind} clip "
            f"(first: {without_clips[0]} in {folders.data}). "
            f"Record them again or take them out of {folders.valid_sessions}."
        )
    return ActivationTables(
        kind,
        tables,
        n_clips,
        n_frames,
        n_valid_clips,
        n_black,
        n_later_start,
        latest_start,
        unlisted_sessions(folders, sessions),
    )


def write_activation_tables(folders: Folders, kind: str, sessions: dict[str, list[int]], **settings) -> None:
    """Stages 6 and 7: compute the tables of ``activation_tables``, write them, and say what was found.

    Nothing is written unless every clip could be used.
    """
    output = folders.activation_tables(kind)
    check_writable(output)
    computed = activation_tables(folders, kind, sessions, **settings)
    write_tables({output / f"{participant}.csv": table for participant, table in computed.tables.items()})
    print(computed.report())
    print(f"Wrote {len(computed.tables)} tables to {output}.")


def _seen_before(clips: Sequence[Clip], frames: Sequence[np.ndarray], seen: dict[bytes, Path]) -> list[str]:
    """Clips whose frames are, to the last digit, those of a clip in ``seen``, which grows.

    No two recordings agree like that: one file was copied into the place of the other.
    """
    problems = []
    for clip, values in zip(clips, frames, strict=True):
        first = seen.setdefault(hashlib.sha256(values.tobytes()).digest(), clip.path)
        if first != clip.path:
            problems.append(f"{clip.path} has the frames of {first}, another clip")
    return problems


def _select(clips: Sequence[Clip], wanted: np.ndarray) -> list[Clip]:
    """The clips at the positions where ``wanted`` holds."""
    return [clip for clip, keep in zip(clips, wanted, strict=True) if keep]


def resting_activation(baseline: dict[str, pd.DataFrame], unit: int, percentile: float) -> dict[str, float]:
    """A percentile (linear between values) of one AU's activation over each participant's baseline clips."""
    return {
        participant: float(np.percentile(table[f"AU{unit}_activation_value"], percentile))
        for participant, table in baseline.items()
    }
