"""Train an AU adapter: a Stable Diffusion that makes faces with chosen AU intensities (SynFER, arXiv 2410.09865).

The adapter is cross-attention to one token an AU, beside that to the text; the base model is frozen. Pictures come from
folders of aligned faces (index.csv; AUs may be missing, captions and expressions may be there), or from folders with
clips and their feature files, whose faces are cut out first.

Reads   preparation/DISFA_faces, preparation/DISFAPlus_faces, or the folders of --faces
        pretrained_models/blaze_face_short_range.tflite, if it is there: for clips
Writes  face_generators/<name>/ unless --out says otherwise:
        au_adapter.safetensors               the adapter, for synthesise_faces.py
        samples/step_<n>.png                 AUs at 0, 2.5 and 5 with the same noise
        training_log.csv                     losses; on held-out pictures with their AUs, with none, and with others'
        settings.json, last_training_state.pth          to resume: run the same command again
        preparation/cut_faces/               faces cut out of clips
        pretrained_models/small_face_base_<hash>/       --pipeline small
Run     python train_face_generator.py --pipeline stable-diffusion-v1-5/stable-diffusion-v1-5
        python train_face_generator.py --pipeline small --faces FOLDER
        python train_face_generator.py --pipeline DIR --faces data --held-out 003 017
        accelerate launch --multi_gpu --num_processes 4 train_face_generator.py --pipeline DIR
Takes   about three seconds a step of 32 pictures on a GPU of 24 GB is our estimate for Stable Diffusion 1.5 at 512
        pixels; on drawn faces of 64 pixels three CPU-minutes for the small base model, and three for the adapter.

The last lines say whether the adapter gained anything. docs/face_generation.md says what to look at.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import config
from fergi.action_units.faces_dataset import ALIGNMENT, INDEX, SCRIPTS
from fergi.dataset import Folders
from fergi.face_generation.pictures import LabelledPictures, cut_faces, read_pictures
from fergi.face_generation.training import FaceGeneratorSettings, FaceGeneratorTraining
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, check_writable
from fergi.finetuning.arguments import add_settings_arguments, add_training_arguments, check_shared, chosen_values
from fergi.finetuning.scorer_training import explained
from fergi.finetuning.stepped_training import open_accelerator
from fergi.script import argument_parser, at_least, run

SMALL, SMALL_SIDE = "small", 64


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    shown = "a Stable Diffusion 1.x or 2.x: a folder, a model of the hub, or small: one made here of the same pictures"
    parser.add_argument("--pipeline", required=True, metavar="DIR_OR_HUB_NAME", help=shown)
    shown = "folders of labelled faces (default: those of DISFA and DISFA+ that are there)"
    parser.add_argument("--faces", nargs="+", type=Path, metavar="FOLDER", help=shown)
    shown = "people on whom nothing is trained (default: a share of them, or of the pictures if there are fewer than 5)"
    parser.add_argument("--held-out", nargs="+", default=[], metavar="PERSON", help=shown)
    parser.add_argument("--held-out-share", type=float, default=0.1, metavar="P", help="default: %(default)s")
    shown = "frames that are cut out of a clip, at most (default: %(default)s)"
    parser.add_argument("--frames-per-clip", type=at_least(1), default=8, metavar="N", help=shown)
    parser.add_argument("--name", default="faces", help="of the adapter (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: face_generators/<name>)")
    shown = f"default: the base model's; of small: {SMALL_SIDE}"
    parser.add_argument("--resolution", type=at_least(8), metavar="PIXELS", help=shown)
    shown = "that make the model of --pipeline small (default: %(default)s)"
    parser.add_argument("--base-steps", type=at_least(1), default=1200, metavar="N", help=shown)
    passes, small = config.FACE_GENERATOR_PASSES, config.SMALL_FACE_GENERATOR_TRAINING
    shown = f"of the optimiser (default: {passes} passes over the pictures, on small {small['steps']} steps)"
    parser.add_argument("--steps", type=at_least(1), metavar="N", help=shown)
    add_settings_arguments(parser, FaceGeneratorSettings, {
        name: {"": default} | ({"on small": small[name]} if name in small else {})
        for name, default in config.FACE_GENERATOR_TRAINING.items()
    })  # fmt: skip
    shown = "AUs of the samples (default: 1 4 12 26); the option without any: no samples"
    parser.add_argument("--sample-units", nargs="*", type=int, default=[1, 4, 12, 26], metavar="AU", help=shown)
    shown = "flip every other picture: no AU has a side; not for captions that tell left from right"
    parser.add_argument("--flips", action="store_true", help=shown)
    add_training_arguments(parser, "pictures", at_once=16, state_every=100, frozen_generator=True)
    chosen = parser.parse_args(arguments)
    defaults = config.FACE_GENERATOR_TRAINING
    defaults = defaults | (config.SMALL_FACE_GENERATOR_TRAINING if chosen.pipeline == SMALL else {})
    for name, default in defaults.items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, default)
    check_shared(parser, chosen)
    if chosen.empty_texts > 1 or chosen.dropped_units > 1:
        parser.error("--empty-texts and --dropped-units must be at most 1")
    if unknown := set(chosen.sample_units) - set(ACTION_UNITS):
        parser.error(f"--sample-units are among {' '.join(map(str, ACTION_UNITS))}, not {min(unknown)}")
    return chosen


def read_faces(chosen: argparse.Namespace, folders: Folders) -> tuple[LabelledPictures, dict[str, Any]]:
    """The pictures, and the settings that all their folders share."""
    given = chosen.faces or [each for name in SCRIPTS if (each := folders.aligned_faces(name)).is_dir()]
    if not given:
        raise FergiError(
            f"There are no aligned faces in {folders.preparation}. Run preprocess_DISFA.py or name others with --faces."
        )
    if missing := [each for each in given if not each.is_dir()]:
        raise FergiError(f"{missing[0]} is not a folder. Name folders of labelled faces with --faces.")
    cut = folders.cut_faces, folders.pretrained_models, config.FRAME_LIMITS, chosen.frames_per_clip
    return read_pictures([each if (each / INDEX).is_file() else cut_faces(each, *cut) for each in given])


def make_base(chosen: argparse.Namespace, folders: Folders, pictures: LabelledPictures, rows: np.ndarray) -> str:
    """The small base model of training pictures, made unless it is there: the name of its folder."""
    from fergi.face_generation.small_base import make_small_base

    side, captions = chosen.resolution or SMALL_SIDE, pictures.captions[rows].tolist()
    levels = pictures.squares(rows, side)
    content = hashlib.sha256(levels.tobytes() + json.dumps([chosen.seed, chosen.base_steps, captions]).encode())
    folder = folders.pretrained_models / f"small_face_base_{content.hexdigest()[:8]}"
    if not (folder / "model_index.json").is_file():
        print(f"Making a small base model of {len(rows)} pictures of {side} pixels.", flush=True)
        make_small_base(folder, levels, captions, chosen.seed, steps=chosen.base_steps)
    return str(folder)


def report(training: FaceGeneratorTraining) -> None:
    """Say what the adapter gained on held-out pictures, and where it is."""
    gains = training.gains()
    named = {"null": "no AUs told", "others": "the AUs of another picture"}
    said = [f"{100 * gain:.2f} ± {100 * half:.2f} % below that with {named[of]}" for of, (gain, half) in gains.items()]
    print(f"Held out: {len(training.evaluated)} pictures, loss with their AUs {' and '.join(said)} (95 %).")
    if any(gain - half <= 0 for gain, half in gains.values()):
        print(
            "Warning: the adapter gains nothing that is certain. Train for more --steps, with a higher --rate, or on "
            "more pictures; captions that tell the AUs leave it little to gain."
        )
    print(f"Wrote {training.adapter_path}. Look at samples/step_{training.steps_done:06d}.png beside it.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything that is needed, train, report."""
    chosen = parse(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    precision, accelerator = open_accelerator(chosen.device, chosen.precision)
    folders = Folders(chosen.root)
    folder = chosen.out or folders.root / "face_generators" / chosen.name
    check_writable(folder, "--out")
    with accelerator.main_process_first():  # which cuts faces out of clips
        pictures, made = read_faces(chosen, folders)
    fingerprint = pictures.check(chosen.workers)
    training, held_out, what = pictures.split(chosen.held_out, chosen.held_out_share, chosen.seed)
    with accelerator.main_process_first():
        name = make_base(chosen, folders, pictures, training) if chosen.pipeline == SMALL else chosen.pipeline
    from fergi.face_generation.generator import FaceGenerator

    new = {"seed": chosen.seed, "resolution": chosen.resolution}
    generator = FaceGenerator(name, accelerator.device, precision=precision, **new)
    if chosen.checkpointing:
        generator.unet.enable_gradient_checkpointing()
    settings = FaceGeneratorSettings(
        precision=precision,
        resolution=generator.resolution,
        flips=chosen.flips,
        sample_units=",".join(map(str, chosen.sample_units)),
        steps=chosen.steps or -(-config.FACE_GENERATOR_PASSES * len(training) // chosen.batch_size),
        **chosen_values(FaceGeneratorSettings, chosen),
    )
    where = str(Path(name).resolve()) if Path(name).is_dir() else name
    base = {"pipeline": where, "unet": generator.fingerprint(), "name": chosen.name}
    data = {each: made[each] for each in ("aligned", *ALIGNMENT) if each in made}
    data |= {"pictures": fingerprint, "n_training": len(training), "n_held_out": len(held_out), "held_out": what}
    with explained(generator):
        work = FaceGeneratorTraining(
            generator, pictures, training, held_out, settings, accelerator,
            settings=base | asdict(settings) | data, folder=folder, pictures_at_once=chosen.pictures_at_once,
            workers=chosen.workers, state_every=chosen.state_every,
        )  # fmt: skip
        work.resume(chosen.restart)
        n_trained = sum(value.numel() for value in generator.parameters.values())
        accelerator.print(
            f"{len(training)} pictures to train on and {len(held_out)} held out ({what}); an adapter of {n_trained:,} "
            f"values at {generator.resolution} pixels on {accelerator.num_processes} x {accelerator.device.type}, "
            f"{precision}, for {settings.steps} steps."
        )
        if work.log:
            accelerator.print(f"Resuming after {work.steps_done} steps.")
        work.run()
    if accelerator.is_main_process:
        report(work)
    accelerator.end_training()


if __name__ == "__main__":
    run(main)
