"""Pictures of faces with AU intensities and captions, to train a face generator on.

They come from a folder of aligned faces (``index.csv``, see ``fergi.action_units.faces_dataset``; pictures of any size;
the columns ``caption`` and ``expression`` may be there), or from a folder with clips and the feature files of an
estimator beside them, out of which faces are cut, with their surroundings, into a folder of that form.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from fergi.action_units.disfa import NOT_LABELLED
from fergi.action_units.faces_dataset import FRAME_COLUMNS, INDEX, LABEL_COLUMNS
from fergi.dataset import VIDEO_ENDINGS, Folders, may_share
from fergi.face_generation.captions import caption
from fergi.features import SETTINGS_FILE, FrameLimits, read_clips, require_one_estimator, valid_frames
from fergi.files import FergiError, new_folder, read_json, read_table, sha256, summarise, write_json, write_table
from fergi.finetuning.pairs import Picture, picture_sums

HIGHEST = 5
TEXTS = ("caption", "expression")
FEATURES = "_features.csv"
AROUND = 2.0  # side of what is cut out, in sides of the detection
ADVICE = "Name folders with an index.csv of aligned faces, or with clips and their feature files, with --faces."


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures that have not been decoded, with what is known of them.

    Attributes
    ----------
    pictures : tuple of Picture
        The files.
    people : ndarray of str, shape (n,)
        Who is seen.
    intensities : ndarray of float, shape (n, 12)
        0–5, NaN where one is not known.
    captions, expressions : ndarray of str, shape (n,)
        Texts; expressions are empty where they are not known.
    """

    pictures: tuple[Picture, ...]
    people: np.ndarray
    intensities: np.ndarray
    captions: np.ndarray
    expressions: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    def check(self, workers: int) -> str:
        """Decode every picture once, and give the SHA-256 of all pictures with what is known of them.

        Raises
        ------
        FergiError
            Counting the pictures that cannot be used, and naming the first.
        """
        sums = picture_sums(self.pictures, workers, "Put it there, or take its row out of the index.")
        told = pd.DataFrame(self.intensities).assign(p=sums, who=self.people, said=self.captions, is_=self.expressions)
        return hashlib.sha256(told.to_csv(index=False).encode()).hexdigest()

    def squares(self, rows: np.ndarray, side: int) -> np.ndarray:
        """Some of the pictures, the middle of each in one size; uint8, shape (n, side, side, 3)."""
        found = [ImageOps.fit(self.pictures[row].open(), (side, side), Image.Resampling.BICUBIC) for row in rows]
        return np.stack([np.asarray(each) for each in found])

    def split(self, held_out: Sequence[str], share: float, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Places of the training pictures and of the held-out ones, and what the latter are, for a sentence.

        ``held_out`` names people. Where it is empty a share of the people is drawn, and below five people a share of
        the pictures.

        Raises
        ------
        FergiError
            If nobody has such a name, or nothing remains to train on.
        """
        known, random = np.unique(self.people), np.random.default_rng([seed, 0])
        if unknown := sorted(set(held_out) - set(known.tolist())):
            advice = f"Choose from {', '.join(known)}."
            raise summarise(unknown, len(held_out), "held-out people", advice, "are not in the data")
        if held_out or len(known) >= 5:
            n = max(1, round(share * len(known)))
            chosen = sorted(held_out or random.permutation(known)[:n].tolist())
            out, what = np.isin(self.people, chosen), f"people: {', '.join(chosen)}"
        else:
            n = max(1, round(share * len(self)))
            out, what = np.isin(np.arange(len(self)), random.permutation(len(self))[:n]), "pictures of the same people"
        if out.all():
            raise FergiError(f"All {len(self)} pictures are held out, and none remains to train on. Hold out fewer.")
        return np.flatnonzero(~out), np.flatnonzero(out), what


def read_pictures(folders: Sequence[Path]) -> tuple[LabelledPictures, dict[str, Any]]:
    """The pictures of folders of aligned faces, and the settings that all of these folders share.

    The setting ``aligned`` is false if a folder is one of ``cut_faces``.

    Raises
    ------
    FergiError
        If a folder has no index, no pictures or not those of its index, or an index has an unknown AU or an intensity
        that is neither from 0 to 5 nor −1.
    """
    parts, settings = [], []
    for folder in dict.fromkeys(each.resolve() for each in folders):
        parts.append(_read_folder(folder))
        there = folder / SETTINGS_FILE
        settings.append(read_json(there, ADVICE) if there.is_file() else {})
    shared = {name: value for name, value in settings[0].items() if all(each.get(name) == value for each in settings)}
    shared["aligned"] = not any("cut_from" in each for each in settings)
    joined = [np.concatenate(each) for each in zip(*([*vars(part).values()][1:] for part in parts), strict=True)]
    return LabelledPictures(tuple(picture for part in parts for picture in part.pictures), *joined), shared


def _read_folder(folder: Path) -> LabelledPictures:
    path = folder / INDEX
    try:
        columns = pd.read_csv(path, nrows=0).columns if path.is_file() else []
        texts = [name for name in TEXTS if name in columns]
        units = [name for name in LABEL_COLUMNS if name in columns]
        if unknown := [name for name in columns if re.fullmatch(r"AU ?\d+", name, re.I) and name not in LABEL_COLUMNS]:
            raise ValueError(f"{path} has a column {unknown[0]}; the AUs are {', '.join(LABEL_COLUMNS)}")
        table = read_table(path, text_key=["image", "subject"], kept=[*units, *texts])
        for name in ("image", "subject"):
            for row in np.flatnonzero(table[name].isna()):
                raise ValueError(f"{path}, line {row + 2}: no {name}")
        intensities = _intensities(table, path)
    except ValueError as error:
        raise FergiError(f"{error}. {ADVICE}") from error
    there = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix}
    if missing := [name for name in table["image"] if str(Path(name)) not in there]:
        raise summarise(missing, len(table), f"pictures of {path}", "Make the folder again.", "are missing")
    told = {name: table[name].fillna("").astype(str) if name in texts else [""] * len(table) for name in TEXTS}
    given = zip(told["caption"], intensities, told["expression"], strict=True)
    captions = [text or caption(row, expression) for text, row, expression in given]
    pictures = tuple(Picture(str(folder / name), folder / name) for name in table["image"])
    people, expressions = table["subject"].to_numpy(str), np.array(told["expression"], str)
    return LabelledPictures(pictures, people, intensities, np.array(captions, str), expressions)


def _intensities(table: pd.DataFrame, path: Path) -> np.ndarray:
    """Shape (n, 12), NaN where a cell is empty or −1, or an AU has no column; ValueError names the first other cell."""
    intensities = np.full((len(table), len(LABEL_COLUMNS)), np.nan)
    for place, name in enumerate(LABEL_COLUMNS):
        if name not in table:
            continue
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        empty = table[name].isna().to_numpy() | (values == NOT_LABELLED)
        for row in np.flatnonzero(~empty & ~((values >= 0) & (values <= HIGHEST))):
            cell = table[name].iloc[row]
            raise ValueError(f"{path}, line {row + 2}, column {name}: {cell!r} is no intensity from 0 to {HIGHEST}")
        intensities[:, place] = np.where(empty, np.nan, values)
    return intensities


# Clips -------------------------------------------------------------------------------------------------------------


def cut_faces(folder: Path, home: Path, pretrained_models: Path, limits: FrameLimits, per_clip: int) -> Path:
    """Cut faces with their surroundings out of clips, into a folder of the form of aligned faces.

    From each clip come up to ``per_clip`` frames, evenly spread over its valid frames. Intensities are those of the
    feature file, brought into 0–5. People are the folders right below ``folder``, or else the clips. People who do not
    share their data are left out, where ``folder`` is the ``data`` of a root.

    Parameters
    ----------
    folder : Path
        With videos, and feature files beside them.
    home : Path
        Where to write the new folder.
    pretrained_models : Path
        Where the weights of the face detector may be.
    limits : FrameLimits
        Of valid frames.
    per_clip : int
        Frames of a clip, at most.

    Returns
    -------
    Path
        The new folder; faces that were cut out of the same clips before are taken again.

    Raises
    ------
    FergiError
        If there are no such files, they cannot be used, are of several estimators, or no frame has a face.
    """
    from fergi.faces.detection import FaceDetector, detector_model

    paths = sorted(folder.rglob(f"*{FEATURES}"))
    if not paths:
        raise FergiError(f"{folder} has neither an {INDEX} nor feature files (*{FEATURES}). {ADVICE}")
    paths = of_sharing_people(folder, paths)
    videos = _videos(paths)
    estimator = require_one_estimator({path.parent for path in paths}, folder)
    features, problems = read_clips(paths)
    if problems or not paths:
        raise summarise(problems or ["none is left"], len(paths), "feature files", ADVICE)
    content = "".join(f"{path.relative_to(folder)} {sha256(path)}\n" for path in paths) + f"{per_clip} {AROUND}"
    made = home / f"{folder.resolve().name}_{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    if (made / INDEX).is_file():
        return made
    valid = valid_frames(features, limits)
    with new_folder(made, "--root") as written:
        detector, rows = FaceDetector(detector_model(pretrained_models)[0]), []
        for clip, (path, video) in enumerate(zip(paths, videos, strict=True)):
            start, end = features.starts[clip : clip + 2]
            usable, where = np.flatnonzero(valid[start:end]), path.relative_to(folder)
            chosen = usable[np.unique(np.linspace(0, len(usable) - 1, min(per_clip, len(usable))).round().astype(int))]
            part = str(where).removesuffix(FEATURES)
            person = where.parts[0] if len(where.parts) > 1 else part
            (written / part).mkdir(parents=True)
            for frame, face in _faces(video, chosen, detector):
                image = f"{part}/{frame + 1}.png"
                cv2.imwrite(str(written / image), cv2.cvtColor(face, cv2.COLOR_RGB2BGR))
                values = features.intensities[start + frame].clip(0, HIGHEST).round(3)
                rows.append((image, person, part, frame + 1, *values))
        if not rows:
            raise FergiError(f"No valid frame of the {len(paths)} clips in {folder} has a face. {ADVICE}")
        write_table(pd.DataFrame(rows, columns=[*FRAME_COLUMNS, *LABEL_COLUMNS]), written / INDEX)
        write_json({"cut_from": str(folder.resolve()), "per_clip": per_clip, **estimator}, written / SETTINGS_FILE)
    return made


def of_sharing_people(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Those of files below a folder that are of people who share data; all, unless it is the ``data`` of a root."""
    home = Folders(folder.resolve().parent)
    if folder.resolve() != home.data:
        return list(paths)
    return [path for path in paths if may_share(home, path.relative_to(folder).parts[0])]


def _videos(paths: Sequence[Path]) -> list[Path]:
    """The video beside each feature file; FergiError counts those that have none."""
    found = []
    for path in paths:
        names = [path.with_name(path.name.removesuffix(FEATURES) + ending) for ending in VIDEO_ENDINGS]
        found.append(next(filter(Path.is_file, names), None))
    if missing := [str(path) for path, video in zip(paths, found, strict=True) if video is None]:
        raise summarise(
            missing, len(paths), "feature files", "Put the videos beside them.", "have no video beside them"
        )
    return found


def _faces(video: Path, frames: np.ndarray, detector: Any) -> list[tuple[int, np.ndarray]]:
    """Frames, by their numbers from 0, and their faces; frames in which the detector finds none are left out."""
    from fergi.video import UnreadableVideo, read_frames

    wanted, found = set(frames.tolist()), []
    try:
        for number, (_, picture) in enumerate(read_frames(video)):
            if number in wanted and (face := detector.detect(picture)):
                found.append((number, cut_square(picture, face.box)))
            if not wanted or number >= max(wanted):
                break
    except UnreadableVideo as error:
        raise FergiError(f"{error}. Take its feature file away, or get the video again.") from error
    return found


def cut_square(picture: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """A square around a detection (x, y, width, height), moved and made smaller so that it lies in the picture."""
    x, y, width, height = box
    side = min(round(AROUND * max(width, height)), *picture.shape[:2])
    left = int(np.clip(round(x + (width - side) / 2), 0, picture.shape[1] - side))
    top = int(np.clip(round(y + (height - side) / 2), 0, picture.shape[0] - side))
    return picture[top : top + side, left : left + side]
