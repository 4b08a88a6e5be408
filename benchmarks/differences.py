"""What each difference between the paper and its release costs: the README's Differences table.

Every row changes one thing and leaves the rest as the row it is compared with. All numbers come from this run.

Reads   data/ and preparation/ as stages 6 to 8 left them
Run     python -m benchmarks.differences
Takes   about half a minute; no GPU.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

import config
from fergi.activation import ACTIVATION_COLUMNS, clip_activation
from fergi.dataset import (
    CLIP_KEY,
    EMOTIONS,
    Folders,
    find_clips,
    read_black_images,
    read_excluded_participants,
    read_image_reactions,
    read_valid_sessions,
)
from fergi.features import ClipFeatures, read_clips, valid_frames
from fergi.preference.grid_search import Search, search_settings
from fergi.preference.pairs import pairs_of
from fergi.preference.results import (
    ENSEMBLE,
    INTEGRATED,
    INTEGRATED_ENSEMBLE,
    SCORERS,
    VALENCE,
    correct_and_total,
    search_preferences,
)
from fergi.script import argument_parser, run
from fergi.statistics import emotion_rank_sums, rating_correlations


def search_rows(images: pd.DataFrame) -> list[list[str]]:
    """Correct pairs of Tables 1 and 2 for each switch of stage 9, alone and together."""
    released, paper = (search_settings(mode, **config.PREFERENCE_SEARCH) for mode in ("released", "paper"))
    strict = search_settings("paper", strict=True, **config.PREFERENCE_SEARCH)
    variants: dict[str, Search] = {
        "release": released,
        "… k only up to 2.0": dataclasses.replace(released, decays=released.decays[: len(paper.decays)]),
        "… all 66 ensemble weights": dataclasses.replace(released, ensemble_weights=paper.ensemble_weights),
        "… equal activations tie": dataclasses.replace(released, activation_decimals=paper.activation_decimals),
        "… eq. 5 instead of the product": dataclasses.replace(released, product_valence=False),
        "… strict folds": dataclasses.replace(released, strict=True),
        "paper mode": paper,
        "paper mode, strict folds": strict,
    }
    rows = []
    for name, search in variants.items():
        results = search_preferences(images, search)
        correct, selected = correct_and_total(results, f"AUcomb_selected_{VALENCE}")
        others = [correct_and_total(results, each) for each in (ENSEMBLE, VALENCE, *INTEGRATED, INTEGRATED_ENSEMBLE)]
        rows.append([name, f"{correct}/{selected}", *(f"{n} ({100 * n / total:.2f} %)" for n, total in others)])
    return rows


def tied_pairs(images: pd.DataFrame) -> dict[str, int]:
    """How many pairs have two equal scores, and so count as incorrect."""
    pairs = pairs_of(images)
    return {name: int((pairs.difference(images[name]) == 0).sum()) for name in SCORERS}


def rounded(features: ClipFeatures, decimals: int) -> ClipFeatures:
    """The same features written with fewer decimals."""
    return ClipFeatures(features.starts, np.round(features.values, decimals))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print Markdown tables."""
    folders = Folders(argument_parser(__doc__).parse_args(arguments).root)
    sessions = read_valid_sessions(folders)
    excluded = read_excluded_participants(folders, sessions)
    all_images = read_image_reactions(
        folders,
        sessions,
        image_columns=["rank_score", *SCORERS, "overall_rating", *EMOTIONS],
        activation_columns=ACTIVATION_COLUMNS,
    )
    images = all_images[~all_images["participant"].isin(excluded)].reset_index(drop=True)

    print("Stage 9, correct pairs, one change at a time:\n")
    header = ["", "selected", "ensemble", "AUcomb", "ImageReward + AUs", "PickScore + AUs", "HPS v2 + AUs", "all + AUs"]
    print(table(header, search_rows(images)))
    ties = ", ".join(f"{name} {n}" for name, n in tied_pairs(images).items())
    print(f"\nPairs with equal scores, which count as incorrect: {ties}.")

    changes = []
    for statistic in (rating_correlations, emotion_rank_sums):
        as_released, tied = statistic(all_images, None), statistic(all_images)
        changes.append(np.abs(as_released - tied).iloc[:, ::2].max(axis=None))
    print(f"\nEqual activations rank as equal: rho changes by at most {changes[0]:.1e}, z by at most {changes[1]:.1e}.")

    # Frames: which clips start late, and what two decimals instead of three would do to the reaction clips.
    black = read_black_images(folders, sessions)
    n_valid = {3: 0, 2: 0}
    late: list[tuple[str, int, int]] = []
    for participant, clips in find_clips(folders, "reaction", sessions).items():
        features, _ = read_clips([clip.path for clip in clips])
        for decimals in n_valid:
            frames = valid_frames(rounded(features, decimals), config.FRAME_LIMITS)
            activation = clip_activation(features, frames, config.WINDOW_SECONDS)
            valid = activation.valid_share >= config.MINIMUM_VALID_SHARE
            n_valid[decimals] += int(valid.sum())
            if decimals == 3:
                late += [
                    (participant, clip.session, clip.image)
                    for clip, is_late in zip(clips, valid & (activation.first_window > 0), strict=True)
                    if is_late and (clip.session, clip.image) not in black[participant]
                ]
    print(f"\nValid reaction clips: {n_valid[3]} from features with 3 decimals, {n_valid[2]} with 2.")

    is_late = pd.MultiIndex.from_frame(images[["participant", *CLIP_KEY]]).isin(late)
    results = search_preferences(images[~is_late], search_settings("released", **config.PREFERENCE_SEARCH))
    shares = []
    for name in (f"AUcomb_selected_{VALENCE}", VALENCE, INTEGRATED_ENSEMBLE):
        correct, total = correct_and_total(results, name)
        shares.append(f"{correct}/{total} ({100 * correct / total:.2f} %)")
    print(
        f"\nWithout the {len(late)} reaction clips whose first valid window is not the first one (release otherwise): "
        f"selected {shares[0]}, AUcomb on all pairs {shares[1]}, ensemble with AUs {shares[2]}."
    )


if __name__ == "__main__":
    run(main)
