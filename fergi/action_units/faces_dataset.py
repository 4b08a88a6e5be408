"""The aligned faces of DISFA, DISFA+ and further folders as training data: labels, augmentation, batches.

A folder of aligned faces, which stages 1 and 2 write (``Folders.aligned_faces``) and the training reads, holds
<subject>/<part>/<frame>.png    colour pictures of 112 × 112 pixels; a part is a camera or a trial
settings.json    how they were made
index.csv        image (path in the folder), subject, part, frame, AU1, …, AU26 (0–5; −1 for no label)

Subjects whose names begin with ``SYNTHETIC`` are synthesised. They may be trained on, but not held out.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import Compose, RandomHorizontalFlip, RandomResizedCrop

from fergi.action_units.disfa import NOT_LABELLED
from fergi.action_units.network import N_ACTION_UNITS, SIDE
from fergi.dataset import Folders
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, read_json, read_table, require, summarise
from fergi.processes import start_worker

SETTINGS, INDEX = "settings.json", "index.csv"
FRAME_COLUMNS = ("image", "subject", "part", "frame")
LABEL_COLUMNS = tuple(f"AU{unit}" for unit in ACTION_UNITS)
SHARED_MEMORY = Path("/dev/shm")
PREFETCH = 2  # batches that each worker reads ahead
TIMEOUT = 300  # seconds to wait for a batch, which may be lost
SCRIPTS = {"DISFA": "preprocess_DISFA.py", "DISFAPlus": "preprocess_DISFAPlus.py"}
FURTHER_ADVICE = "Align its pictures with preprocess_DISFA.py --out, or leave the folder out of --more."
SYNTHETIC = "SYN"
ALIGNMENT = ("landmarks", "luma", "detector", "landmarks_sha256", "mediapipe")  # settings of ``AlignmentSettings``


@dataclass(frozen=True)
class Faces:
    """Labelled pictures.

    Attributes
    ----------
    paths : ndarray of bytes, shape (n,)
        The files.
    subjects, datasets : ndarray of str, shape (n,)
        Who is seen, and in which data set.
    labels : ndarray of int8, shape (n, 64)
        Intensity of AU i in column i − 1, −1 for no label.
    names : ndarray of bytes, shape (n,)
        The files as the data sets' tables name them, which does not change when the root moves.
    """

    paths: np.ndarray
    subjects: np.ndarray
    datasets: np.ndarray
    labels: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, wanted: np.ndarray) -> "Faces":
        """The pictures for which ``wanted`` holds."""
        return Faces(*(values[wanted] for values in vars(self).values()))

    def fingerprint(self) -> str:
        """A hash of which pictures there are, whose, and with which labels."""
        content = hashlib.sha256()
        for values in (self.names, self.datasets, self.subjects):
            content.update("\n".join(map(str, values.tolist())).encode())
        content.update(np.ascontiguousarray(self.labels))
        return content.hexdigest()


def read_faces(root: Path, *datasets: str, more: Sequence[Path] = ()) -> tuple[Faces, dict[str, Any], int]:
    """Pictures and labels of DISFA, DISFAPlus or both, and of further folders, joined.

    No picture is opened but the first of each folder in ``more``, where pictures may have another size. Such a folder's
    data set is called like the folder, with a number if the name is taken.

    Returns
    -------
    faces : Faces
        Data set by data set, in the order of the index.
    settings : dict
        How the pictures were made; each name begins with its data set. Of further folders also their ``fingerprint``.
    n_ignored : int
        Labels that are numbers but no intensity, and count as missing.

    Raises
    ------
    FergiError
        If a folder or one of its files is missing, an index cannot be used, or it names pictures that are not there;
        if a folder is given twice, or has subjects whom DISFA or DISFAPlus has too.
    """
    folders = {dataset: Folders(root).aligned_faces(dataset) for dataset in datasets}
    for dataset, folder in folders.items():
        if not folder.is_dir():
            raise FergiError(
                f"There are no aligned faces of {dataset}: {folder} does not exist. Run {SCRIPTS[dataset]} first, or "
                f"choose --datasets without {dataset}."
            )
    further = _named(more, folders)
    parts, settings, n_ignored = [], {}, 0
    for dataset, folder in (folders | further).items():
        again = FURTHER_ADVICE if dataset in further else f"Run {SCRIPTS[dataset]} again."
        made = read_json(folder / SETTINGS, again)
        settings |= {f"{dataset} {name}": value for name, value in made.items() if name != "dataset"}
        table = _read_index(folder, again)
        labels, n_ignored_here = _labels(table)
        n_ignored += n_ignored_here
        paths, names = zip(*((os.fsencode(folder / name), os.fsencode(name)) for name in table["image"]), strict=True)
        part = Faces(*map(np.array, (paths, table["subject"].to_numpy(str), [dataset] * len(table), labels, names)))
        if dataset in further:
            _check_further(part, parts[: len(folders)], folder)
            settings[f"{dataset} fingerprint"] = part.fingerprint()
        parts.append(part)
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Faces(*map(np.concatenate, columns)), settings, n_ignored


def _named(more: Sequence[Path], folders: Mapping[str, Path]) -> dict[str, Path]:
    """Further folders by the names of their data sets, none of them given twice."""
    named: dict[str, Path] = {}
    for folder in more:
        if not folder.is_dir():
            raise FergiError(f"{folder} is not a folder. Name folders of aligned faces with --more.")
        require([folder / INDEX, folder / SETTINGS], f"files of aligned faces in {folder}", FURTHER_ADVICE)
        if folder.resolve() in {each.resolve() for each in (*folders.values(), *named.values())}:
            raise FergiError(
                f"{folder} is given twice, or is a data set's own folder. Name every folder once with --more."
            )
        name, number = folder.resolve().name, 1
        while (unique := name if number == 1 else f"{name} {number}") in (*SCRIPTS, *named):
            number += 1
        named[unique] = folder
    return named


def _check_further(faces: Faces, others: Sequence[Faces], folder: Path) -> None:
    """Stop if subjects of a further folder are in the data sets too, or its pictures have another size."""
    subjects = sorted(set(faces.subjects.tolist()))
    known = {subject for each in others for subject in each.subjects.tolist()}
    if shared := [subject for subject in subjects if subject in known]:
        advice = "Rename other people; read a changed copy of a data set in its place, with a --root of its own."
        raise summarise(shared, len(subjects), f"subjects of {folder}", advice, "are in DISFA or DISFAPlus too")
    try:
        read_picture(os.fsdecode(faces.paths[0]))
    except ValueError as error:
        raise FergiError(f"{error}. {FURTHER_ADVICE}") from error


def alignment_difference(settings: Mapping[str, Any], datasets: Iterable[str]) -> str:
    """A sentence about the first setting of the alignment that data sets do not share; empty if there is none.

    ``settings`` are those of ``read_faces``.
    """
    datasets = list(dict.fromkeys(datasets))
    for name in ALIGNMENT:
        values = {dataset: settings.get(f"{dataset} {name}") for dataset in datasets}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{value or 'not said'} ({dataset})" for dataset, value in values.items())
            return f"The faces were aligned with different settings, which the network may learn: {name} is {shown}."
    return ""


def _read_index(folder: Path, again: str) -> pd.DataFrame:
    """The index of a folder, checked: labels are numbers or missing, and every picture is there, once."""
    path = folder / INDEX
    try:
        table = read_table(path, text_key=["image", "subject"], kept=["part", "frame", *LABEL_COLUMNS])
        labels = table[list(LABEL_COLUMNS)]
        is_text = labels.apply(pd.to_numeric, errors="coerce").isna() & labels.notna()
        for row, column in np.argwhere(is_text.to_numpy()):
            name, found = LABEL_COLUMNS[column], labels.iat[row, column]
            raise ValueError(f"{path}, line {row + 2}, column {name}: {found!r} is no number")
        for name in ("image", "subject"):
            for row in np.flatnonzero(table[name].isna()):
                raise ValueError(f"{path}, line {row + 2}: no {name}")
    except ValueError as error:
        raise FergiError(f"{error}. {again}") from error
    # Listing the folder is much faster than asking for each picture.
    there = {
        os.path.relpath(os.path.join(parent, name), folder) for parent, _, names in os.walk(folder) for name in names
    }
    missing = [name for name in table["image"] if os.path.normpath(name) not in there]
    if missing:
        raise summarise(missing, len(table), f"pictures of {path}", again, "are missing")
    return table


def _labels(table: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Labels of all 64 AUs, and how many were numbers but no intensity."""
    labels = np.full((len(table), N_ACTION_UNITS), NOT_LABELLED, np.int8)
    numbers = table[list(LABEL_COLUMNS)].to_numpy(float)
    is_intensity = np.isin(numbers, range(6))
    labels[:, [unit - 1 for unit in ACTION_UNITS]] = np.where(is_intensity, numbers, NOT_LABELLED)
    return labels, int((~is_intensity & ~np.isnan(numbers) & (numbers != NOT_LABELLED)).sum())


def split_by_subject(faces: Faces, held_out: Sequence[str]) -> tuple[Faces, Faces]:
    """Training pictures and held-out ones, by subject in all data sets: people of DISFA+ are in DISFA too.

    Raises
    ------
    FergiError
        If a held-out subject is not in the data or synthesised, or nobody remains to train on.
    """
    known = sorted(set(faces.subjects.tolist()))
    unknown = [subject for subject in held_out if subject not in known]
    if unknown:
        advice = f"Choose from {', '.join(known)}."
        raise summarise(unknown, len(held_out), "held-out subjects", advice, "are not in the data")
    if synthetic := [subject for subject in held_out if subject.startswith(SYNTHETIC)]:
        advice = "Hold out people who were filmed."
        raise summarise(synthetic, len(held_out), "held-out subjects", advice, "are synthesised")
    out = np.isin(faces.subjects, list(held_out))
    if out.all():
        raise FergiError(f"All {len(known)} subjects are held out, nobody remains to train on. Hold out fewer.")
    return faces.where(~out), faces.where(out)


def read_picture(path: Path | str) -> np.ndarray:
    """One aligned face, shape (112, 112, 3), RGB, uint8.

    Raises
    ------
    ValueError
        If the file is not a picture of that size.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path} is not a readable picture")
    if picture.shape != (SIDE, SIDE, 3):
        raise ValueError(f"{path} has {picture.shape[1]} x {picture.shape[0]} pixels instead of {SIDE} x {SIDE}")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


class Batch(NamedTuple):
    """One process's share of a batch.

    Attributes
    ----------
    pictures : Tensor of uint8, shape (n, 112, 112, 3)
        RGB.
    labels : Tensor of int8, shape (n, 64)
        −1 or 0–5.
    problem : str
        Why the batch cannot be used; else empty. (An exception would reach the main process as a traceback.)
    """

    pictures: Tensor
    labels: Tensor
    problem: str


class FaceBatches(Dataset):
    """Reads whole batches: item ``(epoch, indices)`` is the ``Batch`` of those pictures.

    Augmentation, which the paper does not tell, is the release's, by torchvision: every other picture is flipped, then
    ``crop`` is a random crop's ``scale`` (share of the area) and ``ratio`` (width by height), enlarged to the full size
    again; None leaves pictures as they are. It follows from the seed, the epoch and the picture's index alone, not from
    the batch, process or worker.
    """

    def __init__(self, faces: Faces, crop: dict[str, tuple[float, float]] | None, seed: int) -> None:
        self.faces, self.seed = faces, seed
        self.augment = crop and Compose([RandomHorizontalFlip(), RandomResizedCrop(SIDE, **crop)])

    def __getitem__(self, item: tuple[int, np.ndarray]) -> Batch:
        epoch, indices = item
        pictures = np.zeros((len(indices), SIDE, SIDE, 3), np.uint8)
        labels = torch.from_numpy(self.faces.labels[indices])
        for position, index in enumerate(indices):
            try:
                picture = read_picture(os.fsdecode(self.faces.paths[index]))
            except ValueError as error:
                return Batch(torch.from_numpy(pictures), labels, str(error))
            if self.augment:
                with torch.random.fork_rng(devices=[]):
                    chance = np.random.SeedSequence((self.seed, epoch, int(index)))
                    torch.default_generator.manual_seed(int(chance.generate_state(1, np.uint64)[0]))
                    picture = self.augment(Image.fromarray(picture))
            pictures[position] = picture
        return Batch(torch.from_numpy(pictures), labels, "")


class BatchOrder(Sampler):
    """Which pictures are in this process's share of each batch.

    The order follows from the seed and the epoch alone. Set ``epoch`` and ``first_step`` before iterating.

    Parameters
    ----------
    n : int
        Number of pictures.
    batch_size : int
        Pictures of a batch, all processes together; the last one may be smaller.
    seed : int or None
        None keeps the pictures in order.
    rank, world_size : int
        This process's number and how many there are.
    """

    def __init__(self, n: int, batch_size: int, seed: int | None, rank: int = 0, world_size: int = 1) -> None:
        self.n, self.batch_size, self.seed, self.rank, self.world_size = n, batch_size, seed, rank, world_size
        self.epoch = self.first_step = 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return -(-self.n // self.batch_size)

    def size(self, step: int) -> int:
        """Pictures of one batch, all processes together."""
        return min(self.batch_size, self.n - step * self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        order = np.arange(self.n)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        for step in range(self.first_step, len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.epoch, batch[self.rank :: self.world_size]


def batch_loader(batches: FaceBatches, order: BatchOrder, workers: int, *, pinned: bool) -> DataLoader:
    """Batches in order, read ahead by workers that stay from epoch to epoch (0: read in this process).

    Raises
    ------
    FergiError
        If the batches read ahead, of all processes that torchrun started on this machine, do not fit into shared
        memory, where a batch would silently be lost.
    """
    share = -(-order.batch_size // order.world_size)
    ahead = (workers * PREFETCH + 1) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed = ahead * share * SIDE * SIDE * 3
    if workers and SHARED_MEMORY.is_dir() and needed > (free := shutil.disk_usage(SHARED_MEMORY).free):
        raise FergiError(
            f"{workers} workers need {needed / 1e6:.0f} MB of shared memory, and {SHARED_MEMORY} has "
            f"{free / 1e6:.0f} MB free. Choose fewer --workers, or a larger one (docker run --shm-size 1g)."
        )
    return DataLoader(
        batches,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
        timeout=TIMEOUT if workers else 0,
        worker_init_fn=start_worker,
    )
