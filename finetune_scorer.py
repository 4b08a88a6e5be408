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
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import config
from fergi.dataset import Folders
from fergi.files import FergiError, check_writable, require, write_table
from fergi.finetuning.pairs import PreferencePairs, Split, read_pairs, split_from, split_pairs
from fergi.finetuning.report import before_and_after, is_better, sentences, tuning_figure
from fergi.finetuning.scorer_training import LOSSES, ScorerTuning, TuningSettings, count_right, explained
from fergi.processes import choose_device
from fergi.scorers.adapters import ADAPTER_FILE, WAYS, base_settings, save_tensors, starting_scorer
from fergi.scorers.interface import Scorer
from fergi.scorers.registry import SCORERS, read_layouts, scorer_class
from fergi.script import add_device_argument, add_workers_argument, argument_parser, at_least, run
from fergi.weights import SAFETENSORS, save_weights


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--scorer", required=True, choices=tuple(SCORERS), help="which one to tune")
    parser.add_argument("--pairs", required=True, type=Path, metavar="FILE", help="or a folder of parquet files")
    shown = "folder from which JSON names its pictures (default: that of the JSON)"
    parser.add_argument("--pictures", type=Path, metavar="DIR", help=shown)
    shown = "pairs to evaluate on, in place of a share of --pairs"
    parser.add_argument("--held-out-pairs", type=Path, metavar="FILE", help=shown)
    parser.add_argument("--held-out-share", type=float, default=0.2, metavar="P", help="default: %(default)s")
    parser.add_argument("--name", default="tuned", help="of the tuning, in the scorer's column (default: %(default)s)")
    shown = "where to write (default: tuned_scorers/<scorer>+<name>)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=shown)
    shown = "lora: small matrices beside the weights; projections: the last maps; layers: as its authors did"
    parser.add_argument("--train", choices=WAYS, default="lora", help=f"{shown} (default: %(default)s)")
    parser.add_argument("--loss", choices=LOSSES, default="logistic", help="default: %(default)s")
    shown = "ends of names of the network's modules that get a LoRA (default: what the scorer knows)"
    parser.add_argument("--lora-targets", nargs="+", metavar="NAME", help=shown)
    parser.add_argument("--hard-labels", action="store_true", help="take the more probable side as certain")
    for each in fields(TuningSettings):
        if each.metadata:
            number = at_least(each.metadata["smallest"], each.type)
            default = config.SCORER_TUNING.get(each.name)
            shown = f"{each.metadata['what']} (default: {config.SCORER_ANCHORS if default is None else default})"
            parser.add_argument(
                f"--{each.name.replace('_', '-')}", type=number, default=default, metavar="N", help=shown
            )
    shown = "always: write the adapter whatever the held-out pairs say (default: %(default)s)"
    parser.add_argument("--accept", choices=("gain", "always"), default="gain", help=shown)
    shown = "write the whole tuned network, too, as a file of weights (.safetensors, or for torch.load)"
    parser.add_argument("--whole", type=Path, metavar="FILE", help=shown)
    parser.add_argument("--scorer-layouts", type=Path, metavar="FILE", help="as for preprocess_image_data.py")
    add_device_argument(parser)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    shown = "pairs that the network takes at once; less memory, the same result but for rounding (default: %(default)s)"
    parser.add_argument("--pairs-at-once", type=at_least(1), default=8, metavar="N", help=shown)
    shown = "steps from one saved state to the next (default: %(default)s)"
    parser.add_argument("--state-every", type=at_least(1), default=100, metavar="N", help=shown)
    add_workers_argument(parser, "threads that decode pictures")
    parser.add_argument("--restart", action="store_true", help="delete an earlier tuning's files and begin anew")
    chosen = parser.parse_args(arguments)
    if chosen.anchor is None:
        chosen.anchor = config.SCORER_ANCHORS[chosen.loss]
    if not 0 < chosen.held_out_share < 1:
        parser.error("--held-out-share must be between 0 and 1")
    if not chosen.name.replace("-", "").replace("_", "").isalnum():
        parser.error("--name must be of letters, digits, hyphens and underscores")
    return chosen


def read_data(chosen: argparse.Namespace, folders: Folders) -> tuple[PreferencePairs, Split]:
    """The pairs and which of them are held out; says what is not used."""
    pairs, said = read_pairs(chosen.pairs, folders, chosen.pictures)
    if chosen.held_out_pairs:
        others, more = read_pairs(chosen.held_out_pairs, folders, chosen.pictures)
        pairs, split = split_from(pairs, others)
        said += more
    else:
        split = split_pairs(pairs, chosen.held_out_share, chosen.seed)
    n_unused = len(pairs) - len(split.training) - len(split.held_out)
    if n_unused:
        said.append(f"{n_unused} pairs share a prompt or a participant with held-out ones and are not used.")
    for sentence in said:
        print(sentence)
    return (pairs.hardened() if chosen.hard_labels else pairs), split


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
    pairs, split = read_data(chosen, folders)
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
    names = [each.name for each in fields(TuningSettings) if each.metadata]
    options = TuningSettings(
        train=chosen.train,
        loss=chosen.loss,
        lora_targets=",".join(chosen.lora_targets or known.lora_targets),
        hard_labels=chosen.hard_labels,
        precision=chosen.precision,
        **{name: getattr(chosen, name) for name in names},
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
