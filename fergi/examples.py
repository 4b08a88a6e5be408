"""Single reactions to look at, in the manner of Figures 5 and 6.

An example has the prompt, the face before the image, the image, the face where an AU is estimated highest, the AU's
course over the reaction clip, and what the person said. Figure 5 shows AU4 in reaction to an image that its
participant ranked last, Figure 6 AU12 in reaction to one ranked first; ``choose_examples`` follows that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from fergi.activation import clip_activation, window_lengths
from fergi.dataset import CLIP_KEY, EMOTIONS, ISSUES, VIDEO_ENDINGS, Folders, find_videos, may_share
from fergi.features import ACTION_UNITS, ClipFeatures, FrameLimits, read_clips, valid_frames
from fergi.files import FergiError, read_tables
from fergi.image_data import read_image_data
from fergi.pictures import open_picture


@dataclass(frozen=True)
class Example:
    """One reaction and all that is shown of it.

    Attributes
    ----------
    participant, session, image
        Which one.
    unit : int
        The AU.
    prompt : str
        What the image was made from.
    ratings : tuple of int
        Overall, alignment, fidelity: 1 to 7, or 0 where none was given.
    place, n_images : int
        Place in the ranking, from 1 for the best, of how many.
    issues : tuple of str, or None
        Those ticked, of ``ISSUES``; None where the answers are not reliable.
    emotions : tuple of str
        Those ticked, of ``EMOTIONS``.
    picture, before, at_peak : ndarray of uint8, shape (height, width, 3)
        RGB: the image; the last frame before it; the frame at ``peak``.
    times, intensities : ndarray of float, shape (n_frames,)
        The reaction clip's course: seconds, and the AU's estimate in intensity units.
    valid : ndarray of bool, shape (n_frames,)
        Which frames count (Section 5.1).
    first_window, highest_window : slice
        Frames of the first valid window and of the one with the highest mean (eq. 2).
    peak : int
        The valid frame with the highest estimate, from 0.
    activation : float
        The difference of the means of the two windows (eq. 2), in intensity units.
    """

    participant: str
    session: int
    image: int
    unit: int
    prompt: str
    ratings: tuple[int, ...]
    place: int
    n_images: int
    issues: tuple[str, ...] | None
    emotions: tuple[str, ...]
    picture: np.ndarray
    before: np.ndarray
    at_peak: np.ndarray
    times: np.ndarray
    intensities: np.ndarray
    valid: np.ndarray
    first_window: slice
    highest_window: slice
    peak: int
    activation: float


def lacking_material(folders: Folders) -> list[str]:
    """What there is none of below ``data/``, of the videos, prompts and images that examples need."""
    names = [path.name.lower() for path in folders.data.glob("*/session_*/*")]
    there = {
        "videos": any(name.startswith("reaction_clip_") and name.endswith(VIDEO_ENDINGS) for name in names),
        "prompts": "data.json" in names,
        "images": any(re.fullmatch(r"image\d+\.png", name) for name in names),
    }
    return [what for what, found in there.items() if not found]


def choose_examples(
    reactions: pd.DataFrame, images: Mapping[str, pd.DataFrame], unit: int, *, ranked: str, number: int = 3
) -> pd.DataFrame:
    """The strongest reactions of one AU to images that their participants ranked last or first in their sessions.

    At most one a participant, and none without activation; of equal ones the first by participant, session, image.

    Parameters
    ----------
    reactions : pandas.DataFrame
        One row an image with a valid reaction, of the participants who may be shown (``may_share``): ``participant``,
        ``session_index``, ``image_index``, ``rank_score`` and the activation columns.
    images : mapping
        Participant → table of all images but the black ones: ``session_index`` and ``rank_score``.
    unit : int
        The AU.
    ranked : {"last", "first"}
        Which image of a session.
    number : int
        At most so many.

    Returns
    -------
    pandas.DataFrame
        Strongest first: ``participant``, ``session_index``, ``image_index``, ``activation`` (intensity units).
    """
    all_images = pd.concat(images, names=["participant"]).reset_index("participant")
    session, columns = ["participant", "session_index"], ["participant", *CLIP_KEY]
    wanted = all_images.groupby(session)["rank_score"].agg({"last": "min", "first": "max"}[ranked]).rename("wanted")
    table = reactions.rename(columns={f"AU{unit}_activation_value": "activation"}).join(wanted, on=session)
    table = table[(table["activation"] > 0) & (table["rank_score"] == table["wanted"])]
    table = table.sort_values(["activation", *columns], ascending=[False, *[True] * len(columns)])
    return table.drop_duplicates("participant").head(number)[[*columns, "activation"]].reset_index(drop=True)


def read_examples(
    folders: Folders, chosen: pd.DataFrame, unit: int, *, limits: FrameLimits, window_seconds: float
) -> list[Example]:
    """Everything that is shown of the reactions chosen.

    "Before" is the last valid frame of the image's baseline clip (the last frame, if none is valid): that clip ends
    before the image comes, while on the reaction clip's first frame the image is already there.

    Parameters
    ----------
    folders : Folders
        Where features, videos, images, ``data.json`` and the image tables are.
    chosen : pandas.DataFrame
        From ``choose_examples``.
    unit : int
        The AU.
    limits, window_seconds
        Which frames are valid, and the length of the window of eq. 1.

    Raises
    ------
    FergiError
        If a file of a reaction is missing or unusable, or features and activation table do not belong together, or
        a participant does not share.
    """
    hidden = [name for name in dict.fromkeys(chosen["participant"]) if not may_share(folders, name)]
    if hidden:
        raise FergiError(f"Participant {hidden[0]} does not share, and no figure may show this face. Choose others.")
    videos = {features: video for video, features in find_videos(folders).items()}
    tables = read_tables(
        folders.image_tables,
        dict.fromkeys(chosen["participant"]),
        key=CLIP_KEY,
        kept=ISSUES,
        advice="Run preprocess_image_data.py again.",
    )
    unreliable = [name for name, table in tables.items() if table[list(ISSUES)].isna().all(axis=None)]
    return [
        _read_example(folders, videos, row, unit, limits, window_seconds, unreliable) for row in chosen.itertuples()
    ]


def _read_example(
    folders: Folders,
    videos: Mapping[Path, Path],
    row: tuple,
    unit: int,
    limits: FrameLimits,
    window_seconds: float,
    unreliable: list[str],
) -> Example:
    participant, session, number = row.participant, row.session_index, row.image_index
    images = read_image_data(folders, {participant: [session]}, unreliable_issues=unreliable)
    image = next((each for each in images if each.image == number), None)
    folder = folders.session(participant, session)
    if image is None:
        raise FergiError(f"{folder / f'image{number}.png'} does not exist. Put it there, as the image tables name it.")
    baseline, reaction = (folder / f"{kind}_clip_{number}_features.csv" for kind in ("baseline", "reaction"))
    at_rest, features = _read_clip(baseline), _read_clip(reaction)
    valid = valid_frames(features, limits)
    activation = clip_activation(features, valid, window_seconds).values[0, ACTION_UNITS.index(unit)]
    if not np.isclose(activation, row.activation, rtol=0, atol=1e-6):
        raise FergiError(
            f"{reaction} gives an AU{unit} activation of {activation:.3f}, the table of activation values "
            f"{row.activation:.3f}. Run preprocess_reaction_data.py again."
        )
    intensities = features.column(f"AU{unit}")
    length = int(window_lengths(features, window_seconds)[0])
    starts = np.flatnonzero(sliding_window_view(valid, length).all(axis=1))
    means = sliding_window_view(intensities, length).mean(axis=1)
    highest = starts[np.argmax(means[starts])]
    peak = int(np.argmax(np.where(valid, intensities, -np.inf)))
    last = max(np.flatnonzero(valid_frames(at_rest, limits)), default=len(at_rest.values) - 1)
    return Example(
        participant=participant,
        session=session,
        image=number,
        unit=unit,
        prompt=image.prompt,
        ratings=image.ratings,
        place=len(images) + 1 - image.rank_score,
        n_images=len(images),
        issues=None if image.issues is None else tuple(compress(ISSUES, image.issues)),
        emotions=tuple(compress(EMOTIONS, image.emotions)),
        picture=np.asarray(open_picture(image.path)),
        before=_frame(videos, baseline, last),
        at_peak=_frame(videos, reaction, peak),
        times=features.column("timestamp"),
        intensities=intensities,
        valid=valid,
        first_window=slice(int(starts[0]), int(starts[0]) + length),
        highest_window=slice(int(highest), int(highest) + length),
        peak=peak,
        activation=float(activation),
    )


def _read_clip(path: Path) -> ClipFeatures:
    features, problems = read_clips([path])
    if problems:
        raise FergiError(f"{problems[0]}. Make it again with clips_facial_process.py.")
    return features


def _frame(videos: Mapping[Path, Path], features: Path, number: int) -> np.ndarray:
    """One frame of a clip, from 0, as RGB."""
    # This needs OpenCV, which stages 6 to 10 do without where there is no video.
    from fergi.video import UnreadableVideo, read_frames

    if features not in videos:
        raise FergiError(f"There is no video for {features}. Put it beside that file.")
    video = videos[features]
    try:
        frame = next(islice(read_frames(video), number, None), None)
    except UnreadableVideo as error:
        raise FergiError(f"{error}. Put the whole video there.") from None
    if frame is None:
        raise FergiError(
            f"{video} has no frame {number + 1}, though {features.name} has. "
            "Put the video there that the features were made from, or make them again with clips_facial_process.py."
        )
    return frame[1]
