"""Which of two images a person prefers, from their face and from scoring models (Section 6.2.3–6.2.5, Tables 1–2).

Every participant is held out once: all parameters are fitted on the others (eqs. 7–10), and predictions are counted
on the pairs of the participant held out. Scores of registered scorers beside the paper's six are counted, too.
--valence takes another valence model than the paper's AUcomb: FAU-Net, the authors' later one, or a linear one
(docs/preference_models.md).

Reads   preparation/preprocessed_image_data/<participant>.csv
        preparation/preprocessed_reaction_data/<participant>.csv
        preparation/AU4_excluded_participants.json, valid_sessions.json, invalid_images.json
        preparation/preprocessed_image_data/settings.json    if stage 5 made the image tables
Writes  results/image_preference_binary_classification_based_on_ranking.csv
        (with _NN for FAU-Net or _linear, then _released, _everybody or _strict before .csv for those options), and for
        FAU-Net and linear ..._selection.csv: counts on the pairs that differ most by each score
Run     python image_preference_binary_classification_based_on_ranking.py
        python image_preference_binary_classification_based_on_ranking.py --mode released
        python image_preference_binary_classification_based_on_ranking.py --valence fau-net
Takes   about two seconds, FAU-Net about fifteen for each seed; no GPU.

With the published data the valence score selects 685 of 3,534 pairs and is right on 498 of them (72.70 %).
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

import config
from fergi.dataset import Folders
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, check_writable, write_tables
from fergi.preference.grid_search import Search, search_settings
from fergi.preference.reading import included_sessions, read_ranked_reactions
from fergi.preference.results import SCORERS, additional_scorers, search_preferences, tables_1_and_2
from fergi.scorers.origin import score_origins
from fergi.script import RELEASE_MODES, argument_parser, run

NAMES = {"aucomb": "AUcomb", "fau-net": "FAU-Net", "linear": "linear model"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the images and reactions of the included participants, search, write the counts."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.seeds > 1 and chosen.valence != "fau-net":
        parser.error("only FAU-Net has seeds")
    if chosen.seeds < 1:
        parser.error("--seeds must be at least 1")
    mode = chosen.mode or ("released" if chosen.valence == "fau-net" else "paper")
    folders = Folders(chosen.root)
    everybody = chosen.everybody or chosen.valence == "fau-net"
    included, excluded = included_sessions(folders, everybody=everybody)
    scorers = scorer_columns(folders, included)
    images = read_ranked_reactions(
        folders,
        included,
        (4, 12) if chosen.valence == "aucomb" else ACTION_UNITS,
        NAMES[chosen.valence],
        image_columns=scorers,
    )
    check_writable(folders.results)
    search = search_settings(mode, strict=chosen.strict_lopo, **config.PREFERENCE_SEARCH)
    named_everybody = chosen.everybody and chosen.valence != "fau-net"
    output = folders.preference_results(mode, chosen.strict_lopo, chosen.valence, named_everybody)
    try:
        if chosen.valence == "aucomb":
            tables = {output: search_preferences(images, search)}
        else:
            tables, shown, spread = search_all_seeds(images, chosen.valence, chosen.seeds, search, output)
    except ValueError as error:
        raise FergiError(f"The tables in {folders.preparation} cannot be searched: {error}.") from error
    write_tables(tables)

    print(f"{len(included)} participants ({len(excluded)} excluded), {len(images)} images with a valid reaction.")
    if chosen.valence == "aucomb":
        shown = tables_1_and_2(tables[output]).rename_axis(None)[["correct", "total", "percent"]]
    print(shown.to_string(float_format="{:.2f}".format, na_rep="no pairs"))
    if chosen.seeds > 1:
        print(f"\nSeeds 0 to {chosen.seeds - 1}, percent of all pairs (the table above and the files are of seed 0):")
        print(spread.to_string(float_format="{:.2f}".format))
    for sentence in score_origins(folders, included, images[scorers]):
        print(sentence)
    print(f"Wrote {' and '.join(str(path) for path in tables)}.")


def search_all_seeds(
    images: pd.DataFrame, valence: str, n_seeds: int, search: Search, output: Path
) -> tuple[dict[Path, pd.DataFrame], pd.DataFrame, pd.DataFrame]:
    """The first seed's tables by their paths, its accuracies, and those of each seed with mean, min and max."""
    # Here because SciPy takes half a second, which AUcomb does not need.
    from fergi.preference.folds import training_masks
    from fergi.preference.model import VALENCE_MODELS
    from fergi.preference.pairs import pairs_of
    from fergi.preference.valence_results import accuracies, search_with_valence

    pairs = pairs_of(images)
    training = training_masks(range(len(pairs.names)), len(pairs.names))
    found, by_seed = [], {}
    for seed in range(n_seeds):
        options = config.VALENCE_MODELS[valence] | ({"seed": seed} if valence == "fau-net" else {})
        models = VALENCE_MODELS[valence].fit(images, pairs, training, **options)
        found.append(search_with_valence(images, models, search))
        by_seed[f"seed {seed}"] = accuracies(found[-1][0], NAMES[valence])["percent"]
    results, selection = found[0]
    spread = pd.DataFrame(by_seed).T.filter(regex=f"with AUs|{NAMES[valence]}")
    tables = {output: results, output.with_stem(f"{output.stem}_selection"): selection}
    return tables, accuracies(results, NAMES[valence]), pd.concat([spread, spread.agg(["mean", "min", "max"])])


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("--valence", choices=NAMES, default="aucomb", help="the valence model (default: %(default)s)")
    parser.add_argument(
        "--mode",
        choices=RELEASE_MODES,
        help="where the paper and the released code differ, follow this one (default: paper; released for fau-net, "
        "which is not in the paper)",
    )
    parser.add_argument(
        "--strict-lopo",
        action="store_true",
        help="training participants carry the parameters of the fold at hand, which never saw the one held out",
    )
    parser.add_argument(
        "--everybody", action="store_true", help="without the exclusion of stage 8, which fau-net never has"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="repeat fau-net with N seeds from 0 on, and show the spread"
    )
    return parser


def scorer_columns(folders: Folders, participants: Iterable[str]) -> list[str]:
    """The columns of the paper's six scorers, and of each other registered scorer that an image table has."""
    paths = [folders.image_tables / f"{participant}.csv" for participant in participants]
    headers = [path.read_text(errors="replace").partition("\n")[0] for path in paths if path.is_file()]
    return [*SCORERS, *additional_scorers(",".join(headers).split(","))]


if __name__ == "__main__":
    run(main)
