"""Drawn faces with known AUs, moods and captions, in the form of aligned faces, to train and judge face generators.

A picture shows one of the moods in ``MOODS``: its AUs at 2–5, and any other AU at 1–5 in a quarter of the pictures.
So moods carry AUs, as in real data, and most of an AU's variation is not the mood's. Intensities are whole numbers,
since DISFA's labels are. A person is the same at every seed; the seed decides the faces that they make.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from fergi.action_units.faces_dataset import FRAME_COLUMNS, INDEX, LABEL_COLUMNS, SETTINGS
from fergi.features import ACTION_UNITS
from fergi.files import new_folder, write_json, write_table
from synthetic.cohort import LABELLED_OPPONENTS, stream
from synthetic.expressions import Actor, Format, View
from synthetic.people import Person, random_person

MOODS = {"happy": (6, 12), "sad": (1, 4, 15), "surprised": (1, 2, 5, 26), "angry": (4, 5, 17)}
OTHERS = 0.25  # share of the pictures in which an AU that is not the mood's is at 1–5
HAIR = {
    "short": "short hair", "side": "parted hair", "fringe": "a fringe", "bob": "a bob", "long": "long hair",
    "curly": "curly hair", "bun": "a bun", "buzz": "cropped hair", "receding": "thin hair", "bald": "a bald head",
}  # fmt: skip
UNITS_ACROSS, EYE_HEIGHT = 3.0, 0.31  # of a picture: distances from eye to eye, and where the eyes are from above


class Portrait(NamedTuple):
    """One picture and the truth about it."""

    person: int
    mood: str
    intensities: np.ndarray  # shape (12,), whole numbers 0–5
    caption: str
    picture: np.ndarray  # uint8, shape (side, side, 3), RGB


def person(number: int) -> Person:
    """The person of a number; the first four wear their hair differently."""
    return random_person(stream(19, "portraits", number))


def caption(mood: str, who: Person) -> str:
    """What is seen, in words."""
    article = "an" if mood[0] in "aeiou" else "a"
    return f"{article} {mood} person with {HAIR[who.style]}"


def random_expression(random: np.random.Generator) -> tuple[str, np.ndarray]:
    """A mood, and intensities of shape (12,)."""
    mood = list(MOODS)[random.integers(len(MOODS))]
    of_mood = np.isin(ACTION_UNITS, MOODS[mood])
    others = random.integers(1, 6, len(ACTION_UNITS)) * (random.random(len(ACTION_UNITS)) < OTHERS)
    intensities = np.where(of_mood, random.integers(2, 6, len(ACTION_UNITS)), others).astype(float)
    for pair in LABELLED_OPPONENTS:  # the mood's stays, else the first
        one, other = (ACTION_UNITS.index(unit) for unit in pair)
        if intensities[one] and intensities[other] and not (of_mood[one] and of_mood[other]):
            intensities[one if of_mood[other] else other] = 0
    return mood, intensities


def portraits(people: Sequence[int], pictures_per_person: int, seed: int, side: int = 64) -> Iterator[Portrait]:
    """Draw them, person by person.

    Parameters
    ----------
    people : sequence of int
        Numbers of the people.
    pictures_per_person : int
        Pictures of each.
    seed : int
        Of the expressions, the slight movements of the head and the camera's noise.
    side : int
        Pixels, even: 64 for small generators, 112 for stage 3.
    """
    for number in people:
        who, random = person(number), stream(seed, "expressions", number)
        actor = Actor(who, Format(side, side, side / UNITS_ACROSS, EYE_HEIGHT))
        for _ in range(pictures_per_person):
            mood, intensities = random_expression(random)
            x, y = random.uniform(-0.01, 0.01, 2) * side
            yaw, pitch, roll = random.uniform(-2, 2, 3)
            picture = actor.frame(intensities, View(x=x, y=y, yaw=yaw, pitch=pitch, roll=roll), random)
            yield Portrait(number, mood, intensities, caption(mood, who), picture)


def draw_portraits(
    folder: Path,
    people: Sequence[int],
    pictures_per_person: int,
    seed: int,
    side: int = 64,
    stored_side: int | None = None,
) -> None:
    """Write ``portraits`` as a folder of aligned faces (see ``faces_dataset``) with the columns caption and expression.

    ``stored_side`` brings them to another size, such as 112 for stage 3, without more detail.

    Raises
    ------
    FergiError
        If the folder is there and not empty, or cannot be written.
    """
    rows = []
    with new_folder(folder) as written:
        for frame, each in enumerate(portraits(people, pictures_per_person, seed, side)):
            subject = f"DRAWN{each.person:04d}"
            image = f"{subject}/drawn/{frame}.png"
            (written / image).parent.mkdir(parents=True, exist_ok=True)
            picture = cv2.cvtColor(each.picture, cv2.COLOR_RGB2BGR)
            if stored_side:
                picture = cv2.resize(picture, (stored_side, stored_side), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(written / image), picture)
            labels = each.intensities.astype(int).tolist()
            rows.append((image, subject, "drawn", frame, *labels, each.caption, each.mood))
        columns = [*FRAME_COLUMNS, *LABEL_COLUMNS, "caption", "expression"]
        write_table(pd.DataFrame(rows, columns=columns), written / INDEX)
        given = {"people": list(map(int, people)), "pictures_per_person": pictures_per_person, "seed": seed}
        write_json(
            {"dataset": "drawn faces, no real people", **given, "side": side, "stored_side": stored_side},
            written / SETTINGS,
        )
