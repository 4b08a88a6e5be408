"""Synthesise faces with chosen AUs: a table of texts and AU intensities, or people to imitate → labelled pictures.

A face generator of train_face_generator.py makes a picture for each row, after SynFER (arXiv 2410.09865). The labels
are the intensities that were asked for; docs/face_generation.md says how far pictures follow them.

Reads   --generator NAME_OR_DIR: in face_generators/, with au_adapter.safetensors and settings.json
        --table FILE: CSV with the column prompt and any of AU1 to AU26 (0-5), expression, n (pictures of the row),
        seed, person (its rows become one subject). A row with some AUs has the others at 0; one without any tells none
        --like FOLDER: in place of a table, aligned faces or feature files, whose AUs are drawn from
        --guidance: a classifier of transformers, whose classes the column expression names
        --layout: a picture, or a folder from which each seed draws one
Writes  into --out, synthesised_faces/<generator> unless it is given, in DISFA's layout:
        Images_LeftCamera/SYN0001/<frame>.png, ActionUnit_Labels/SYN0001/SYN0001_au<n>.txt (rounded to whole numbers)
        synthesised.csv      what was asked for, and each picture's seed
        settings.json        what the pictures were made with
        aligned/, index.csv  if the generator makes aligned faces: what stage 3 reads
Run     python synthesise_faces.py --generator faces --table faces.csv
        python synthesise_faces.py --generator faces --like preparation/DISFA_faces --number 10000
        python synthesise_faces.py --generator faces --table faces.csv --guidance DIR_OR_HUB_NAME --layout DIR
        then    python preprocess_DISFA.py --disfa synthesised_faces/faces --cameras Left --out DIR
        and     python DISFAwithPlus_train_model.py --more DIR   (of aligned faces: --more synthesised_faces/faces)
Takes   two evaluations of the UNet a step and picture, three and a gradient where it is guided.

Subjects are called SYN0001 and so on, and every picture says in its text chunks that it is synthetic, with what it was
made with. The same table and seed give the same pictures. An interrupted run resumes: run the same command again.
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import config
from fergi.action_units.faces_dataset import LABEL_COLUMNS
from fergi.face_generation.classifier import ImageClassifier
from fergi.face_generation.disfa_folder import TABLE, DisfaFolder
from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.guidance import Guidance
from fergi.face_generation.inversion import Layouts, round_trip_error
from fergi.face_generation.requests import each_picture, fingerprint, like, read_requests
from fergi.face_generation.sampling import sample
from fergi.face_generation.trained import find_generator, open_generator
from fergi.files import FergiError
from fergi.finetuning.scorer_training import explained
from fergi.processes import choose_device
from fergi.script import add_device_argument, argument_parser, at_least, run

DEFAULTS = config.FACE_SYNTHESIS


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--generator", required=True, metavar="NAME_OR_DIR", help="of train_face_generator.py")
    shown = "another base model that the adapter fits (default: the one that it was trained on)"
    parser.add_argument("--pipeline", metavar="DIR_OR_HUB_NAME", help=shown)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--table", type=Path, metavar="FILE", help="what to synthesise, see above")
    wanted.add_argument("--like", type=Path, metavar="FOLDER", help="people whose AUs are drawn from, see above")
    parser.add_argument("--number", type=at_least(1), metavar="N", help="of pictures, with --like")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: synthesised_faces/<generator>")
    numbers = {
        "steps": (1, int, "of DDIM"),
        "scale": (1, float, "of classifier-free guidance; 1 is none"),
        "adapter_scale": (0, float, "how much AUs count; 1 as trained, 0 not at all"),
        "seed": (0, int, "of all seeds that the table does not give"),
        "guidance_step": (0, float, "how far a token of the text moves in a guided step"),
        "guidance_first": (0, float, "share of the steps before the first guided one"),
        "layout_share": (0, float, "share of the steps that a layout is inverted"),
    }
    for name, (smallest, kind, shown) in numbers.items():
        number, option = at_least(smallest, kind), f"--{name.replace('_', '-')}"
        parser.add_argument(
            option, type=number, default=DEFAULTS[name], metavar="N", help=f"{shown} (default: %(default)s)"
        )
    parser.add_argument("--guidance", metavar="DIR_OR_HUB_NAME", help="a classifier that guides, see above")
    parser.add_argument("--layout", type=Path, metavar="FILE_OR_DIR", help="where pictures start, see above")
    add_device_argument(parser)
    shown = "of the base model (default: bfloat16 on a GPU, float32 on a CPU)"
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help=shown)
    parser.add_argument("--batch-size", type=at_least(1), default=8, metavar="N", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    if (chosen.like is None) != (chosen.number is None):
        parser.error("--like and --number go together")
    if chosen.guidance_first >= 1 or not 0 < chosen.layout_share <= 1:
        parser.error("--guidance-first must be below 1, and --layout-share above 0 and at most 1")
    return chosen


def wanted_pictures(chosen: argparse.Namespace) -> tuple[pd.DataFrame, Layouts | None]:
    """One row a picture (see ``each_picture``), and the layouts that they start from, if there are any."""
    if chosen.table:
        requests = read_requests(chosen.table)
    else:
        requests = like(chosen.like, chosen.number, chosen.seed, config.FRAME_LIMITS)
    pictures = each_picture(requests, chosen.seed)
    if not chosen.layout:
        return pictures, None
    layouts = Layouts(chosen.layout, pictures["seed"].tolist(), steps=chosen.steps, share=chosen.layout_share)
    if not chosen.layout.is_dir() and (several := int((requests["n"] > 1).sum())):
        raise FergiError(
            f"{several} of {len(requests)} rows want several pictures, and from one layout they would be the same. "
            "Name a folder of pictures with --layout, or leave n at 1."
        )
    return pictures.assign(layout=layouts.names), layouts


def make(
    chosen: argparse.Namespace,
    generator: FaceGenerator,
    classifier: ImageClassifier | None,
    layouts: Layouts | None,
    output: DisfaFolder,
) -> None:
    """Make the pictures that are missing, in the batches of a run that was not interrupted."""
    missing, start = output.missing(), time.monotonic()
    n_missing = int(missing.sum())
    print(f"{len(missing)} pictures of {generator.resolution} pixels, {len(missing) - n_missing} of them done before.")
    with tqdm(total=n_missing, unit="picture", disable=None) as bar:
        for rows in np.split(np.arange(len(missing)), range(chosen.batch_size, len(missing), chosen.batch_size)):
            todo = rows[missing[rows]]
            if not len(todo):
                continue
            batch = output.pictures.iloc[rows]
            guide = (
                Guidance(classifier.guide(batch["expression"]), step=chosen.guidance_step, first=chosen.guidance_first)
                if classifier
                else None
            )
            made = sample(
                generator,
                batch["prompt"].tolist(),
                generator.intensities(batch[list(LABEL_COLUMNS)].to_numpy(float)),
                batch["seed"].tolist(),
                steps=chosen.steps,
                scale=chosen.scale,
                guide=guide,
                layout=layouts.of(generator, rows) if layouts else None,
            )
            for row in todo:
                output.write_picture(row, made[row - rows[0]])
            bar.update(len(todo))
    if n_missing:
        print(f"Made {n_missing} pictures, {n_missing / (time.monotonic() - start):.2f} a second.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything that is needed, make the pictures, label them."""
    chosen = parse(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    device = choose_device(chosen.device)
    precision = chosen.precision or ("bfloat16" if device.type == "cuda" else "float32")
    pictures, layouts = wanted_pictures(chosen)
    classifier = ImageClassifier(chosen.guidance, device) if chosen.guidance else None
    if classifier:
        classifier.check(pictures["expression"])
    folder = find_generator(chosen.generator, chosen.root)
    generator, settings, alignment = open_generator(folder, device, precision=precision, pipeline=chosen.pipeline)
    generator.set_scale(chosen.adapter_scale)
    settings |= {name: getattr(chosen, name) for name in ("steps", "scale", "adapter_scale")}
    settings |= {"pictures": fingerprint(pictures)} | (layouts.settings if layouts else {})
    if classifier:
        settings |= classifier.settings | {name: getattr(chosen, name) for name in ("guidance_step", "guidance_first")}
    output = DisfaFolder(chosen.out or chosen.root / "synthesised_faces" / folder.name, pictures, settings, alignment)
    with explained(generator, "Choose a smaller --batch-size"):
        if layouts:
            error = round_trip_error(
                generator, layouts.pixels(generator, 0), steps=chosen.steps, share=chosen.layout_share
            )
            print(f"Without text and AUs, sampling returns to the first layout within {error:.1f} of 255 grey levels.")
        make(chosen, generator, classifier, layouts, output)
    output.write_labels()
    people = pictures["subject"].nunique()
    print(f"Wrote {output.folder}: {len(pictures)} pictures of {people} subjects, labels, {TABLE}.")
    print(output.advice)


if __name__ == "__main__":
    run(main)
