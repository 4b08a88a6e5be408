"""Prompt, survey, ranking and six scores of every generated image (Section 6.2.3).

Reads   data/<participant>/session_<n>/data.json, image<i>.png    (on request from FERGI's authors)
        preparation/valid_sessions.json, invalid_images.json      (the latter is written if it is missing)
        pretrained_models/        (python -m fergi.weights lists what is there and fetches it)
Writes  preparation/preprocessed_image_data/<participant>.csv
        preparation/preprocessed_image_data/settings.json        checkpoints, libraries and sizes of each score
        preparation/image_scores/<scorer>/scores.csv, settings.json        finished scores, from which a run resumes
Run     python preprocess_image_data.py
        python preprocess_image_data.py --scorers PickScore HPSv2.1      (adds some to those that are finished)
        python preprocess_image_data.py --scorers PickScore+FILE    (tuned: FILE is an adapter of finetune_scorer.py)
        python preprocess_image_data.py --scorer-layouts FILE    (JSON, scorer → sizes: networks of other sizes)
Takes   on two cores half a second to two seconds an image and scorer, and up to 9 GB of memory; a GPU is used if there
        is one.

All sessions and pictures are checked before any network is loaded. Networks are loaded one after the other, each with
all of its weights or not at all. The tables have a column for every scorer that has finished.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

import config
from fergi.dataset import Folders, read_valid_sessions
from fergi.files import FergiError, check_writable, keep_settings, read_json, require, write_json, write_tables
from fergi.image_data import RatedImage, black_image_list, compare_black_images, image_tables, read_image_data
from fergi.processes import choose_device
from fergi.scorers.interface import Scorer
from fergi.scorers.origin import read_table_settings, score_origins, write_table_settings
from fergi.scorers.registry import PAPER_SCORERS, SCORERS, TUNED, column, read_layouts, scorer_class
from fergi.scorers.scoring import Finished, read_finished, score_images, write_finished
from fergi.script import add_device_argument, add_workers_argument, argument_parser, run

SAVE_SECONDS = 30.0  # between writes of finished scores


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--scorers",
        nargs="+",
        default=PAPER_SCORERS,
        metavar="NAME",
        help=f"among {', '.join(SCORERS)}; NAME+FILE with the adapter of finetune_scorer.py (default: the paper's six)",
    )
    parser.add_argument(
        "--scorer-layouts",
        type=Path,
        metavar="FILE",
        help="JSON with the sizes of scorers whose weights are not the official ones (default: official sizes of all)",
    )
    parser.add_argument(
        "--unreliable-issues",
        nargs="*",
        metavar="PARTICIPANT",
        help="whose answers on issues stay empty (default: the paper's "
        f"{', '.join(config.UNRELIABLE_ISSUES)}, but nobody of a study of one's own)",
    )
    add_device_argument(parser)
    parser.add_argument(
        "--batch-size", type=int, default=16, help="images that a network takes at once (default: %(default)s)"
    )
    add_workers_argument(parser, "threads that decode images")
    parser.add_argument("--redo", action="store_true", help="score again what the chosen scorers have finished")
    parser.add_argument("--replace", action="store_true", help="replace image tables that this script did not make")
    chosen = parser.parse_args(arguments)
    if chosen.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    chosen.scorers = list(dict.fromkeys(chosen.scorers))
    return chosen


def unreliable_participants(folders: Folders, named: Sequence[str] | None, participants: Sequence[str]) -> list[str]:
    """Whose answers on issues stay empty.

    Unless they are named, those of the paper's participants of whom that is known; ``consent.json`` shows that a
    participant of the same number is of a study of one's own.
    """
    if named is None:
        paper = [participant for participant in config.UNRELIABLE_ISSUES if participant in participants]
        return [participant for participant in paper if not (folders.data / participant / "consent.json").is_file()]
    unknown = [participant for participant in named if participant not in participants]
    if unknown:
        raise FergiError(
            f"{len(unknown)} of {len(named)} participants of --unreliable-issues are not in valid_sessions.json "
            f"(first: {unknown[0]}). Name participants that take part."
        )
    return list(named)


def check_outputs(folders: Folders, participants: Sequence[str], *, replace: bool) -> None:
    """Stop if the folders cannot be written, or if other tables are there and ``replace`` is not chosen."""
    there = [who for who in participants if (folders.image_tables / f"{who}.csv").is_file()]
    if there and not replace and read_table_settings(folders, there) is None:
        raise FergiError(
            f"{len(there)} of {len(participants)} tables in {folders.image_tables} were not made by this script, or "
            f"were changed since (first: {there[0]}.csv). Choose --replace to lose them, or another --root."
        )
    check_writable(folders.image_scores)
    check_writable(folders.image_tables)


def check_weights(scorers: Sequence[type[Scorer]], root: Path) -> None:
    """Stop unless all weight files of the scorers are there."""
    files = {file.name: file.under(root) for scorer in scorers for file in scorer.files}
    missing = [name for name, path in files.items() if not path.is_file()]
    advice = f"Fetch what is missing with: python -m fergi.weights fetch {' '.join(missing)}"
    require(files.values(), "weight files", advice)


def write_settings(folders: Folders, scorer: type[Scorer], settings: dict[str, str], *, redo: bool) -> None:
    """Write the settings of a scorer's scores, or stop if there are scores with other settings."""
    folder = folders.image_scores / scorer.name
    path, scores = folder / "settings.json", folder / "scores.csv"
    # Scores without settings could be of any checkpoint; settings without scores restrict nothing.
    if redo or not path.is_file() or not read_finished(scores):
        scores.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    advice = "Use the same files, sizes, libraries and device, or score again with --scorers"
    keep_settings(settings, path, f"{advice} {scorer.name} --redo.")
    for file in scorer.files:
        if file.sha256 not in (None, settings[file.path]):
            print(f"Warning: {scorer.name}: {file.path} is not the published file.")


def unscored(images: Sequence[RatedImage], finished: Finished) -> list[RatedImage]:
    """The images that are not black and have no finished score of their prompt and picture."""
    return [image for image in images if not image.black and finished.get(image.key, ("",))[0] != image.fingerprint]


def finish_scores(
    scorer: type[Scorer],
    layout: dict[str, Any] | None,
    device: torch.device,
    images: Sequence[RatedImage],
    folders: Folders,
    chosen: argparse.Namespace,
) -> None:
    """Score what has no score yet, and write finished scores now and then and at the end in any case."""
    path = folders.image_scores / scorer.name / "scores.csv"
    finished = read_finished(path)
    todo = unscored(images, finished)
    n_shown = sum(not image.black for image in images)
    print(f"{scorer.name}: {n_shown - len(todo)} images scored already, {len(todo)} to do on {device}.")
    if not todo:
        return
    scores = score_images(
        scorer(folders.root, device, layout),
        [image.prompt for image in todo],
        [image.path for image in todo],
        batch_size=chosen.batch_size,
        workers=chosen.workers,
    )
    written = time.monotonic()
    try:
        for score, image in zip(tqdm(scores, scorer.name, len(todo), unit="image", disable=None), todo, strict=True):
            finished[image.key] = (image.fingerprint, score)
            if time.monotonic() - written > SAVE_SECONDS:
                write_finished(finished, path)
                written = time.monotonic()
    finally:
        write_finished(finished, path)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def write_image_tables(folders: Folders, images: Sequence[RatedImage]) -> None:
    """Write the tables with a column for every scorer that has finished, and say where the scores come from."""
    scores, settings = {}, {}
    tuned = sorted(
        path.name for path in folders.image_scores.glob(f"*{TUNED}*") if path.name.split(TUNED)[0] in SCORERS
    )
    for name in (*SCORERS, *tuned):
        folder = folders.image_scores / name
        finished = read_finished(folder / "scores.csv")
        if (folder / "settings.json").is_file() and not unscored(images, finished):
            scores[column(name)] = {key: score for key, (_, score) in finished.items()}
            settings[column(name)] = read_json(folder / "settings.json", "Score again with --redo.")
    tables = image_tables(images, scores)
    write_tables({folders.image_tables / f"{participant}.csv": table for participant, table in tables.items()})
    write_table_settings(folders, tables, settings)
    for sentence in score_origins(folders, tables, pd.concat(tables.values())[list(scores)]):
        print(sentence)
    n_shown = sum(map(len, tables.values()))
    print(f"Wrote {len(tables)} tables with {n_shown} images and {len(scores)} scores to {folders.image_tables}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything, score with one scorer after the other, write the tables."""
    chosen = parse(arguments)
    folders = Folders(chosen.root)
    layouts = read_layouts(chosen.scorer_layouts) if chosen.scorer_layouts else {}
    scorers = [scorer_class(name) for name in chosen.scorers]
    sessions = read_valid_sessions(folders)
    unreliable = unreliable_participants(folders, chosen.unreliable_issues, list(sessions))
    images = read_image_data(folders, sessions, unreliable_issues=unreliable)
    compare_black_images(folders, sessions, images)
    check_outputs(folders, list(sessions), replace=chosen.replace)
    device = choose_device(chosen.device)
    check_weights(scorers, folders.root)
    n_black, n_sessions = sum(image.black for image in images), sum(map(len, sessions.values()))
    print(f"{len(images)} images of {n_sessions} sessions of {len(sessions)} participants, {n_black} of them black.")
    if not folders.black_images.is_file():
        write_json(black_image_list(sessions, images), folders.black_images)
        print(f"Wrote {folders.black_images}.")
    for scorer in scorers:
        settings = scorer.settings(folders.root, device, layouts.get(scorer.name.split(TUNED)[0]))
        write_settings(folders, scorer, settings, redo=chosen.redo)
    for scorer in scorers:
        finish_scores(scorer, layouts.get(scorer.name.split(TUNED)[0]), device, images, folders, chosen)
    write_image_tables(folders, images)


if __name__ == "__main__":
    run(main)
