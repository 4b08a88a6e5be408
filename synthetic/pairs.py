"""Pairs of drawn pictures of which it is known which is better, as Pick-a-Pic's parquet."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthetic.pictures import draw_picture, random_scene

N_PICTURES, N_PEOPLE = 5, 30  # pictures of a scene; people who see the scenes in turn
SIDE = 128  # pixels


class Drawn(NamedTuple):
    """A drawn picture."""

    prompt: str
    person: int
    content: bytes
    quality: float


def draw(seed: int, n_prompts: int, first_person: int = 0) -> list[list[Drawn]]:
    """Pictures of random scenes, ``N_PICTURES`` of each."""
    random, drawn = np.random.default_rng(seed), []
    for number in range(n_prompts):
        scene, person = random_scene(random), first_person + number % N_PEOPLE
        made = [draw_picture(scene, random.uniform(), random, SIDE) for _ in range(N_PICTURES)]
        drawn.append([])
        for each in made:
            with io.BytesIO() as file:
                each.picture.save(file, "png")
                drawn[-1].append(Drawn(scene.prompt, person, file.getvalue(), each.match + each.fidelity))
    return drawn


def write_pairs(drawn: Sequence[Sequence[Drawn]], path: Path, *, right: float, seed: int, n: int | None = None) -> None:
    """Pairs as Pick-a-Pic's parquet: all, or ``n`` at random; just the share ``right`` of the labels is right."""
    import pyarrow
    import pyarrow.parquet

    random = np.random.default_rng(seed)
    pairs = [(several[i], several[j]) for several in drawn for i in range(len(several)) for j in range(i)]
    chosen = np.arange(len(pairs)) if n is None else random.permutation(len(pairs))[:n]
    is_right = random.permutation(len(chosen)) < round(right * len(chosen))
    rows = []
    for place, agrees in zip(chosen, is_right, strict=True):
        first, second = pairs[place]
        label = float((first.quality > second.quality) == agrees)
        row = {"caption": first.prompt, "jpg_0": first.content, "jpg_1": second.content, "user_id": first.person}
        rows.append(row | {"label_0": label, "label_1": 1 - label})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
