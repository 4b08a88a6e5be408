"""Which of two images a person prefers, from their face and from scoring models (Section 6.2.3–6.2.5, Tables 1–2).

Every participant is held out once: all parameters are fitted on the others (eqs. 7–10), and predictions are counted
on the pairs of the participant held out. Scores of registered scorers beside the paper's six are counted, too.

Reads   preparation/preprocessed_image_data/<participant>.csv
        preparation/preprocessed_reaction_data/<participant>.csv
        preparation/AU4_excluded_participants.json, valid_sessions.json, invalid_images.json
        preparation/preprocessed_image_data/settings.json    if stage 5 made the image tables
Writes  results/image_preference_binary_classification_based_on_ranking.csv
        (with _released or _strict before .csv for --mode released or --strict-lopo)
Run     python image_preference_binary_classification_based_on_ranking.py
        python image_preference_binary_classification_based_on_ranking.py --mode released
Takes   about two seconds; no GPU.

With the published data the valence score selects 685 of 3,534 pairs and is right on 498 of them (72.70 %).
"""

from collections.abc import Iterable, Sequence

import config
from fergi.activation import require_action_units
from fergi.dataset import CLIP_KINDS, Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
from fergi.features import require_one_estimator
from fergi.files import FergiError, check_writable, write_table
from fergi.preference.grid_search import search_settings
from fergi.preference.results import SCORERS, additional_scorers, search_preferences, tables_1_and_2
from fergi.scorers.origin import score_origins
from fergi.script import RELEASE_MODES, argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the images and reactions of the included participants, search, write the counts."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--mode",
        choices=RELEASE_MODES,
        default="paper",
        help="where the paper and the released code differ, follow this one (default: %(default)s)",
    )
    parser.add_argument(
        "--strict-lopo",
        action="store_true",
        help="training participants carry the parameters of the fold at hand, which never saw the one held out",
    )
    chosen = parser.parse_args(arguments)
    folders = Folders(chosen.root)
    sessions = read_valid_sessions(folders)
    excluded = read_excluded_participants(folders, sessions)
    included = {participant: numbers for participant, numbers in sessions.items() if participant not in excluded}
    if not included:
        raise FergiError(f"{folders.excluded_participants} excludes all {len(sessions)} participants; nobody is left.")
    require_one_estimator(folders.activation_tables(kind) for kind in CLIP_KINDS)
    require_action_units(folders.activation_tables("reaction"), (4, 12), "AUcomb")
    scorers = scorer_columns(folders, included)
    images = read_image_reactions(
        folders,
        included,
        image_columns=["rank_score", *scorers],
        activation_columns=["AU4_activation_value", "AU12_activation_value"],
    )
    check_writable(folders.results)
    search = search_settings(chosen.mode, strict=chosen.strict_lopo, **config.PREFERENCE_SEARCH)
    try:
        results = search_preferences(images, search)
    except ValueError as error:
        raise FergiError(f"The tables in {folders.preparation} cannot be searched: {error}.") from error
    output = folders.preference_results(chosen.mode, chosen.strict_lopo)
    write_table(results, output)

    print(f"{len(included)} participants ({len(excluded)} excluded), {len(images)} images with a valid reaction.")
    accuracies = tables_1_and_2(results).rename_axis(None)[["correct", "total", "percent"]]
    print(accuracies.to_string(float_format="{:.2f}".format, na_rep="no pairs"))
    for sentence in score_origins(folders, included, images[scorers]):
        print(sentence)
    print(f"Wrote {output}.")


def scorer_columns(folders: Folders, participants: Iterable[str]) -> list[str]:
    """The columns of the paper's six scorers, and of each other registered scorer that an image table has."""
    paths = [folders.image_tables / f"{participant}.csv" for participant in participants]
    headers = [path.read_text(errors="replace").partition("\n")[0] for path in paths if path.is_file()]
    return [*SCORERS, *additional_scorers(",".join(headers).split(","))]


if __name__ == "__main__":
    run(main)
