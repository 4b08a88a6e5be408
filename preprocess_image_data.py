"""Prompt, survey, ranking and six scores of every generated image (Section 6.2.3).

Reads   data/<participant>/session_<n>/data.json, image<i>.png    (on request from FERGI's authors)
        preparation/valid_sessions.json, invalid_images.json      (the latter is written if it is missing)
        pretrained_models/        (python -m fergi.weights lists what is there and fetches it)
Writes  preparation/preprocessed_image_data/<participant>.csv
        preparation/preprocessed_image_data/scores.json    checkpoints, library versions and settings of each score
        preparation/image_scores/<scorer>.csv, .json       finished scores: an interrupted run goes on
Run     python preprocess_image_data.py
        python preprocess_image_data.py --scorers PickScore HPSv2.1      (some, added to those that are finished)
        python preprocess_image_data.py --scorer-layouts FILE    (JSON, scorer → sizes: networks that are not official)
Takes   on two cores half a second to two seconds an image and scorer, and up to 9 GB of memory; a GPU is used if there
        is one.

All sessions and pictures are checked before any network is loaded. Networks are loaded one after the other, with all
of their published weights or not at all. The tables have a column for every scorer that has finished.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

import config
from fergi.dataset import Folders, read_valid_sessions
from fergi.files import FergiError, check_writable, keep_settings, read_json, require, write_json, write_table
from fergi.image_data import black_image_list, compare_black_images, image_tables, read_image_data
from fergi.processes import choose_device
from fergi.scorers.record import describe_scores, made_here, write_score_record
from fergi.scorers.registry import PAPER_SCORERS, SCORERS, read_layouts, scorer_class
from fergi.scorers.scoring import Keeper, read_kept, score_images, unscored
from fergi.script import add_device_argument, add_workers_argument, argument_parser, run


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--scorers", nargs="+", choices=tuple(SCORERS), default=PAPER_SCORERS, help="default: the six of the paper"
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
        help="whose answers on issues stay empty (default: those of "
        f"{', '.join(config.UNRELIABLE_ISSUES)} who take part)",
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


def unreliable_participants(named: Sequence[str] | None, participants: Sequence[str]) -> list[str]:
    """Whose answers on issues stay empty."""
    if named is None:
        return [participant for participant in config.UNRELIABLE_ISSUES if participant in participants]
    unknown = [participant for participant in named if participant not in participants]
    if unknown:
        raise FergiError(
            f"{len(unknown)} of {len(named)} participants of --unreliable-issues are not in valid_sessions.json "
            f"(first: {unknown[0]}). Name participants that take part."
        )
    return list(named)


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything, score with one scorer after the other, write the tables."""
    chosen = parse(arguments)
    folders = Folders(chosen.root)
    layouts = read_layouts(chosen.scorer_layouts) if chosen.scorer_layouts else {}
    sessions = read_valid_sessions(folders)
    unreliable = unreliable_participants(chosen.unreliable_issues, list(sessions))
    images = read_image_data(folders, sessions, unreliable_issues=unreliable)
    compare_black_images(folders, sessions, images)
    there = [who for who in sessions if (folders.image_tables / f"{who}.csv").is_file()]
    if there and not chosen.replace and made_here(folders, there) is None:
        raise FergiError(
            f"{len(there)} of {len(sessions)} tables in {folders.image_tables} were not made by this script, or were "
            f"changed since (first: {there[0]}.csv). Choose --replace to lose them, or another --root."
        )
    device = choose_device(chosen.device)
    scorers = {name: scorer_class(name) for name in chosen.scorers}
    files = dict.fromkeys(file for scorer in scorers.values() for file in scorer.files)
    missing = [file.name for file in files if not file.under(folders.root).is_file()]
    require(
        [file.under(folders.root) for file in files],
        "weight files",
        f"Fetch what is missing with: python -m fergi.weights fetch {' '.join(missing)}",
    )
    check_writable(folders.image_scores)
    check_writable(folders.image_tables)
    n_black = sum(image.black for image in images)
    n_sessions = sum(map(len, sessions.values()))
    print(f"{len(images)} images of {n_sessions} sessions of {len(sessions)} participants, {n_black} of them black.")
    if not folders.black_images.is_file():
        write_json(black_image_list(sessions, images), folders.black_images)
        print(f"Wrote {folders.black_images}.")

    started: dict[str, dict] = {}
    for name, scorer in scorers.items():
        record = folders.image_scores / f"{name}.json"
        made_with = scorer.record(folders.root, device)
        if name in layouts:
            made_with["settings"]["layout"] = layouts[name]
        table = record.with_suffix(".csv")
        # Scores without a record could be of any checkpoint, and a record without scores binds nobody.
        if chosen.redo or not record.is_file() or not read_kept(table):
            for each in (table, record):
                each.unlink(missing_ok=True)
        advice = f"Use the same files, sizes, libraries and device, or score again with --scorers {name} --redo."
        keep_settings(made_with, record, advice)
        for each in made_with["checkpoints"]:
            if each["is_published_file"] is False and each["file"] not in started:
                print(f"Warning: {each['file']} is not the published file; its SHA-256 is {each['sha256']}.")
            started[each["file"]] = each
    for name, scorer in scorers.items():
        path = folders.image_scores / f"{name}.csv"
        kept = read_kept(path)
        todo = unscored(images, kept)
        print(f"{name}: {len(images) - n_black - len(todo)} images scored already, {len(todo)} to do on {device}.")
        if todo:
            sizes = (layouts[name],) if name in layouts else ()
            network = scorer(folders.root, device, *sizes)
            with Keeper(path, kept) as keep, tqdm(total=len(todo), unit="image", desc=name, disable=None) as bar:

                def scored(batch: list, keep: Keeper = keep, bar: tqdm = bar) -> None:
                    keep(batch)
                    bar.update(len(batch))

                score_images(network, todo, batch_size=chosen.batch_size, workers=chosen.workers, keep=scored)
            del network
            if device.type == "cuda":
                torch.cuda.empty_cache()

    scores, records = {}, {}
    for name in SCORERS:
        kept, record = read_kept(folders.image_scores / f"{name}.csv"), folders.image_scores / f"{name}.json"
        if record.is_file() and not unscored(images, kept):
            column = SCORERS[name].column
            scores[column] = {key: score for key, (_, score) in kept.items()}
            records[column] = read_json(record, "Score again with --redo.")
    tables = image_tables(images, scores)
    folders.score_record.unlink(missing_ok=True)
    for participant, table in tables.items():
        write_table(table, folders.image_tables / f"{participant}.csv")
    write_score_record(folders, tables, records)
    shown = [image.key for image in images if not image.black]
    everything = pd.DataFrame({column: [values[key] for key in shown] for column, values in scores.items()})
    for sentence in describe_scores(folders, tables, everything):
        print(sentence)
    print(f"Wrote {len(tables)} tables with {len(shown)} images and {len(scores)} scores to {folders.image_tables}.")


if __name__ == "__main__":
    run(main)
