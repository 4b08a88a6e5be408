"""What each difference between the paper and its release costs: the README's Differences table.

Every row changes one thing and leaves the rest as the row it is compared with. All numbers come from this run.

Reads   data/ and preparation/ as stages 6 to 8 left them
Run     python -m benchmarks.differences
Takes   about half a minute; no GPU.
"""

from collections.abc import Sequence
from dataclasses import replace

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
from fergi.preference.results import SCORERS, search_preferences, tables_1_and_2
from fergi.script import argument_parser, run
from fergi.statistics import emotion_rank_sums, rating_correlations

RELEASED, PAPER = (search_settings(mode, **config.PREFERENCE_SEARCH) for mode in ("released", "paper"))
SEARCHES = {
    "release": RELEASED,
    "… k only up to 2.0": replace(RELEASED, decays=RELEASED.decays[: len(PAPER.decays)]),
    "… all 66 ensemble weights": replace(RELEASED, ensemble_weights=PAPER.ensemble_weights),
    "… equal activations tie": replace(RELEASED, activation_decimals=PAPER.activation_decimals),
    "… eq. 5 instead of the product": replace(RELEASED, product_valence=False),
    "… strict folds": replace(RELEASED, strict=True),
    "paper mode": PAPER,
    "paper mode, strict folds": replace(PAPER, strict=True),
}
FIGURES = (
    *("AUcomb, selected", "ensemble, all", "AUcomb, all", "ImageReward with AUs, all", "PickScore with AUs, all"),
    *("HPS v2 with AUs, all", "ensemble with AUs, all"),
)


def search_row(images: pd.DataFrame, search: Search, figures: Sequence[str] = FIGURES) -> list[str]:
    """Correct pairs of rows of Tables 1 and 2."""
    rows = tables_1_and_2(search_preferences(images, search)).loc[list(figures)]
    return [f"{row.correct}/{row.total} ({row.percent:.2f} %)" for row in rows.itertuples()]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def late_and_valid_clips(
    folders: Folders, sessions: dict[str, list[int]], *, decimals: int
) -> tuple[list[tuple[str, int, int]], int]:
    """Valid reaction clips whose first valid window is not the first one, but for black images; how many are valid.

    Valid frames are found in features that are rounded to so many decimals; the published ones have three.
    """
    black, late, n_valid = read_black_images(folders, sessions), [], 0
    for participant, clips in find_clips(folders, "reaction", sessions).items():
        features, _ = read_clips(list(clips.values()))
        frames = valid_frames(ClipFeatures(features.starts, np.round(features.values, decimals)), config.FRAME_LIMITS)
        activation = clip_activation(features, frames, config.WINDOW_SECONDS)
        valid = activation.valid_share >= config.MINIMUM_VALID_SHARE
        n_valid += int(valid.sum())
        late += [
            (participant, *image)
            for image, is_late in zip(clips, valid & (activation.first_window > 0), strict=True)
            if is_late and image not in black[participant]
        ]
    return late, n_valid


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
    rows = [[name, *search_row(images, search)] for name, search in SEARCHES.items()]
    print(markdown(["", *FIGURES], rows))
    pairs = pairs_of(images)
    ties = ", ".join(f"{name} {(pairs.difference(images[name]) == 0).sum()}" for name in SCORERS)
    print(f"\nPairs with equal scores, which count as incorrect: {ties}.")

    rho, z = (
        np.abs(statistic(all_images, None) - statistic(all_images)).iloc[:, ::2].max(axis=None)
        for statistic in (rating_correlations, emotion_rank_sums)
    )
    print(f"\nEqual activations rank as equal: rho changes by at most {rho:.1e}, z by at most {z:.1e}.")

    late, n_valid = late_and_valid_clips(folders, sessions, decimals=3)
    _, n_valid_2 = late_and_valid_clips(folders, sessions, decimals=2)
    print(f"\nValid reaction clips: {n_valid} from features with 3 decimals, {n_valid_2} with 2.")
    is_late = pd.MultiIndex.from_frame(images[["participant", *CLIP_KEY]]).isin(late)
    selected, valence, ensemble = search_row(images[~is_late], RELEASED, (FIGURES[0], FIGURES[2], FIGURES[-1]))
    print(
        f"\nWithout the {len(late)} reaction clips whose first valid window is not the first one (release otherwise): "
        f"selected {selected}, AUcomb on all pairs {valence}, ensemble with AUs {ensemble}."
    )


if __name__ == "__main__":
    run(main)
