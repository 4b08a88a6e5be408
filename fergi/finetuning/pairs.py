"""Preference pairs as trainers read them, whatever file they come in, checked before any training.

Files: the table of ``annotate_preferences.py`` (CSV), Pick-a-Pic (parquet, a file or a folder of them), HPD v2, HPD v3
and ImageReward (JSON).
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fergi.dataset import Folders, may_share
from fergi.files import FergiError, read_json, read_table, summarise
from fergi.pictures import open_picture

FILES_ADVICE = "Name a table of annotate_preferences.py, Pick-a-Pic's parquet, or JSON as HPD or ImageReward has it."
TIE = 0.5


@dataclass(frozen=True)
class Picture:
    """A picture that has not been decoded: a file, or the bytes of one."""

    name: str  # for errors
    source: Path | bytes

    def open(self) -> Image.Image:
        """As 8-bit RGB; ValueError with the name and the reason."""
        if isinstance(self.source, Path):
            return open_picture(self.source)
        try:
            return open_picture(Image.open(io.BytesIO(self.source)))
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.name} is not a picture that can be used: {error}") from None
        except ValueError as error:
            raise ValueError(str(error).replace("the picture", self.name, 1)) from None

    def content(self) -> bytes:
        """The bytes of the file."""
        return self.source.read_bytes() if isinstance(self.source, Path) else self.source


def picture_sums(pictures: Sequence[Picture], workers: int, advice: str) -> list[str]:
    """The SHA-256 of pictures, each of which is decoded once; FergiError counts those that cannot be used."""

    def check(picture: Picture) -> tuple[str, str]:
        try:
            picture.open()
            return hashlib.sha256(picture.content()).hexdigest(), ""
        except ValueError as error:
            return "", str(error)

    with ThreadPoolExecutor(workers) as threads:
        found = list(threads.map(check, pictures))
    if problems := [problem for _, problem in found if problem]:
        raise summarise(problems, len(found), "pictures", advice)
    return [each for each, _ in found]


@dataclass(frozen=True)
class PreferencePairs:
    """Pairs of pictures of one prompt.

    Attributes
    ----------
    pictures : tuple of Picture
        Each once.
    table : pandas.DataFrame
        One row a pair: ``prompt``; ``participant`` (empty if the file does not say); ``first`` and ``second``, places
        in ``pictures``; ``label``, the probability that the first is preferred (0–1, 0.5 for a tie).
    """

    pictures: tuple[Picture, ...]
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    def hardened(self) -> "PreferencePairs":
        """With labels 0, 0.5 and 1."""
        label = self.table["label"]
        return PreferencePairs(self.pictures, self.table.assign(label=(np.sign(label - TIE) + 1) / 2))

    def joined(self, other: "PreferencePairs") -> "PreferencePairs":
        """These pairs and then others."""
        moved = other.table.assign(**{side: other.table[side] + len(self.pictures) for side in ("first", "second")})
        return PreferencePairs(self.pictures + other.pictures, pd.concat([self.table, moved], ignore_index=True))

    def check_pictures(self, workers: int) -> str:
        """Decode every picture once, and give the SHA-256 of all pairs with their pictures and labels.

        Raises
        ------
        FergiError
            Counting the pictures that cannot be used, and naming the first. None is left out or replaced by another.
        """
        advice = "Put it there, or take its pairs out of the file."
        sums = np.array(picture_sums(self.pictures, workers, advice))
        rows = self.table.assign(first=sums[self.table["first"]], second=sums[self.table["second"]])
        return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


# Reading -----------------------------------------------------------------------------------------------------------

# Prompt, participant, first and second picture, label.
Row = tuple[str, str, Picture, Picture, float]


def read_pairs(path: Path, folders: Folders, pictures: Path | None = None) -> tuple[PreferencePairs, list[str]]:
    """The pairs in a file, and sentences on those that are not used.

    Parameters
    ----------
    path : Path
        The file, or a folder of parquet files.
    folders : Folders
        Where the pictures of the table of ``annotate_preferences.py`` are.
    pictures : Path or None
        The folder from which JSON files name their pictures; by default their own.

    Raises
    ------
    FergiError
        If it is missing or of another form, counting the entries that cannot be used and naming the first; if nothing
        is left, or there are ties only.
    """
    parquets = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not path.exists() or not parquets:
        raise FergiError(f"{path} {'has no parquet file' if path.is_dir() else 'does not exist'}. {FILES_ADVICE}")
    ending = parquets[0].suffix
    if ending == ".parquet":
        rows, said = _pick_a_pic(parquets)
    elif ending == ".json":
        rows, said = _json_pairs(path, pictures or path.parent)
    elif ending == ".csv":
        rows, said = _annotated(path, folders)
    else:
        raise FergiError(f"{path} is of a form that is not known. {FILES_ADVICE}")
    if not rows:
        raise FergiError(f"{path} has no pair with a preference. {' '.join([*said, FILES_ADVICE])}")
    if all(row[-1] == TIE for row in rows):
        raise FergiError(f"All {len(rows)} pairs in {path} are ties, so there is nothing to learn. {FILES_ADVICE}")
    places: dict[Any, int] = {}
    used: list[Picture] = []
    for picture in (each for row in rows for each in row[2:4]):
        key = picture.source if isinstance(picture.source, Path) else hashlib.sha256(picture.source).digest()
        if key not in places:
            places[key] = len(used)
            used.append(picture)

    def place(picture: Picture) -> int:
        return places[picture.source if isinstance(picture.source, Path) else hashlib.sha256(picture.source).digest()]

    table = [(prompt, who, place(first), place(second), label) for prompt, who, first, second, label in rows]
    names = ["prompt", "participant", "first", "second", "label"]
    return PreferencePairs(tuple(used), pd.DataFrame(table, columns=names)), said


def _usable(
    entries: Sequence[Any], make: Callable[[Any], list[Row]], where: Callable[[int], str], path: Path
) -> list[Row]:
    """The pairs of all entries; FergiError names the first entry that cannot be used."""
    rows, problems = [], []
    for number, entry in enumerate(entries):
        try:
            rows += make(entry)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"{where(number)}: {reason}")
    if problems:
        raise summarise(problems, len(entries), f"pairs in {path}", FILES_ADVICE)
    return rows


def _label(value: Any, other: Any = None) -> float:
    """A probability; ValueError if it is none, or the two do not sum to 1."""
    label = float(value)
    if other is not None and not (0 <= label <= 1 and abs(label + float(other) - 1) <= 1e-3):
        raise ValueError(f"its labels {value} and {other} are no probabilities that sum to 1")
    if not 0 <= label <= 1:
        raise ValueError(f"its label {value} is no probability")
    return label


def _annotated(path: Path, folders: Folders) -> tuple[list[Row], list[str]]:
    """The pairs of ``annotate_preferences.py`` with a verdict, of people who share their data."""
    key = ("session_index", "first_image", "second_image")
    kept = ("prompt", "probability_first", "verdict")
    try:
        table = read_table(path, text_key=["participant"], key=key, kept=kept)
    except ValueError as error:
        raise FergiError(f"{error}. {FILES_ADVICE}") from error
    decided = table[table["verdict"] != "abstain"]
    private = [who for who in decided["participant"].unique() if not may_share(folders, who)]
    said = [f"{len(table) - len(decided)} of {len(table)} pairs without a verdict are not used."]
    if private:
        said.append(f"Pairs of {len(private)} participants who do not share their data are not used.")
    decided = decided[~decided["participant"].isin(private)]

    def make(row: Any) -> list[Row]:
        if not isinstance(row.prompt, str):
            raise ValueError("it has no prompt, so its session has no data.json")
        folder = folders.session(row.participant, row.session_index)
        sides = (folder / f"image{number}.png" for number in (row.first_image, row.second_image))
        first, second = (Picture(str(side), side) for side in sides)
        return [(row.prompt, row.participant, first, second, _label(row.probability_first))]

    entries = list(decided.itertuples())
    return _usable(entries, make, lambda number: f"line {entries[number].Index + 2}", path), said


def _pick_a_pic(paths: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """Pick-a-Pic's columns; pictures stay in memory as their files' bytes."""
    import pyarrow
    import pyarrow.parquet

    needed, optional = ["caption", "jpg_0", "jpg_1", "label_0"], ["label_1", "has_label", "user_id"]
    rows: list[Row] = []
    n_unlabelled = 0
    for path in paths:
        try:
            file = pyarrow.parquet.ParquetFile(path)
            there = set(file.schema_arrow.names)
            if missing := [name for name in needed if name not in there]:
                raise FergiError(f"{path} has no column {missing[0]}. {FILES_ADVICE}")
            entries = file.read([name for name in (*needed, *optional) if name in there]).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise FergiError(
                f"{path} cannot be read as parquet: {str(error).splitlines()[0]}. {FILES_ADVICE}"
            ) from error
        labelled = [(number, entry) for number, entry in enumerate(entries) if entry.get("has_label", True)]
        n_unlabelled += len(entries) - len(labelled)

        def make(numbered: tuple[int, dict], path: Path = path) -> list[Row]:
            number, entry = numbered
            sides = []
            for name in ("jpg_0", "jpg_1"):
                content = entry[name]["bytes"] if isinstance(entry[name], dict) else entry[name]
                if not content:
                    raise ValueError(f"it has no picture in {name}")
                sides.append(Picture(f"{name} of row {number + 1} of {path}", content))
            who = entry.get("user_id")
            label = _label(entry["label_0"], entry.get("label_1"))
            return [(str(entry["caption"]), "" if who is None else str(who), *sides, label)]

        rows += _usable(labelled, make, lambda place, found=labelled: f"row {found[place][0] + 1}", path)
    return rows, [f"{n_unlabelled} pairs without a label are not used."] if n_unlabelled else []


# Pictures of a JSON entry → what is said of each, and 1 where a higher number is better, -1 where a lower one is.
SEVERAL = {"generations": ("ranking", -1), "image_path": ("rank", -1), "file_path": ("human_preference", 1)}


def _json_pairs(path: Path, pictures: Path) -> tuple[list[Row], list[str]]:
    """ImageReward's, HPD v2's ``train.json`` and ``test.json``, or HPD v3's."""
    entries = read_json(path, FILES_ADVICE)
    if not isinstance(entries, list) or not entries:
        raise FergiError(f"{path} is not a list of pairs. {FILES_ADVICE}")

    def make(entry: Any) -> list[Row]:
        prompt, who = str(entry["prompt"]), str(entry.get("participant") or "")
        if "path1" in entry:  # HPD v3: the preferred one; without a confidence it is certain
            shown = [Picture(str(pictures / entry[name]), pictures / entry[name]) for name in ("path1", "path2")]
            confidence = entry.get("confidence")
            return [(prompt, who, *shown, _label(1 if confidence in (None, "null") else confidence))]
        images = next((name for name in SEVERAL if name in entry), "file_path")
        numbers, sign = SEVERAL[images]
        names, worth = entry[images], [sign * float(number) for number in entry[numbers]]
        if len(names) != len(worth) or len(names) < 2:
            raise ValueError(f"it has {len(names)} pictures and {len(worth)} preferences")
        shown = [Picture(str(pictures / name), pictures / name) for name in names]
        pairs = combinations(range(len(names)), 2)
        return [
            (prompt, who, shown[one], shown[other], (float(np.sign(worth[one] - worth[other])) + 1) / 2)
            for one, other in pairs
        ]

    return _usable(entries, make, lambda number: f"entry {number + 1}", path), []


# Splitting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Which pairs are trained on and which are held out.

    Attributes
    ----------
    training, held_out : ndarray of int
        Rows of the pairs' table, ascending.
    unit : str
        What a bootstrap draws: ``participant`` or ``prompt``.
    """

    training: np.ndarray
    held_out: np.ndarray
    unit: str


def _unit(table: pd.DataFrame) -> str:
    known = (table["participant"] != "").all() and table["participant"].nunique() > 1
    return "participant" if known else "prompt"


def split_pairs(pairs: PreferencePairs, share: float, seed: int) -> Split:
    """Hold out about ``share`` of the pairs so that no prompt and no participant is on both sides.

    Participants who share prompts stay together. If that would keep nearly all pairs together, participants and
    prompts are both drawn, and pairs of which only one was drawn are on neither side. Where participants are not
    known, or there is one, prompts alone are split.

    Raises
    ------
    FergiError
        If one side would have no pair, or only ties.
    """
    table, random = pairs.table, np.random.default_rng(seed)
    unit = _unit(table)
    prompt, _ = pd.factorize(table["prompt"])
    person, _ = pd.factorize(table["participant"]) if unit == "participant" else (prompt, None)
    n_people, n_prompts = person.max() + 1, prompt.max() + 1
    if n_prompts == 1:
        raise FergiError(
            f"All {len(table)} pairs are of one prompt, so none can be held out with a prompt of its own. Add pairs of "
            "other prompts, or name pairs to hold out with --held-out-pairs."
        )
    edges = coo_array((np.ones(len(table)), (person, n_people + prompt)), shape=(n_people + n_prompts,) * 2)
    group = connected_components(edges, directed=False)[1][person]
    sizes = np.bincount(group)
    held, target = np.zeros(len(sizes), bool), share * len(table)
    for each in random.permutation(np.flatnonzero(sizes)):
        if abs(sizes[held].sum() + sizes[each] - target) < abs(sizes[held].sum() - target):
            held[each] = True
    held_out = held[group]
    training = ~held_out
    if held_out.sum() < target / 2:
        drawn = [random.permutation(n) < max(1, round(share**0.5 * n)) for n in (n_people, n_prompts)]
        of_person, of_prompt = drawn[0][person], drawn[1][prompt]
        held_out, training = of_person & of_prompt, ~of_person & ~of_prompt
    return _checked(pairs, Split(np.flatnonzero(training), np.flatnonzero(held_out), unit))


def split_from(pairs: PreferencePairs, held_out: PreferencePairs) -> tuple[PreferencePairs, Split]:
    """All pairs together, with a file's own pairs held out; pairs that share a prompt or a participant are not used."""
    both = pairs.joined(held_out)
    own, others = both.table[: len(pairs)], both.table[len(pairs) :]
    known = own["participant"].isin(others["participant"]) & (own["participant"] != "")
    training = np.flatnonzero(~known & ~own["prompt"].isin(others["prompt"]))
    return both, _checked(both, Split(training, np.arange(len(pairs), len(both)), _unit(others)))


def _checked(pairs: PreferencePairs, split: Split) -> Split:
    for name, rows in (("train on", split.training), ("hold out", split.held_out)):
        if (pairs.table["label"].to_numpy()[rows] == TIE).all():
            raise FergiError(
                f"Of {len(pairs)} pairs none with a preference is left to {name} when no prompt and no participant is "
                "on both sides. Add pairs, choose another --held-out-share, or name pairs with --held-out-pairs."
            )
    return split


# Pictures for a network --------------------------------------------------------------------------------------------


class PreparedPictures:
    """Pictures as a network takes them, decoded by threads; as many as fit into ``memory`` bytes are kept.

    ``prepare`` makes an array or tensor of a picture; all are of one size.
    """

    def __init__(
        self, pictures: Sequence[Picture], prepare: Callable[[Image.Image], Any], *, workers: int, memory: int = 2**31
    ) -> None:
        self.pictures, self.prepare, self.workers, self.memory = pictures, prepare, workers, memory
        self.kept: dict[int, Any] = {}

    def _get(self, place: int) -> Any:
        if place in self.kept:
            return self.kept[place]
        try:
            prepared = self.prepare(self.pictures[place].open())
        except ValueError as error:
            raise FergiError(f"{error}. It was readable when the pictures were checked; run again.") from error
        if (len(self.kept) + 1) * prepared.nbytes <= self.memory:
            self.kept[place] = prepared
        return prepared

    def batches(self, batches: Sequence[np.ndarray]) -> Iterator[list[Any]]:
        """The pictures of each batch of places; the next batch is decoded while the caller works on one."""
        with ThreadPoolExecutor(self.workers) as threads:
            following = threads.map(self._get, batches[0].tolist() if batches else [])
            for number in range(1, 1 + len(batches)):
                current = following
                following = threads.map(self._get, batches[number].tolist() if number < len(batches) else [])
                yield list(current)
