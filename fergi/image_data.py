"""Prompts, surveys and rankings of the generated images (Sections 3.2.3 and 3.3), checked before any computing.

Every session has a folder with ``data.json`` (prompt, ranking, one survey an image) and ``image<i>.png``.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fergi.dataset import CLIP_KEY, EMOTIONS, ISSUES, Folders, read_black_images
from fergi.files import FergiError, summarise
from fergi.pictures import is_black, open_picture

# Column → entry of the survey.
RATINGS = {
    "overall_rating": "overallRating",
    "alignment_rating": "alignmentRating",
    "fidelity_rating": "fidelityRating",
}
HIGHEST_RATING = 7


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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    names = sorted(each.name for each in folder.iterdir() if re.fullmatch(r"image\d+\.png", each.name))
    if misnumbered := [name for name in names if name.startswith("image0")]:
        raise ValueError(f"{folder / misnumbered[0]} is not numbered like image1.png, image2.png and so on")
    if not names:
        raise ValueError(f"{folder} has no images (image1.png and so on)")
    pictures = [folder / f"image{number}.png" for number in range(1, 1 + len(names))]
    for picture in pictures:
        if picture.name not in names:
            raise ValueError(f"{picture} does not exist")
    try:
        prompt, ranks, surveys = _answers(content, len(pictures))
        answers = [_survey(survey, place, reliable=reliable) for place, survey in enumerate(surveys, start=1)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    images = []
    for image, (picture, rank, said) in enumerate(zip(pictures, ranks, answers, strict=True), start=1):
        black = is_black(open_picture(picture))
        fingerprint = hashlib.sha256(prompt.encode() + b"\0" + picture.read_bytes()).hexdigest()
        images.append(RatedImage(participant, number, image, picture, prompt, *said, rank, black, fingerprint))
    return images


def _answers(content: Any, n_images: int) -> tuple[str, list[int], list[Any]]:
    """Prompt, rank score of each image, survey of each image."""
    if not isinstance(content, dict):
        raise ValueError("must be an object with prompt, ranking and survey")
    for name, kind in (("prompt", str), ("ranking", list), ("survey", list)):
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{name} must be a {'text' if kind is str else 'list'}, not {_shown(content.get(name))}")
    prompt, ranking, surveys = (content[name] for name in ("prompt", "ranking", "survey"))
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise ValueError("the prompt has half a character in it (a lone surrogate)") from None
    ids = [entry.get("id") if isinstance(entry, dict) else None for entry in ranking]
    if any(type(each) is not int for each in ids) or sorted(ids) != list(range(n_images)):
        raise ValueError(f"the ranking must have the ids 0 to {n_images - 1} once each, not {_shown(ids)}")
    if len(surveys) != n_images:
        raise ValueError(f"there are {len(surveys)} surveys for {n_images} images")
    return prompt, [n_images - ids.index(each) for each in range(n_images)], surveys


def _survey(
    survey: Any, image: int, *, reliable: bool
) -> tuple[tuple[int, ...], tuple[bool, ...] | None, tuple[bool, ...]]:
    """Ratings, issues and emotions of one image."""
    if not isinstance(survey, dict):
        raise ValueError(f"image {image}: the survey must be an object, not {_shown(survey)}")
    for name in RATINGS.values():
        rating = survey.get(name)
        if type(rating) is not int or not 0 <= rating <= HIGHEST_RATING:
            raise ValueError(
                f"image {image}: {name} must be a whole number from 1 to {HIGHEST_RATING}, or 0, not {_shown(rating)}"
            )
    issues = _ticked(survey, image, "issuesList", ISSUES) if reliable else None
    return tuple(survey[name] for name in RATINGS.values()), issues, _ticked(survey, image, "reactionList", EMOTIONS)


def _ticked(survey: dict[str, Any], image: int, name: str, columns: Sequence[str]) -> tuple[bool, ...]:
    options = survey.get(name)
    ticked = tuple(options.values()) if isinstance(options, dict) else ()
    if len(ticked) != len(columns) or any(type(each) is not bool for each in ticked):
        raise ValueError(
            f"image {image}: {name} must have {len(columns)} options that are true or false, not {_shown(options)}"
        )
    return ticked


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
