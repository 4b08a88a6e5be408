"""Scores of many images by one scorer, in batches over sessions, kept as they come."""

import csv
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from fergi.files import FergiError, replacing
from fergi.image_data import RatedImage
from fergi.pictures import open_picture
from fergi.scorers.interface import Scorer

HEADER = ["participant", "session_index", "image_index", "input_sha256", "score"]
SAVE_SECONDS = 30.0

# Participant, session and image → the input's fingerprint and its score.
Kept = dict[tuple[str, int, int], tuple[str, float]]


def read_kept(path: Path) -> Kept:
    """Finished scores, to the last bit; none if the file does not exist.

    Raises
    ------
    FergiError
        If the file is not of that form.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if rows[0] != HEADER:
            raise ValueError("header")
        return {(who, int(session), int(image)): (sha, float(score)) for who, session, image, sha, score in rows[1:]}
    except (ValueError, IndexError) as error:
        raise FergiError(f"{path} is not a table of finished scores. Remove it, or score again with --redo.") from error


def write_kept(kept: Kept, path: Path) -> None:
    """Write finished scores, all or nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows([*key, sha, repr(score)] for key, (sha, score) in sorted(kept.items()))
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def unscored(images: Sequence[RatedImage], kept: Mapping[tuple[str, int, int], tuple[str, float]]) -> list[RatedImage]:
    """The images that are not black and have no finished score of their prompt and picture."""
    return [image for image in images if not image.black and kept.get(image.key, ("", 0.0))[0] != image.fingerprint]


def score_images(
    scorer: Scorer,
    images: Sequence[RatedImage],
    *,
    batch_size: int,
    workers: int,
    keep: Callable[[list[tuple[RatedImage, float]]], None],
) -> None:
    """Score images; pictures of the next batch are decoded while the network works.

    Parameters
    ----------
    scorer : Scorer
        Loaded.
    images : sequence of RatedImage
        In their order, so that those of a session share a batch and the prompt is read once.
    batch_size : int
        Images that the network takes at once.
    workers : int
        Threads that decode.
    keep : callable
        Takes each batch's images with their scores.

    Raises
    ------
    FergiError
        If a picture has vanished or the device's memory is too small.
    """

    def prepare(image: RatedImage) -> Tensor:
        return scorer.pixels(open_picture(image.path))

    batches = [images[begin : begin + batch_size] for begin in range(0, len(images), batch_size)]
    with ThreadPoolExecutor(workers) as threads:
        for batch, futures in _one_ahead(batches, lambda batch: [threads.submit(prepare, image) for image in batch]):
            try:
                pixels = [future.result() for future in futures]
                scores = scorer.score_pixels([image.prompt for image in batch], pixels)
            except ValueError as error:
                raise FergiError(f"{error}. It was readable when the images were checked; run again.") from error
            except torch.OutOfMemoryError as error:
                raise FergiError(
                    f"{scorer.name} with {len(batch)} images at once does not fit into the memory of {scorer.device}. "
                    "Choose a smaller --batch-size, or --device cpu; finished scores are kept."
                ) from error
            keep([(image, float(score)) for image, score in zip(batch, scores, strict=True)])


def _one_ahead(
    batches: Sequence[Sequence[RatedImage]], submit: Callable[[Sequence[RatedImage]], list[Future]]
) -> Iterator[tuple[Sequence[RatedImage], list[Future]]]:
    """Each batch with its futures, the next one's begun before."""
    waiting: list[list[Future]] = []
    for place, batch in enumerate(batches):
        if not waiting:
            waiting.append(submit(batch))
        if place + 1 < len(batches):
            waiting.append(submit(batches[place + 1]))
        yield batch, waiting.pop(0)


class Keeper:
    """Collects scores and writes them now and then, and at the end in any case.

    Parameters
    ----------
    path : Path
        Of the table of finished scores.
    kept : dict
        What is finished so far; grows.
    """

    def __init__(self, path: Path, kept: Kept) -> None:
        self.path, self.kept = path, kept
        self.written = time.monotonic()

    def __call__(self, scored: list[tuple[RatedImage, float]]) -> None:
        self.kept.update({image.key: (image.fingerprint, score) for image, score in scored})
        if time.monotonic() - self.written > SAVE_SECONDS:
            self.write()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def write(self) -> None:
        """Write all of them."""
        write_kept(self.kept, self.path)
        self.written = time.monotonic()
