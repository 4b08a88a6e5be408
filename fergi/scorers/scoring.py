"""Scores of many images by one scorer, in batches, and the table of those that are finished."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fergi.files import FergiError, write_table
from fergi.pictures import open_picture
from fergi.scorers.interface import Scorer

COLUMNS = ["participant", "session_index", "image_index", "input_sha256", "score"]

# Participant, session and image → the SHA-256 of prompt and picture, and their score.
Finished = dict[tuple[str, int, int], tuple[str, float]]


def read_finished(path: Path) -> Finished:
    """Finished scores, to the last bit; none if the file does not exist.

    Raises
    ------
    FergiError
        If the file is not a table of that form.
    """
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, dtype={"participant": str, "score": float}, float_precision="round_trip")[COLUMNS]
    except (ValueError, KeyError) as error:
        raise FergiError(f"{path} is not a table of finished scores. Remove it, or score again with --redo.") from error
    return {(who, session, image): (sha, score) for who, session, image, sha, score in table.itertuples(index=False)}


def write_finished(finished: Finished, path: Path) -> None:
    """Write finished scores, all or nothing."""
    write_table(pd.DataFrame([(*key, *found) for key, found in sorted(finished.items())], columns=COLUMNS), path)


def score_images(
    scorer: Scorer, prompts: Sequence[str], paths: Sequence[Path], *, batch_size: int, workers: int
) -> Iterator[float]:
    """Scores of images, in their order; the next batch's pictures are decoded while the network works.

    The pictures were decoded once before, when all of them were checked. Kept decoded they would take 2 GB for the
    paper's 2,880; decoding one again takes 6 ms beside the network's 500.

    Parameters
    ----------
    scorer : Scorer
        Loaded.
    prompts, paths : sequence
        Images of a session should follow one another: a prompt is read once for those in the same batch.
    batch_size : int
        Images that the network takes at once.
    workers : int
        Threads that decode.

    Raises
    ------
    FergiError
        If a picture has vanished or the device's memory is too small.
    """
    with ThreadPoolExecutor(workers) as threads:

        def prepare(begin: int) -> Iterator[Tensor]:
            return threads.map(lambda path: scorer.pixels(open_picture(path)), paths[begin : begin + batch_size])

        following = prepare(0)
        for begin in range(0, len(paths), batch_size):
            pictures, following = following, prepare(begin + batch_size)
            try:
                pixels = list(pictures)
                yield from scorer.score_pixels(prompts[begin : begin + batch_size], pixels).tolist()
            except ValueError as error:
                raise FergiError(f"{error}. It was readable when the images were checked; run again.") from error
            except torch.OutOfMemoryError as error:
                raise FergiError(
                    f"{scorer.name} with {len(pixels)} images at once does not fit into the memory of "
                    f"{scorer.device}. Choose a smaller --batch-size, or --device cpu; finished scores are kept."
                ) from error
