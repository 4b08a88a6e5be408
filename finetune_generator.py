"""Tune a text-to-image generator on preference pairs: the second dashed line of the paper's Figure 1.

A LoRA is trained beside the weights of a Stable Diffusion 1.x or 2.x, by Diffusion-DPO on pairs with the probabilities
that faces gave (the default), by Diffusion-KTO on single likes and dislikes, or by ReFL on a scorer's gradient.

Reads   --pipeline DIR_OR_HUB_NAME: in diffusers' form
        --pairs FILE: results/preferences.csv (annotate_preferences.py), Pick-a-Pic's parquet, JSON as HPD or
        ImageReward has it; with --loss kto the CSV of annotate_preferences.py --export diffusion-kto
        pretrained_models/ with --reward
Writes  into --out, tuned_generators/<name>/ unless it is given:
        pytorch_lora_weights.safetensors     the LoRA, for StableDiffusionPipeline.load_lora_weights
        samples/step_<n>.png, samples.png    pictures before, during and after with the same seeds
        training_log.csv, tuning.png         losses, held-out implicit accuracy, held-out error
        evaluation.csv                       held-out implicit accuracy with its interval
        settings.json, last_training_state.pth          to resume: run the same command again
Run     python finetune_generator.py --pipeline CompVis/stable-diffusion-v1-4 --pairs results/preferences.csv --beta 500
        python finetune_generator.py --pipeline DIR --pairs pairs/diffusion-kto/train.csv --loss kto
        python finetune_generator.py --pipeline DIR --pairs FILE --reward PickScore
        accelerate launch --multi_gpu --num_processes 4 finetune_generator.py --pipeline DIR --pairs FILE
Takes   one to two seconds a step of 16 pairs on a GPU of 24 GB is our estimate for Stable Diffusion 1.5 at 512 pixels.

Training stops when the error on held-out pictures is above 1.5 times that of the generator before, since pictures fall
apart then; the last adapter below is kept. docs/tuning.md says how to choose β, and what to look at.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import config
from fergi.dataset import Folders
from fergi.files import FergiError, check_writable, require, sha256, write_table
from fergi.finetuning.arguments import (
    add_pairs_arguments,
    add_settings_arguments,
    add_training_arguments,
    check_shared,
    chosen_values,
    read_split,
)
from fergi.finetuning.generator_training import (
    LARGEST_ERROR,
    LOSSES,
    GeneratorSettings,
    GeneratorTuning,
)
from fergi.finetuning.pairs import PreferencePairs, Split, read_pairs
from fergi.finetuning.reactions import read_reactions
from fergi.finetuning.scorer_training import explained
from fergi.finetuning.stepped_training import open_accelerator
from fergi.script import argument_parser, at_least, run


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    shown = "a Stable Diffusion 1.x or 2.x: a folder or a model of the hub"
    parser.add_argument("--pipeline", required=True, metavar="DIR_OR_HUB_NAME", help=shown)
    add_pairs_arguments(parser)
    parser.add_argument("--name", default="tuned", help="of the tuning (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: tuned_generators/<name>)")
    shown = "dpo: pairs; kto: single likes and dislikes (default: %(default)s)"
    parser.add_argument("--loss", choices=LOSSES[:2], default="dpo", help=shown)
    shown = "ReFL in place of --loss: the gradient of this scorer, such as PickScore, or PickScore+FILE for a tuned one"
    parser.add_argument("--reward", metavar="SCORER", help=shown)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    shown = "ends of names of the UNet's modules that get a LoRA (default: the attention's)"
    parser.add_argument("--lora-targets", nargs="+", default=targets, metavar="NAME", help=shown)
    parser.add_argument("--resolution", type=at_least(8), metavar="PIXELS", help="default: the pipeline's")
    add_settings_arguments(parser, GeneratorSettings, config.GENERATOR_TUNING)
    parser.add_argument("--scorer-layouts", type=Path, metavar="FILE", help="as for preprocess_image_data.py")
    add_training_arguments(parser, "pairs", at_once=4, state_every=50, frozen_generator=True)
    chosen = parser.parse_args(arguments)
    check_shared(parser, chosen)
    if chosen.empty_prompts > 1 or not 0 < chosen.liked_share < 1:
        parser.error("--liked-share must be between 0 and 1, and --empty-prompts at most 1")
    if chosen.reward:
        if chosen.loss != "dpo":
            parser.error("--reward and --loss kto exclude each other")
        chosen.loss = "refl"
    if chosen.beta is None:
        chosen.beta = config.GENERATOR_TUNING["beta"][chosen.loss]
    return chosen


def read_data(
    chosen: argparse.Namespace, folders: Folders, say: Callable[[str], None]
) -> tuple[PreferencePairs, Split]:
    """The pairs, or the single reactions, and which of them are held out; says what is not used."""

    def read(path: Path) -> tuple[PreferencePairs, list[str]]:
        if chosen.loss == "kto":
            return read_reactions(path, chosen.pictures)
        return read_pairs(path, folders, chosen.pictures)

    pairs, split, said = read_split(chosen, read)
    for sentence in said:
        say(sentence)
    label = pairs.table["label"].to_numpy()
    if chosen.loss == "kto" and len(np.unique(label[split.training])) < 2:
        raise FergiError("The pictures to train on are all liked or all disliked. Choose another --held-out-share.")
    return pairs, split


def warn_of_beta(pairs: PreferencePairs, beta: float, say: Callable[[str], None]) -> None:
    """A label that is right with probability p stops a margin at the logit of p, so that a high β moves little."""
    label = pairs.table["label"].to_numpy()
    certainty = float(np.maximum(label, 1 - label).mean())
    if certainty < 0.9 and beta >= 2000:
        say(
            f"Labels are right with probability {certainty:.2f} on average, so that the model can move by about "
            f"{np.log(certainty / (1 - certainty)) / beta:.1e} in error and no further: try --beta {beta / 10:g}."
        )


def open_reward(chosen: argparse.Namespace, pairs: PreferencePairs, device: Any) -> tuple[Any, dict[str, Any]]:
    """The reward, if one is asked for, and its settings."""
    if not chosen.reward:
        return None, {}
    from fergi.finetuning.generator_rewards import Reward
    from fergi.scorers.registry import TUNED, read_layouts, scorer_class

    known = scorer_class(chosen.reward)
    plain = chosen.reward.partition(TUNED)[0]
    layout = read_layouts(chosen.scorer_layouts).get(plain) if chosen.scorer_layouts else None
    for file in known.files:
        require([file.under(chosen.root)], "weight file", file.advice)
    scorer = known(chosen.root, device, layout)
    reward = Reward(scorer, pairs, chosen.seed)
    files = {f"reward: {file.path}": sha256(file.under(chosen.root)) for file in known.files}
    return reward, {"reward": known.name, "reward_mean": reward.location, "reward_sd": reward.scale, **files}


def finish(tuning: GeneratorTuning, chosen: argparse.Namespace) -> None:
    """Evaluate the adapter that is kept, write figures, and report."""
    from fergi.figures import save
    from fergi.finetuning.generator_report import implicit_accuracy, samples_figure, training_figure

    rows, unit = tuning.evaluated, tuning.split.unit
    units, margin = tuning.pairs.table[unit].to_numpy(str)[rows], tuning.margins.numpy()
    found = implicit_accuracy(units, margin, tuning.label[rows], chosen.seed)
    n_ties, n_units = int((margin == 0).sum()), len(np.unique(units))
    row = {"n_pairs": len(rows), "n_ties": n_ties, f"n_{unit}s": n_units, "step": tuning.kept_step, **found}
    write_table(pd.DataFrame([row]), tuning.folder / "evaluation.csv")
    n = len(tuning.split.training)
    kind = "pairs" if tuning.paired else "pictures"
    title = f"{chosen.name}: {tuning.kept_step} steps of {chosen.loss} on {n} training {kind}"
    save(training_figure(pd.DataFrame(tuning.log), LARGEST_ERROR, title), tuning.folder, "tuning")
    if tuning.sampled:
        grids = [tuning.folder / "samples" / f"step_{step:06d}.png" for step in (0, tuning.kept_step)]
        save(samples_figure(*grids, tuning.sampled, title), tuning.folder, "samples")
    if tuning.stopped:
        print(
            f"Stopped after step {tuning.steps_done}: the error on held-out pictures is "
            f"{tuning.log[-1]['error_ratio']:.2f} times the reference's. The adapter of step {tuning.kept_step} is "
            "kept; a higher --beta or a lower --rate goes further."
        )
    if not tuning.kept_step:
        raise FergiError("No adapter is kept. Choose a smaller --evaluate-every, and pass --restart.")
    print(
        f"Held out: {len(rows)} {kind} of {n_units} {unit}s, {n_ties} of them ties. The model orders "
        f"{found['estimate']:.2f} [{found['lower']:.2f}, {found['upper']:.2f}] % of the others as their labels do "
        f"(95 % interval over {unit}s). This is high for a ruined model, too: look at samples.png."
    )
    print(
        f"Wrote {tuning.adapter_path}. Load it with: "
        f"pipeline.load_lora_weights({str(tuning.folder)!r}, weight_name={tuning.adapter_path.name!r})"
    )


def announce(tuning: GeneratorTuning, chosen: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Say what is about to be tuned, and on what."""
    pairs, split, generator, accelerator = tuning.pairs, tuning.split, tuning.generator, tuning.accelerator
    n_tuned = sum(value.numel() for value in generator.parameters.values())
    say(
        f"{len(split.training)} {'pairs' if tuning.paired else 'pictures'} to train on and {len(split.held_out)} "
        f"held out, of {pairs.table['prompt'].nunique()} prompts; a LoRA of {n_tuned:,} values at "
        f"{generator.resolution} pixels on {accelerator.num_processes} x {accelerator.device.type}, "
        f"{tuning.options.precision}."
    )
    if chosen.loss == "dpo":
        warn_of_beta(pairs, chosen.beta, say)
    if tuning.log:
        say(f"Resuming after {tuning.steps_done} steps.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything that is needed, tune, evaluate."""
    chosen = parse(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    precision, accelerator = open_accelerator(chosen.device, chosen.precision)
    say = accelerator.print
    folders = Folders(chosen.root)
    pairs, split = read_data(chosen, folders, say)
    folder = chosen.out or folders.root / "tuned_generators" / chosen.name
    check_writable(folder, "--out")
    fingerprint = pairs.check_pictures(chosen.workers)
    from fergi.finetuning.generator import Generator

    options = chosen_values(GeneratorSettings, chosen)
    generator = Generator(
        chosen.pipeline,
        accelerator.device,
        lora_targets=chosen.lora_targets,
        rank=chosen.rank,
        alpha=chosen.alpha,
        precision=precision,
        resolution=chosen.resolution,
        seed=chosen.seed,
    )
    if chosen.checkpointing:
        generator.unet.enable_gradient_checkpointing()
    settings = GeneratorSettings(
        loss=chosen.loss,
        lora_targets=",".join(chosen.lora_targets),
        hard_labels=chosen.hard_labels,
        precision=precision,
        resolution=generator.resolution,
        **options,
    )
    with explained(generator):
        reward, of_reward = open_reward(chosen, pairs, accelerator.device)
        sides = {"n_training_pairs": len(split.training), "n_held_out_pairs": len(split.held_out), "pairs": fingerprint}
        base = {"pipeline": chosen.pipeline, "name": chosen.name, "unet": generator.fingerprint()}
        tuning = GeneratorTuning(
            generator,
            pairs,
            split,
            settings,
            accelerator,
            settings=base | asdict(settings) | of_reward | sides,
            folder=folder,
            reward=reward,
            pairs_at_once=chosen.pairs_at_once,
            workers=chosen.workers,
            state_every=chosen.state_every,
        )
        tuning.resume(chosen.restart)
        announce(tuning, chosen, say)
        tuning.run()
    if accelerator.is_main_process:
        finish(tuning, chosen)
    accelerator.end_training()


if __name__ == "__main__":
    run(main)
