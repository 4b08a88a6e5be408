"""Annotated pairs in the formats that trainers of scorers and generators read.

    with Exporter(folder, ["hpd-v3"], Options()) as exporter:
        for each in ...:        # one participant at a time
            exporter.add(each)

Participants are numbered and not named. Formats that hold paths name the pictures where they are, or copies below the
folder. ``EXPORTS`` lists the formats; the reader of each stands beside it.
"""

import contextlib
import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from fergi.dataset import Folders, may_share
from fergi.files import FergiError
from fergi.pictures import open_picture
from fergi.preference.annotation import ABSTAIN, Participant, Summary
from fergi.preference.aucomb import AUcomb
from fergi.preference.valence import activation_values, au4_valence, au12_valence

JPEG_QUALITY = 95
ROWS_AT_ONCE = 256  # of a parquet file; a row may hold two pictures
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How pairs are written.

    Attributes
    ----------
    hard_labels : bool
        Whether ``pick-a-pic`` has 1 and 0 in place of probabilities.
    copy_pictures : bool
        Whether formats that hold paths get copies of the pictures, with paths relative to the folder of the export.
    aucomb : AUcomb or None
        For ``diffusion-kto``, which needs it.
    """

    hard_labels: bool = False
    copy_pictures: bool = False
    aucomb: AUcomb | None = None


@dataclass(frozen=True)
class Picture:
    """One image that somebody reacted to."""

    path: Path
    prompt: str
    name: str  # without the participant's name, such as 3/session_2/image1.png

    @cached_property
    def jpeg(self) -> bytes:
        """The picture as JPEG.

        Raises
        ------
        FergiError
            If the file is no usable picture.
        """
        try:
            picture = open_picture(self.path)
        except ValueError as error:
            raise FergiError(f"{error}. Put the whole picture there.") from None
        with io.BytesIO() as file:
            picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            return file.getvalue()


@dataclass(frozen=True)
class Pair:
    """Two pictures made from one prompt, and which of them is preferred."""

    user: int
    session: int
    first: Picture
    second: Picture
    valences: tuple[float, float]
    probability: float  # that the first is preferred

    @property
    def ordered(self) -> tuple[Picture, Picture]:
        """The preferred picture and the other."""
        return (self.first, self.second) if self.probability > 0.5 else (self.second, self.first)


@dataclass(frozen=True)
class Material:
    """What of one participant may be written: pairs with a verdict, and single reactions with their pictures."""

    pairs: list[Pair] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)  # one for each row of ``reactions``
    reactions: pd.DataFrame = field(default_factory=pd.DataFrame)


def material(user: int, participant: Participant, pairs: pd.DataFrame, reactions: pd.DataFrame) -> tuple[Material, int]:
    """One participant's material, and how many pairs with a verdict lack a prompt or a picture.

    Parameters
    ----------
    user : int
        The number that stands for the participant.
    participant : Participant
        Prompts and pictures.
    pairs : pandas.DataFrame
        From ``annotation.decide``.
    reactions : pandas.DataFrame
        Valid reactions to images that are not black: ``session_index``, ``image_index`` and activation values.
    """
    there = {
        (session, image): Picture(path, participant.prompts[session], f"{user}/session_{session}/{path.name}")
        for (session, image), path in participant.pictures.items()
        if session in participant.prompts
    }
    decided = pairs[pairs["verdict"] != ABSTAIN]
    columns = ["session_index", "first_image", "second_image", "first_valence", "second_valence", "probability_first"]
    usable = []
    for session, first, second, *valences, probability in zip(
        *(decided[name].tolist() for name in columns), strict=True
    ):
        if (session, first) in there and (session, second) in there:
            images = there[session, first], there[session, second]
            usable.append(Pair(user, session, *images, tuple(valences), probability))
    keys = list(zip(reactions["session_index"].tolist(), reactions["image_index"].tolist(), strict=True))
    shown = [there[key] for key in keys if key in there]
    with_picture = reactions[[key in there for key in keys]].reset_index(drop=True)
    return Material(usable, shown, with_picture), len(decided) - len(usable)


# Rows of the formats -----------------------------------------------------------------------------------------------


def _pick_a_pic(material: Material, options: Options, _: Callable[[Picture], str]) -> Iterator[Row]:
    """Soft labels are probabilities; a trainer of winners and losers wants hard ones."""
    of_prompt = Counter(pair.first.prompt for pair in material.pairs)
    for pair in material.pairs:
        label = float(pair.probability > 0.5) if options.hard_labels else pair.probability
        yield {
            "are_different": True,
            "best_image_uid": pair.ordered[0].name,
            "caption": pair.first.prompt,
            "created_at": None,
            "has_label": True,
            "image_0_uid": pair.first.name,
            "image_1_uid": pair.second.name,
            "jpg_0": pair.first.jpeg,
            "jpg_1": pair.second.jpeg,
            "label_0": label,
            "label_1": 1 - label,
            "model_0": "",
            "model_1": "",
            "num_example_per_prompt": of_prompt[pair.first.prompt],
            "ranking_id": pair.session,
            "user_id": pair.user,
        }


def _hpd_v2(material: Material, _: Options, path: Callable[[Picture], str]) -> Iterator[Row]:
    for pair in material.pairs:
        preferred = int(pair.probability > 0.5)
        paths = [path(pair.first), path(pair.second)]
        yield {
            "prompt": pair.first.prompt,
            "file_path": paths,
            "human_preference": [preferred, 1 - preferred],
        }


def _hpd_v3(material: Material, _: Options, path: Callable[[Picture], str]) -> Iterator[Row]:
    """``path1`` is always the preferred picture; one face is one vote."""
    for pair in material.pairs:
        preferred, other = pair.ordered
        yield {
            "prompt": preferred.prompt,
            "path1": path(preferred),
            "path2": path(other),
            "confidence": max(pair.probability, 1 - pair.probability),
            "choice_dist": [1, 0],
            "model1": "",
            "model2": "",
        }


def _image_reward(material: Material, _: Options, path: Callable[[Picture], str]) -> Iterator[Row]:
    """One entry a pair: verdicts on the pairs of a session need not make one ranking, since one may abstain."""
    for pair in material.pairs:
        yield {
            "id": f"{pair.first.name.rpartition('.')[0]}-{pair.second.path.stem}".replace("/", "-"),
            "prompt": pair.first.prompt,
            "generations": [path(pair.first), path(pair.second)],
            "ranking": [1, 2] if pair.probability > 0.5 else [2, 1],
        }


def _social_reward(material: Material, _: Options, path: Callable[[Picture], str]) -> Iterator[Row]:
    for pair in material.pairs:
        preferred, other = pair.ordered
        yield {"prompt": preferred.prompt, "pos_path": path(preferred), "neg_path": path(other)}


def _diffusion_kto(material: Material, options: Options, path: Callable[[Picture], str]) -> Iterator[Row]:
    liked, disliked = liked_and_disliked(material.reactions, options.aucomb)
    for picture, up, down in zip(material.pictures, liked, disliked, strict=True):
        if up or down:
            split = "intersections" if up and down else "exclusive_win" if up else "exclusive_lose"
            yield {"file_name": path(picture), "caption": picture.prompt, "split": split}


def liked_and_disliked(reactions: pd.DataFrame, aucomb: AUcomb) -> tuple[np.ndarray, np.ndarray]:
    """Which single pictures were liked and which disliked, from AU12 and AU4 alone (bool, one a reaction).

    The valence of eq. 5 has two parts. A picture is liked where the smile's part, (1 − w_AU4)·s_AU12, reaches the
    threshold d of the selection (Section 6.2.4), and disliked where the frown's part, w_AU4·|s_AU4|, does: where the
    pair of this reaction and a face that does not move would be selected by that part alone. It can be both.
    """
    au4, au12 = activation_values(reactions, (4, 12)).T
    smile = (1 - aucomb.au4_weight) * au12_valence(au12, decay=aucomb.decay)
    frown = -aucomb.au4_weight * au4_valence(au4, decay=aucomb.decay)
    return smile >= aucomb.threshold, frown >= aucomb.threshold


def _datasets(material: Material, _: Options, __: Callable[[Picture], str]) -> Iterator[Row]:
    for pair in material.pairs:
        yield {
            "prompt": pair.first.prompt,
            "image_0": {"bytes": pair.first.path.read_bytes(), "path": None},
            "image_1": {"bytes": pair.second.path.read_bytes(), "path": None},
            "preferred": int(pair.probability <= 0.5),
            "probability_0": pair.probability,
            "valence_0": pair.valences[0],
            "valence_1": pair.valences[1],
            "participant": pair.user,
            "session": pair.session,
        }


# Files of the formats ----------------------------------------------------------------------------------------------


def _pick_a_pic_schema() -> Any:
    import pyarrow as pa

    kinds = {"are_different": pa.bool_(), "has_label": pa.bool_(), "created_at": pa.timestamp("ns")}
    kinds |= dict.fromkeys(["jpg_0", "jpg_1"], pa.binary()) | dict.fromkeys(["label_0", "label_1"], pa.float64())
    kinds |= dict.fromkeys(["num_example_per_prompt", "ranking_id", "user_id"], pa.int64())
    texts = ["best_image_uid", "caption", "image_0_uid", "image_1_uid", "model_0", "model_1"]
    kinds |= dict.fromkeys(texts, pa.string())
    return pa.schema(sorted(kinds.items()))


def _social_reward_schema() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in ("prompt", "pos_path", "neg_path")])


def _datasets_schema() -> Any:
    from datasets import Features, Image, Value

    numbers = dict.fromkeys(["probability_0", "valence_0", "valence_1"], Value("float64"))
    places = dict.fromkeys(["participant", "session"], Value("int64"))
    pictures = {"image_0": Image(), "image_1": Image(), "preferred": Value("int8")}
    return Features({"prompt": Value("string")} | pictures | numbers | places).arrow_schema


@contextlib.contextmanager
def _parquet(path: Path, schema: Callable[[], Any]) -> Iterator[Callable[[list[Row]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    form, waiting = schema(), []
    with pq.ParquetWriter(path, form) as writer:

        def write(rows: list[Row], least: int = ROWS_AT_ONCE) -> None:
            waiting.extend(rows)
            if len(waiting) >= least:
                writer.write_table(pa.Table.from_pylist(waiting, schema=form))
                waiting.clear()

        yield write
        write([], least=1)


@contextlib.contextmanager
def _json(path: Path, _: None) -> Iterator[Callable[[list[Row]], None]]:
    """A list, one entry a line."""
    with path.open("w", encoding="utf-8") as file:
        start = "[\n"

        def write(rows: list[Row]) -> None:
            nonlocal start
            for row in rows:
                file.write(start + json.dumps(row, ensure_ascii=False))
                start = ",\n"

        yield write
        file.write(("[" if start == "[\n" else "\n") + "]\n")


@contextlib.contextmanager
def _csv(path: Path, columns: Sequence[str]) -> Iterator[Callable[[list[Row]], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        yield writer.writerows


@dataclass(frozen=True)
class Format:
    """One format: who reads it, its file, its rows, and how they are written."""

    reader: str
    file: str
    rows: Callable[[Material, Options, Callable[[Picture], str]], Iterator[Row]]
    writer: Callable[..., contextlib.AbstractContextManager[Callable[[list[Row]], None]]]
    form: Any = None  # columns or schema, for the writer
    holds_paths: bool = True


EXPORTS = {
    "pick-a-pic": Format(
        "PickScore's trainer; with hard labels Diffusion-DPO and the script of diffusers",
        "data/train.parquet", _pick_a_pic, _parquet, _pick_a_pic_schema, holds_paths=False,
    ),
    "hpd-v2": Format("HPS v2's trainer", "train.json", _hpd_v2, _json),
    "hpd-v3": Format("HPS v3's trainer", "train.json", _hpd_v3, _json),
    "image-reward": Format("ImageReward's trainer", "train.json", _image_reward, _json),
    "social-reward": Format(
        "Social Reward's trainer", "train.parquet", _social_reward, _parquet, _social_reward_schema
    ),
    "diffusion-kto": Format(
        "Diffusion-KTO's trainer", "train.csv", _diffusion_kto, _csv, ("file_name", "caption", "split")
    ),
    "datasets": Format(
        "datasets.load_dataset", "data/train.parquet", _datasets, _parquet, _datasets_schema, holds_paths=False
    ),
}  # fmt: skip


class Exporter:
    """Writes the material of one participant after the other in each of the chosen formats.

    Each format has a folder of its own name below ``folder``. Close it with ``with``.

    Raises
    ------
    FergiError
        If a package that writes a format is not installed.
    """

    def __init__(self, folder: Path, names: Sequence[str], options: Options) -> None:
        self.folder, self.options = folder, options
        self.n_rows = dict.fromkeys(names, 0)
        self._files = contextlib.ExitStack()
        self._writers = {}
        for name in names:
            path = folder / name / EXPORTS[name].file
            path.parent.mkdir(parents=True)
            try:
                self._writers[name] = self._files.enter_context(EXPORTS[name].writer(path, EXPORTS[name].form))
            except ImportError as error:
                raise FergiError(
                    f"{name} needs the package {error.name}, which is not installed: make setup."
                ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.__exit__(*error)

    def add(self, material: Material) -> None:
        """Write one participant's pairs and pictures.

        Raises
        ------
        FergiError
            If a picture cannot be used.
        """
        for name, write in self._writers.items():
            rows = list(EXPORTS[name].rows(material, self.options, partial(self._path, self.folder / name)))
            write(rows)
            self.n_rows[name] += len(rows)

    def _path(self, home: Path, picture: Picture) -> str:
        """Where a picture is, or the name of its copy below the folder of the format."""
        if not self.options.copy_pictures:
            return os.path.abspath(picture.path)
        copy = home / "images" / picture.name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture.path, copy)
        return copy.relative_to(home).as_posix()


class SharedPairs:
    """Hands over to an ``Exporter`` what may be shared and can be written, and counts what cannot."""

    def __init__(self, folders: Folders, exporter: Exporter, summary: Summary) -> None:
        self.folders, self.exporter, self.summary = folders, exporter, summary
        self.n_decided = self.n_lacking = self.n_withheld = self.n_people_withheld = self.n_people = 0

    def add(self, participant: Participant, pairs: pd.DataFrame, reactions: pd.DataFrame) -> None:
        """One participant's pairs with verdicts, and the reactions to images that are not black.

        Nothing of a participant whose ``consent.json`` refuses sharing or is withdrawn is written, not even a number.
        """
        n_decided = int((pairs["verdict"] != ABSTAIN).sum())
        self.n_decided += n_decided
        if not may_share(self.folders, participant.name):
            self.n_people_withheld += 1
            self.n_withheld += n_decided
            return
        self.n_people += 1
        self.summary.add(participant, pairs)
        each, n_lacking = material(self.n_people, participant, pairs, reactions)
        self.n_lacking += n_lacking
        self.exporter.add(each)

    def require_rows(self) -> None:
        """Stop if one of the formats is empty.

        Raises
        ------
        FergiError
            Saying why.
        """
        empty = [name for name, n in self.exporter.n_rows.items() if not n]
        if empty:
            raise FergiError(
                f"There is nothing to export as {empty[0]}: of {self.n_decided} pairs with a verdict, "
                f"{self.n_withheld} are of people who do not share, and {self.n_lacking} lack their prompt (data.json) "
                "or a picture (image<i>.png) in data/."
            )

    def sentences(self) -> Iterator[str]:
        """What was exported, for a terminal."""
        for name, n in self.exporter.n_rows.items():
            yield f"{n} rows as {name}, for {EXPORTS[name].reader}."
        if self.n_people_withheld:
            yield (
                f"Nothing of {self.n_people_withheld} participants was exported, who do not share or withdrew "
                f"({self.n_withheld} pairs)."
            )
        if self.n_lacking:
            yield f"{self.n_lacking} pairs were not exported, for lack of a prompt or a picture in data/."
