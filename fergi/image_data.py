"""Prompts, surveys and rankings of the generated images (Sections 3.2.3 and 3.3), checked before any computing.

Every session has a folder with ``data.json`` (prompt, ranking, one survey an image) and ``image<i>.png``.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fergi.dataset import CLIP_KEY, EMOTIONS, ISSUES, RATINGS, Folders, read_black_images, read_session_data
from fergi.files import FergiError, summarise
from fergi.pictures import is_black, open_picture


@dataclass(frozen=True)
class RatedImage:
    """One generated image and what its participant said about it."""

    participant: str
    session: int
    image: int  # from 1
    path: Path
    prompt: str
    ratings: tuple[int, ...]  # overall, alignment, fidelity: 1 to 7, or 0 for none
    issues: tuple[bool, ...] | None  # in the order of ``ISSUES``; None if the answers are not reliable
    emotions: tuple[bool, ...]  # in the order of ``EMOTIONS``
    rank_score: int  # number of the session's images less the place in the ranking, from 0: the best has that number
    black: bool
    fingerprint: str  # SHA-256 of prompt and picture, by which a finished score is known to be of both

    @property
    def key(self) -> tuple[str, int, int]:
        """Participant, session, image."""
        return self.participant, self.session, self.image


def read_image_data(
    folders: Folders, sessions: Mapping[str, Sequence[int]], *, unreliable_issues: Iterable[str] = ()
) -> list[RatedImage]:
    """All images of the sessions, the black ones too, by participant, session and image; every picture is decoded.

    Parameters
    ----------
    folders : Folders
        Where the sessions are.
    sessions : mapping
        Participant → session numbers (``read_valid_sessions``).
    unreliable_issues : iterable of str
        Participants whose answers on issues are left empty, whatever they are.

    Raises
    ------
    FergiError
        Counting the sessions that cannot be used, and naming what is wrong with the first.
    """
    unreliable = set(unreliable_issues)
    wanted = [(participant, number) for participant, numbers in sessions.items() for number in numbers]

    def read(session: tuple[str, int]) -> list[RatedImage] | str:
        try:
            return _read_session(folders, *session, reliable=session[0] not in unreliable)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(read, wanted))
    problems = [each for each in found if isinstance(each, str)]
    if problems:
        advice = (
            "Put data.json and the images there, which FERGI's authors give on request, "
            "or take the session out of that file."
        )
        raise summarise(problems, len(wanted), f"sessions named in {folders.valid_sessions.name}", advice)
    return [image for each in found for image in each]


def _read_session(folders: Folders, participant: str, number: int, *, reliable: bool) -> list[RatedImage]:
    """The images of one session; ValueError with what is wrong."""
    folder = folders.session(participant, number)
    path = folder / "data.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    names = sorted(each.name for each in folder.iterdir() if re.fullmatch(r"image\d+\.png", each.name))
    if misnumbered := [name for name in names if name.startswith("image0")]:
        raise ValueError(f"{folder / misnumbered[0]} is not numbered like image1.png, image2.png and so on")
    if not names:
        raise ValueError(f"{folder} has no images (image1.png and so on)")
    pictures = [folder / f"image{number}.png" for number in range(1, 1 + len(names))]
    for picture in pictures:
        if picture.name not in names:
            raise ValueError(f"{picture} does not exist")
    data = read_session_data(path, len(pictures), reliable_issues=reliable)
    images = []
    for place, (picture, survey) in enumerate(zip(pictures, data.surveys, strict=True)):
        black, rank = is_black(open_picture(picture)), len(pictures) - data.ranking.index(place)
        fingerprint = hashlib.sha256(data.prompt.encode() + b"\0" + picture.read_bytes()).hexdigest()
        said = survey.ratings, survey.issues, survey.emotions
        images.append(RatedImage(participant, number, place + 1, picture, data.prompt, *said, rank, black, fingerprint))
    return images


def compare_black_images(folders: Folders, sessions: Mapping[str, Sequence[int]], images: Sequence[RatedImage]) -> None:
    """Stop if the images that are black are not those that ``invalid_images.json`` names; it may also be missing.

    Raises
    ------
    FergiError
        Counting the images on which they disagree, and naming the first.
    """
    if not folders.black_images.is_file():
        return
    listed = read_black_images(folders, sessions)
    named = {(who, *key) for who, keys in listed.items() for key in keys if key[0] in sessions[who]}
    found = {image.key for image in images if image.black}
    problems = [
        f"participant {key[0]}, session {key[1]}, image {key[2]} is {'' if key in found else 'not '}black"
        for key in sorted(named ^ found)
    ]
    if problems:
        verb = "is" if len(problems) == 1 else "are"
        raise FergiError(
            f"{len(problems)} of {len(images)} images {verb} not what {folders.black_images} says "
            f"(first: {problems[0]}). Correct that file, or remove it to have it written from the images."
        )


def black_image_list(
    sessions: Mapping[str, Sequence[int]], images: Sequence[RatedImage]
) -> dict[str, dict[str, list[int]]]:
    """Participant → session → numbers of its black images, every session listed: ``invalid_images.json``."""
    black = [image.key for image in images if image.black]
    return {
        who: {str(number): [image for *of, image in black if of == [who, number]] for number in numbers}
        for who, numbers in sessions.items()
    }


def image_tables(
    images: Sequence[RatedImage], scores: Mapping[str, Mapping[tuple[str, int, int], float]]
) -> dict[str, pd.DataFrame]:
    """The tables of all participants, in the columns and order of the published ones, without black images.

    Parameters
    ----------
    images : sequence of RatedImage
        By participant, session and image.
    scores : mapping
        Column → (participant, session, image) → score, in the order of the columns.
    """
    rows = [
        (
            *image.key,
            *image.ratings,
            *(image.issues or [None] * len(ISSUES)),
            *image.emotions,
            image.rank_score,
            *(scores[column][image.key] for column in scores),
        )
        for image in images
        if not image.black
    ]
    columns = ["participant", *CLIP_KEY, *RATINGS, *ISSUES, *EMOTIONS, "rank_score", *scores]
    table = pd.DataFrame(rows, columns=columns).set_index("participant")
    return {who: table[table.index == who] for who in dict.fromkeys(image.participant for image in images)}
