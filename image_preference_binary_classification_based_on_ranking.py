"""Which of two images a person prefers, from their face and from scoring models (Section 6.2.3–6.2.5, Tables 1–2).

Every participant is left out once: all parameters are found on the others (eqs. 7–10) and counted on the pairs
of the participant left out.

Reads   preparation/preprocessed_image_data/<participant>.csv
        preparation/preprocessed_reaction_data/<participant>.csv
        preparation/AU4_excluded_participants.json, valid_sessions.json, invalid_images.json
        preparation/preprocessed_image_data/scores.json    if stage 5 made the image tables
Writes  results/image_preference_binary_classification_based_on_ranking.csv
        (with _released or _strict before .csv for --mode released or --strict-lopo)
Run     python image_preference_binary_classification_based_on_ranking.py
        python image_preference_binary_classification_based_on_ranking.py --mode released
Takes   about two seconds; no GPU.

With the published data the valence score selects 685 of 3,534 pairs and is right on 498 of them (72.70 %).
"""

from collections.abc import Sequence

import config
from fergi.dataset import Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
from fergi.files import FergiError, check_writable, write_table
from fergi.lopo import SCORERS, accuracy_table, search_preferences, search_settings
from fergi.scorers.record import describe_scores
from fergi.script import RELEASE_MODES, argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the images and reactions of the included participants, search, write the counts."""
    parser = argument_parser(__doc__, config.ROOT)
    parser.add_argument(
        "--mode",
        choices=RELEASE_MODES,
        default="paper",
        help="where the paper and the released code differ, follow this one (default: %(default)s)",
    )
    parser.add_argument(
        "--strict-lopo",
        action="store_true",
        help="training participants carry the parameters of the fold at hand, which never saw the one left out",
    )
    chosen = parser.parse_args(arguments)
    folders = Folders(chosen.root)
    sessions = read_valid_sessions(folders)
    excluded = read_excluded_participants(folders, sessions)
    included = {participant: numbers for participant, numbers in sessions.items() if participant not in excluded}
    if not included:
        raise FergiError(
            f"{folders.excluded_participants} leaves out all {len(sessions)} participants; nobody is left."
        )
    images = read_image_reactions(
        folders,
        included,
        image_columns=["rank_score", *SCORERS],
        activation_columns=["AU4_activation_value", "AU12_activation_value"],
    )
    search = search_settings(
        chosen.mode,
        strict=chosen.strict_lopo,
        **config.PREFERENCE_SEARCH,
    )
    check_writable(folders.results)
    try:
        results = search_preferences(images, search)
    except ValueError as error:
        raise FergiError(f"The tables in {folders.preparation} cannot be searched: {error}.") from error
    output = folders.preference_results(chosen.mode, chosen.strict_lopo)
    write_table(results, output)

    print(f"{len(included)} participants ({len(excluded)} left out), {len(images)} images with a valid reaction.")
    print(accuracy_table(results).to_string(index=False, na_rep="", float_format="{:.2f}".format))
    for sentence in describe_scores(folders, included, images[list(SCORERS)]):
        print(sentence)
    print(f"Wrote {output}.")


if __name__ == "__main__":
    run(main)
