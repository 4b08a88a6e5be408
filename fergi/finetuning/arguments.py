"""Arguments that the trainings of scorers and generators share, and the split into training and held-out pairs."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from fergi.finetuning.pairs import PreferencePairs, Split, split_from, split_pairs
from fergi.script import add_device_argument, add_workers_argument, at_least

ReadPairs = Callable[[Path], tuple[PreferencePairs, list[str]]]


def add_settings_arguments(parser: argparse.ArgumentParser, settings: type, defaults: Mapping[str, Any]) -> None:
    """An option for each field with metadata; a default that is a mapping depends on a choice, and gives None here."""
    for each in _options(settings):
        default = defaults[each.name]
        depends = isinstance(default, Mapping)
        said = ", ".join(f"{name} {value}" for name, value in default.items()) if depends else default
        parser.add_argument(
            f"--{each.name.replace('_', '-')}",
            type=at_least(each.metadata["smallest"], each.type),
            default=None if depends else default,
            metavar="N",
            help=f"{each.metadata['what']} (default: {said})",
        )


def chosen_values(settings: type, chosen: argparse.Namespace) -> dict[str, Any]:
    """What was chosen for the options of ``add_settings_arguments``."""
    return {each.name: getattr(chosen, each.name) for each in _options(settings)}


def _options(settings: type) -> list[Field]:
    return [each for each in fields(settings) if each.metadata]


def add_pairs_arguments(parser: argparse.ArgumentParser) -> None:
    """The pairs, and which of them are held out; see ``read_split``."""
    parser.add_argument("--pairs", required=True, type=Path, metavar="FILE", help="or a folder of parquet files")
    shown = "folder from which JSON and CSV of likes name their pictures (default: that of the file)"
    parser.add_argument("--pictures", type=Path, metavar="DIR", help=shown)
    shown = "pairs to evaluate on, in place of a share of --pairs"
    parser.add_argument("--held-out-pairs", type=Path, metavar="FILE", help=shown)
    parser.add_argument("--held-out-share", type=float, default=0.2, metavar="P", help="default: %(default)s")
    parser.add_argument("--hard-labels", action="store_true", help="take the more probable side as certain")


def add_training_arguments(
    parser: argparse.ArgumentParser, items: str, at_once: int, state_every: int, *, frozen_generator: bool = False
) -> None:
    """What a training computes on, how much at once, and how it resumes; ``items`` are what a batch has.

    Beside a frozen generator ``--precision`` and ``--checkpointing`` as well.
    """
    add_device_argument(parser)
    if frozen_generator:
        shown = "of what is not trained (default: bfloat16 on a GPU, float32 on a CPU)"
        parser.add_argument("--precision", choices=("float32", "bfloat16"), help=shown)
        shown = "compute again in the backward pass what the forward pass had: less memory, a third slower"
        parser.add_argument("--checkpointing", action="store_true", help=shown)
    shown = "that the network takes at once; less memory, the same result but for rounding (default: %(default)s)"
    parser.add_argument(f"--{items}-at-once", type=at_least(1), default=at_once, metavar="N", help=shown)
    shown = "steps from one saved state to the next (default: %(default)s)"
    parser.add_argument("--state-every", type=at_least(1), default=state_every, metavar="N", help=shown)
    add_workers_argument(parser, "threads that decode pictures")
    parser.add_argument("--restart", action="store_true", help="delete what an earlier call wrote and begin anew")


def check_shared(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """End with argparse's message if ``--name`` or ``--held-out-share`` cannot be."""
    if not chosen.name.replace("-", "").replace("_", "").isalnum():
        parser.error("--name must be of letters, digits, hyphens and underscores")
    if not 0 < chosen.held_out_share < 1:
        parser.error("--held-out-share must be between 0 and 1")


def read_split(chosen: argparse.Namespace, read: ReadPairs) -> tuple[PreferencePairs, Split, list[str]]:
    """The pairs, which of them are held out, and sentences on what is not used. ``read`` reads one file of them."""
    pairs, said = read(chosen.pairs)
    if chosen.held_out_pairs:
        others, more = read(chosen.held_out_pairs)
        pairs, split = split_from(pairs, others)
        said += more
    else:
        split = split_pairs(pairs, chosen.held_out_share, chosen.seed)
    n_unused = len(pairs) - len(split.training) - len(split.held_out)
    if n_unused:
        said.append(f"{n_unused} pairs share a prompt or a participant with held-out ones and are not used.")
    return (pairs.hardened() if chosen.hard_labels else pairs), split, said
