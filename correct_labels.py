"""Correct labels of faces: where estimates disagree with a label, it becomes their mean (after SynFER).

The first estimator is a small head on the features of a face generator's frozen UNet. It is trained here on labelled
pictures, once. AU networks of stage 3 may be named beside it.

Reads   --faces FOLDER: aligned faces (index.csv, settings.json, pictures), such as stage 1 or synthesise_faces.py write
        --generator NAME_OR_DIR: in face_generators/, of train_face_generator.py
        --labelled FOLDER...: other faces, with labels to train the head on (10,000 of them at most), if there is none
        --checkpoint FILE --network NAME: an AU network of stage 3; both several times for several networks
Writes  into --head, <generator>/label_head/ unless it is given: label_head.safetensors, settings.json
        into --out, a copy of the folder (pictures are hard links):
        index.csv            with the corrected labels; ActionUnit_Labels/ too, if the folder has DISFA's label files
        label_changes.csv    each label that was changed: picture, before, after, and every estimate
        settings.json        the folder's, and what the labels were corrected with
Run     python correct_labels.py --faces FOLDER --generator faces --out DIR --labelled preparation/DISFA_faces
        python correct_labels.py --faces FOLDER --generator faces --out DIR --checkpoint FILE --network ir50
Takes   one pass through the UNet a picture, and a minute for the head on one core; three seconds per 1,000 drawn faces
        of 64 pixels on one core.

A label stays as it is unless the mean of all estimates, without the label, is further from it than --threshold (in
units of intensity, of 5). What is not labelled stays so. An expression changes if another one is more probable than it
by more than --expression-threshold; only the head estimates expressions. A head agrees with the labels that it learned,
so it must be trained on other people. An interrupted run resumes: run the same command again.
"""

import argparse
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from tqdm import tqdm

import config
from fergi.action_units.estimator import AUEstimator
from fergi.action_units.faces_dataset import INDEX, LABEL_COLUMNS, read_picture
from fergi.action_units.network import NETWORKS
from fergi.face_generation.correction import (
    CHANGES,
    changed_expressions,
    changed_intensities,
    check_expressions,
    correct,
    correct_expressions,
    ensemble_mean,
    write_corrected,
)
from fergi.face_generation.pictures import LabelledPictures, read_pictures
from fergi.face_generation.pseudo_labels import (
    HEAD_FILE,
    STATE,
    FaceFeatures,
    HeadSettings,
    LabelHead,
    load_head,
    save_head,
    train_head,
)
from fergi.face_generation.trained import find_generator, open_generator
from fergi.features import SETTINGS_FILE
from fergi.files import FergiError, check_writable, keep_settings, read_json, sha256
from fergi.finetuning.scorer_training import explained
from fergi.processes import choose_device
from fergi.script import add_device_argument, add_workers_argument, argument_parser, at_least, run

ESTIMATES = "estimates.npy"  # of an unfinished run
PART = 256  # pictures that are estimated together
NOT_DONE = np.inf
FACES_ADVICE = "Name a folder of aligned faces with --faces; DISFA's own layout is aligned by preprocess_DISFA.py."


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--faces", required=True, type=Path, metavar="FOLDER", help="whose labels are corrected")
    parser.add_argument("--generator", required=True, metavar="NAME_OR_DIR", help="of train_face_generator.py")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to write the corrected copy")
    shown = "labelled faces to train the head on"
    parser.add_argument("--labelled", nargs="+", type=Path, default=[], metavar="FOLDER", help=shown)
    parser.add_argument("--head", type=Path, metavar="DIR", help="of the head (default: <generator>/label_head)")
    shown = "an AU network of stage 3, with --network; may be repeated"
    parser.add_argument("--checkpoint", action="append", type=Path, default=[], metavar="FILE", help=shown)
    shown = "the layout of each --checkpoint, in the same order; one for all is enough"
    parser.add_argument("--network", action="append", choices=tuple(NETWORKS), default=[], help=shown)
    shown = "intensity units beyond which a label is changed (default: %(default)s)"
    limits = config.LABEL_THRESHOLDS
    parser.add_argument("--threshold", type=at_least(0.5, float), default=limits["intensity"], metavar="D", help=shown)
    shown = "difference of probabilities beyond which an expression is changed (default: %(default)s)"
    number = at_least(0, float)
    parser.add_argument("--expression-threshold", type=number, default=limits["probability"], metavar="P", help=shown)
    add_device_argument(parser)
    shown = "of the base model (default: bfloat16 on a GPU, float32 on a CPU)"
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help=shown)
    add_workers_argument(parser, "threads that decode pictures")
    chosen = parser.parse_args(arguments)
    chosen.network = chosen.network * len(chosen.checkpoint) if len(chosen.network) == 1 else chosen.network
    if len(chosen.network) != len(chosen.checkpoint):
        parser.error("--checkpoint and --network go together, one for each or one --network for all")
    return chosen


def read_given(chosen: argparse.Namespace) -> tuple[LabelledPictures, LabelledPictures | None]:
    """The faces, and those to train the head on, if there are any; both with labels."""
    out, faces = chosen.out.resolve(), chosen.faces.resolve()
    if out.is_relative_to(faces):
        raise FergiError(f"{chosen.out} is inside {chosen.faces}, where nothing is changed. Choose another --out.")
    if faces in {each.resolve() for each in chosen.labelled}:
        raise FergiError(
            f"{chosen.faces} is also in --labelled: a head that learned these labels would agree with them. Train it "
            "on other people, or correct other faces."
        )
    read_json(chosen.faces / SETTINGS_FILE, FACES_ADVICE)
    given, _ = read_pictures([chosen.faces])
    if np.isnan(given.intensities).all() and not given.expressions.any():
        raise FergiError(f"None of the {len(given)} pictures of {chosen.faces} has a label to correct. {FACES_ADVICE}")
    labelled = at_most(config.LABEL_HEAD_PICTURES, read_pictures(chosen.labelled)[0]) if chosen.labelled else None
    if labelled and np.isnan(labelled.intensities).all() and not labelled.expressions.any():
        raise FergiError(f"None of the {len(labelled)} pictures to train on has a label. Name others with --labelled.")
    return given, labelled


def at_most(n: int, pictures: LabelledPictures) -> LabelledPictures:
    """So many of the pictures, drawn at random but always the same."""
    rows = np.sort(np.random.default_rng(0).permutation(len(pictures))[:n])
    rest = (values[rows] for name, values in vars(pictures).items() if name != "pictures")
    return LabelledPictures(tuple(pictures.pictures[row] for row in rows), *rest)


def array_in_file(file: Path, kind: type, shape: tuple[int, int], option: str) -> tuple[np.ndarray, bool]:
    """An array to work in, and whether it is new; FergiError, naming an option, if the disk has no room for it."""
    if file.exists():
        return open_memmap(file, "r+"), False
    needed, free = math.prod(shape) * np.dtype(kind).itemsize, shutil.disk_usage(file.parent).free
    if needed > free:
        raise FergiError(
            f"{file} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Make room or choose another "
            f"{option}."
        )
    return open_memmap(file, "w+", kind, shape), True


def open_networks(chosen: argparse.Namespace, faces: LabelledPictures) -> dict[str, tuple[AUEstimator, np.ndarray]]:
    """The AU networks by the names of their files, each with the AUs that it was trained on, bool, shape (12,)."""
    if chosen.checkpoint:
        try:
            read_picture(faces.pictures[0].source)
        except ValueError as error:
            raise FergiError(
                f"{error}, as AU networks take them. Leave out --checkpoint, or align the faces."
            ) from error
    networks: dict[str, tuple[AUEstimator, np.ndarray]] = {}
    for checkpoint, network in zip(chosen.checkpoint, chosen.network, strict=True):
        name = checkpoint.stem if checkpoint.stem not in ("head", *networks) else f"{checkpoint.stem} {len(networks)}"
        there, trained = checkpoint.with_name(SETTINGS_FILE), np.ones(len(LABEL_COLUMNS), bool)
        if there.is_file():
            counts = read_json(there, "Remove it.")
            names = [f"training labels of {unit} by intensity" for unit in LABEL_COLUMNS]
            trained = np.array([any(counts.get(name, [1])) for name in names])
        networks[name] = AUEstimator(checkpoint, network, choose_device(chosen.device)), trained
    return networks


def make_head(
    chosen: argparse.Namespace, folder: Path, features: FaceFeatures, labelled: LabelledPictures | None
) -> LabelHead:
    """The head in a folder; trained first, if it is not there."""
    if labelled is None:
        return load_head(folder, features)
    check_writable(folder, "--head")
    options = HeadSettings(**config.LABEL_HEAD)
    settings = features.settings | asdict(options) | {"labelled": labelled.check(chosen.workers)}
    keep_settings(settings, folder / SETTINGS_FILE, "Leave out --labelled to use the head, or choose another --head.")
    if (folder / HEAD_FILE).exists():
        return load_head(folder, features)
    print(f"Training the head on {len(labelled)} pictures of {len(np.unique(labelled.people))} people.", flush=True)
    file = folder / "features.npy"
    rows, _ = array_in_file(file, np.float16, (len(labelled), features.size), "--head")
    features.of_pictures(labelled.pictures, into=rows)
    more = {"device": features.generator.device, "state": folder / STATE}
    head = train_head(features.shapes, rows, labelled.intensities, labelled.expressions.tolist(), options, **more)
    save_head(head, folder, settings)
    for each in (file, folder / STATE):
        each.unlink(missing_ok=True)
    print(f"Wrote {folder / HEAD_FILE}.")
    return head


def estimate(
    faces: LabelledPictures,
    features: FaceFeatures,
    head: LabelHead,
    networks: dict[str, tuple[AUEstimator, np.ndarray]],
    file: Path,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Intensities (n, 12) of the head and of each network, and the head's probabilities; done parts are in ``file``."""
    n_units, n_classes = len(LABEL_COLUMNS), len(head.expressions)
    shape = len(faces), n_units * (1 + len(networks)) + n_classes
    found, new = array_in_file(file, np.float32, shape, "--out")
    if new:
        found[:] = NOT_DONE
    for start in tqdm(range(0, len(faces), PART), desc="estimates", unit=f" x {PART} pictures", disable=None):
        part = slice(start, start + PART)
        if not (found[part] == NOT_DONE).any():
            continue
        pictures = faces.pictures[part]
        intensities, probabilities = head.estimate(features.of_pictures(pictures))
        estimates = [intensities]
        for network, trained in networks.values():
            size = network.batch_size
            cuts = [pictures[cut : cut + size] for cut in range(0, len(pictures), size)]
            read = [network.estimate(np.stack([read_picture(each.source) for each in cut])) for cut in cuts]
            estimates.append(np.where(trained, np.concatenate(read).clip(0, 5), np.nan))
        found[part] = np.concatenate([*estimates, probabilities], axis=1)
        found.flush()
    values, probabilities = np.split(np.array(found, float), [shape[1] - n_classes], axis=1)
    each = np.split(values, 1 + len(networks), axis=1)
    return dict(zip(["head", *networks], each, strict=True)), probabilities


def report(faces: LabelledPictures, ensemble: np.ndarray, changes: pd.DataFrame) -> str:
    """A table: of each label how many there are, how the ensemble's mean correlates with it, how many were changed."""
    counts, rows = changes["label"].value_counts(), []
    for name, labels, mean in zip(LABEL_COLUMNS, faces.intensities.T, ensemble.T, strict=True):
        both = pd.DataFrame({"label": labels, "mean": mean}).dropna()
        r = both["label"].corr(both["mean"]) if both.nunique().gt(1).all() else np.nan
        rows.append((name, int((~np.isnan(labels)).sum()), r, counts.get(name, 0)))
    rows.append(("expression", int((faces.expressions != "").sum()), np.nan, counts.get("expression", 0)))
    table = pd.DataFrame([row for row in rows if row[1]], columns=["label", "labelled", "r", "changed"])
    return table.to_string(index=False, float_format="{:.2f}".format, na_rep="-")


def correction_settings(
    chosen: argparse.Namespace, faces: str, head: Path, networks: dict[str, tuple[AUEstimator, np.ndarray]]
) -> dict[str, Any]:
    """What the corrected labels depend on; ``faces`` is the fingerprint of the pictures with their labels."""
    settings = {
        "corrected_labels": faces,
        "corrected_by": ["head", *networks],
        "corrected_by_head_sha256": sha256(head / HEAD_FILE),
        "correction_threshold": chosen.threshold,
        "correction_expression_threshold": chosen.expression_threshold,
    }
    return settings | {
        f"corrected_by_{name}_sha256": each.settings["checkpoint_sha256"] for name, (each, _) in networks.items()
    }


def finish(
    chosen: argparse.Namespace,
    faces: LabelledPictures,
    classes: Sequence[str],
    estimates: dict[str, np.ndarray],
    probabilities: np.ndarray,
) -> None:
    """Correct, write, report."""
    names = pd.read_csv(chosen.faces / INDEX, dtype=str)["image"].tolist()
    after = correct(faces.intensities, np.stack([*estimates.values()]), chosen.threshold)
    words = correct_expressions(faces.expressions, probabilities[None], classes, chosen.expression_threshold)
    changes = [
        changed_intensities(names, faces.intensities, after, estimates),
        changed_expressions(names, faces.expressions, words, classes, {"head": probabilities}),
    ]
    table = pd.concat([each.astype(object) for each in changes], ignore_index=True)
    write_corrected(chosen.faces, chosen.out, table)
    (chosen.out / ESTIMATES).unlink()
    print(report(faces, ensemble_mean(np.stack([*estimates.values()])), table))
    print(f"Wrote {chosen.out / CHANGES} with {len(table)} changed labels, and the corrected copy beside it.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything that is needed, train the head if there is none, estimate, correct."""
    chosen = parse(arguments)
    device = choose_device(chosen.device)
    generator_folder = find_generator(chosen.generator, chosen.root)
    faces, labelled = read_given(chosen)
    folder = chosen.head or generator_folder / "label_head"
    if labelled is None and not (folder / HEAD_FILE).is_file():
        raise FergiError(f"{folder} has no head. Name labelled faces to train it on with --labelled.")
    networks = open_networks(chosen, faces)
    check_writable(chosen.out, "--out")
    fingerprint = faces.check(chosen.workers)
    precision = chosen.precision or ("bfloat16" if device.type == "cuda" else "float32")
    generator, _, _ = open_generator(generator_folder, device, precision=precision)
    with explained(generator, "Choose --device cpu"):
        features = FaceFeatures(generator, config.LABEL_TIMESTEP)
        head = make_head(chosen, folder, features, labelled)
        check_expressions(faces.expressions, head.expressions)
        settings = correction_settings(chosen, fingerprint, folder, networks)
        whole = read_json(chosen.faces / SETTINGS_FILE, FACES_ADVICE) | settings
        keep_settings(whole, chosen.out / SETTINGS_FILE, "Repeat its settings, or choose another --out.")
        if (chosen.out / CHANGES).exists():
            print(f"Nothing is left to do: {chosen.out / CHANGES} was written before.")
            return
        found = estimate(faces, features, head, networks, chosen.out / ESTIMATES)
    finish(chosen, faces, head.expressions, *found)


if __name__ == "__main__":
    run(main)
