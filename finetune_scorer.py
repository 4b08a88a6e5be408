"""Tune a scoring model on preference pairs, such as those that faces gave (the paper's first dashed line).

Reads   a table of annotate_preferences.py with the images in data/, Pick-a-Pic's parquet, or JSON as HPD or
        ImageReward has it; pretrained_models/
Writes  into --out, tuned_scorers/<scorer>+<name>/ unless it is given:
        adapter_model.safetensors        what was tuned, with its settings; only where held-out pairs gain (--accept)
        evaluation.csv                   accuracy on held-out pairs before and after, with intervals
        training_log.csv, tuning.png, tuning.pdf        losses and accuracy by epoch
        last_epoch/adapter_model.safetensors            after the last epoch that ended, whatever it is worth
        settings.json, last_training_state.pth          to resume: run the same command again
Run     python finetune_scorer.py --scorer PickScore --pairs results/preferences.csv
        python preprocess_image_data.py --scorers PickScore+tuned_scorers/PickScore+tuned/adapter_model.safetensors
        python finetune_scorer.py --scorer SocialReward --train layers --loss triplet --pairs FILE      (as published)
Takes   on a GPU minutes for a thousand pairs. On a CPU a pair takes four to six times what scoring it takes.

No prompt and no participant is on both sides of the split into training and held-out pairs. The anchor keeps scores
near those before: without it labels from faces, which are often wrong, made a scorer worse (docs/tuning.md).
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import config
from fergi.dataset import Folders
from fergi.files import FergiError, check_writable, require, write_table
from fergi.finetuning.arguments import (
    add_pairs_arguments,
    add_settings_arguments,
    add_training_arguments,
    check_shared,
    chosen_values,
    read_split,
)
from fergi.finetuning.pairs import Split, read_pairs
from fergi.finetuning.report import before_and_after, is_better, sentences, tuning_figure
from fergi.finetuning.scorer_training import LOSSES, ScorerTuning, TuningSettings, count_right, explained
from fergi.processes import choose_device
from fergi.scorers.adapters import ADAPTER_FILE, WAYS, base_settings, save_tensors, starting_scorer
from fergi.scorers.interface import Scorer
from fergi.scorers.registry import SCORERS, read_layouts, scorer_class
from fergi.script import argument_parser, run
from fergi.weights import SAFETENSORS, save_weights


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--scorer", required=True, choices=tuple(SCORERS), help="which one to tune")
    add_pairs_arguments(parser)
    parser.add_argument("--name", default="tuned", help="of the tuning, in the scorer's column (default: %(default)s)")
    shown = "where to write (default: tuned_scorers/<scorer>+<name>)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=shown)
    shown = "lora: small matrices beside the weights; projections: the last maps; layers: as its authors did"
    parser.add_argument("--train", choices=WAYS, default="lora", help=f"{shown} (default: %(default)s)")
    parser.add_argument("--loss", choices=LOSSES, default="logistic", help="default: %(default)s")
    shown = "ends of names of the network's modules that get a LoRA (default: what the scorer knows)"
    parser.add_argument("--lora-targets", nargs="+", metavar="NAME", help=shown)
    add_settings_arguments(parser, TuningSettings, config.SCORER_TUNING)
    shown = "always: write the adapter whatever the held-out pairs say (default: %(default)s)"
    parser.add_argument("--accept", choices=("gain", "always"), default="gain", help=shown)
    shown = "write the whole tuned network, too, as a file of weights (.safetensors, or for torch.load)"
    parser.add_argument("--whole", type=Path, metavar="FILE", help=shown)
    parser.add_argument("--scorer-layouts", type=Path, metavar="FILE", help="as for preprocess_image_data.py")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    add_training_arguments(parser, "pairs", at_once=8, state_every=100)
    chosen = parser.parse_args(arguments)
    if chosen.anchor is None:
        chosen.anchor = config.SCORER_TUNING["anchor"][chosen.loss]
    check_shared(parser, chosen)
    return chosen


def write_whole(scorer: Scorer, path: Path) -> None:
    """Write all weights in the form of the scorer's own file."""
    state, key = scorer.network.state_dict(), type(scorer).files[0].key
    if path.suffix == SAFETENSORS:
        save_tensors(state, path)
    else:
        whole = {name: value.cpu() for name, value in state.items()}
        save_weights(whole if key is None else {key: whole}, path)
    print(f"Wrote {path}.")


def finish(tuning: ScorerTuning, chosen: argparse.Namespace) -> None:
    """Evaluate, report, and write the adapter if it is accepted."""
    from fergi.figures import save

    rows, unit = tuning.split.held_out, tuning.split.unit
    units, right = tuning.pairs.table[unit].to_numpy(str)[rows], {}
    for name, scores in (("before", tuning.before), ("after", tuning.after)):
        first, second = (scores[torch.from_numpy(tuning.sides[side][rows])] for side in (0, 1))
        right[name], decided = count_right(first - second, tuning.label[rows])
    table = before_and_after(units, decided, right, chosen.seed)
    write_table(table.reset_index(), tuning.folder / "evaluation.csv")
    title = f"{chosen.scorer}+{chosen.name}: {len(tuning.split.training)} training and {len(rows)} held-out pairs"
    save(tuning_figure(pd.DataFrame(tuning.log), table, title), tuning.folder, "tuning")
    kept, path = chosen.accept == "always", tuning.folder / ADAPTER_FILE
    n_units = len(np.unique(units[decided]))
    for sentence in sentences(table, int(decided.sum()), n_units, unit, name=chosen.scorer, kept=kept):
        print(sentence)
    if not (kept or is_better(table)):
        path.unlink(missing_ok=True)
        return
    tuning.tunable.save(path, tuning.settings)
    print(f"Wrote {path}. Score with: python preprocess_image_data.py --scorers {chosen.scorer}+{path}")
    if chosen.whole:
        tuning.tunable.merge()
        write_whole(tuning.scorer, chosen.whole)


def all_settings(
    chosen: argparse.Namespace, options: TuningSettings, base: dict[str, str], fingerprint: str, split: Split
) -> dict[str, Any]:
    """What the adapter was made with, flat."""
    sides = {"n_training_pairs": len(split.training), "n_held_out_pairs": len(split.held_out), "pairs": fingerprint}
    return {"scorer": chosen.scorer, "name": chosen.name, **base, **asdict(options), **sides}


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything that is needed, tune, evaluate."""
    chosen = parse(arguments)
    folders, known = Folders(chosen.root), scorer_class(chosen.scorer)
    if not known.lora_targets:
        raise FergiError(
            f"{chosen.scorer} cannot be tuned on pairs: it does not read the prompt. Choose another scorer."
        )
    layout = read_layouts(chosen.scorer_layouts).get(chosen.scorer) if chosen.scorer_layouts else None
    pairs, split, said = read_split(chosen, lambda path: read_pairs(path, folders, chosen.pictures))
    for sentence in said:
        print(sentence)
    folder = chosen.out or folders.root / "tuned_scorers" / f"{chosen.scorer}+{chosen.name}"
    check_writable(folder, "--out")
    device = choose_device(chosen.device)
    fingerprint = pairs.check_pictures(chosen.workers)
    scorer_type = starting_scorer(known, folders.root)
    if scorer_type is not known:
        print(f"{known.files[0].path} does not exist; tuning starts from {scorer_type.files[0].path}.")
    for file in scorer_type.files:
        require([file.under(folders.root)], "weight file", file.advice)
    base = base_settings(scorer_type, folders.root, layout)
    options = TuningSettings(
        train=chosen.train,
        loss=chosen.loss,
        lora_targets=",".join(chosen.lora_targets or known.lora_targets),
        hard_labels=chosen.hard_labels,
        precision=chosen.precision,
        **chosen_values(TuningSettings, chosen),
    )
    try:
        scorer = scorer_type(folders.root, device, layout)
    except torch.OutOfMemoryError as error:
        raise FergiError(f"{chosen.scorer} does not fit into the memory of {device}. Pass --device cpu.") from error
    with explained(scorer):
        tuning = ScorerTuning(
            scorer,
            pairs,
            split,
            options,
            settings=all_settings(chosen, options, base, fingerprint, split),
            folder=folder,
            pairs_at_once=chosen.pairs_at_once,
            workers=chosen.workers,
            state_every=chosen.state_every,
        )
        tuning.resume(chosen.restart)
        n_tuned = sum(value.numel() for value in tuning.tunable.parameters.values())
        n_all = sum(value.numel() for value in scorer.network.parameters())
        people = pairs.table["participant"].nunique()
        print(
            f"{len(split.training)} pairs to train on and {len(split.held_out)} held out, of {people} participants and "
            f"{pairs.table['prompt'].nunique()} prompts; {n_tuned:,} of {n_all:,} values of {chosen.scorer} are tuned "
            f"({chosen.train}) on {device}."
        )
        if tuning.log:
            print(f"Resuming after {tuning.epochs_done} epochs and {tuning.steps_done} steps.", flush=True)
        tuning.run()
        finish(tuning, chosen)


if __name__ == "__main__":
    run(main)
