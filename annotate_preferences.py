"""Which image of each pair people prefer, from their faces alone, and files for trainers.

Nobody needs to have ranked anything. A fitted model gives the valence of each reaction, and of each pair of images of
a session the probability that the first is preferred; below a minimum it abstains, and says why.

Reads   AU_models/preference_<valence>.json                      (fit_preference_model.py), or --model FILE
        preparation/preprocessed_reaction_data/<participant>.csv (stage 7), of any participants
        preparation/valid_sessions.json, invalid_images.json, AU4_excluded_participants.json    if they are there
        data/<participant>/session_<n>/                          prompts (data.json) and pictures, if they are there
        preparation/preprocessed_image_data/<participant>.csv    with --with-scorers; with --held-out also the rankings
Writes  results/preferences.csv: participant, session, prompt, images, valences, probability, verdict, reason
        results/preferences_settings.json
        DIR/<format>/                                            with --export FORMAT --out DIR
        results/preferences_held_out.csv                         with --held-out, and nothing else
Run     python annotate_preferences.py
        python annotate_preferences.py --valence aucomb --coverage 0.2 --export pick-a-pic hpd-v3 --out pairs
        python annotate_preferences.py --held-out
Takes   10 ms a participant, and as long as pictures take to copy; a minute with --held-out; no GPU.

docs/annotation.md says what to expect, what the formats hold, and how activation values of another AU estimator are
used (--match-distribution).
"""

import argparse
import contextlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

import config
from fergi.dataset import Folders
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, check_writable, new_folder, replacing, sha256, write_json, write_table
from fergi.held_out import NAMES, as_predictions, calibration_table, read_held_out, show_figure
from fergi.held_out import summary as summary_of
from fergi.preference.annotation import Annotator, Certainties, People, Summary, check_estimator, decide, require_pairs
from fergi.preference.card import data_card
from fergi.preference.exports import EXPORTS, Exporter, Options, SharedPairs
from fergi.preference.grid_search import TRAINED_SCORERS
from fergi.preference.matching import DistributionMap
from fergi.preference.model import VALENCE_MODELS, PreferenceModel, held_out
from fergi.preference.reading import included_sessions, read_ranked_reactions
from fergi.script import argument_parser, run
from fergi.statistics import RESAMPLES, SEED


def main(arguments: Sequence[str] | None = None) -> None:
    """Annotate participant by participant, write, export, and say what to expect."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not 0.5 <= chosen.minimum_probability <= 1 or not 0 < (1 if chosen.coverage is None else chosen.coverage) <= 1:
        parser.error("--minimum-probability must be from 0.5 to 1, and --coverage above 0 and at most 1")
    if bool(chosen.export) != bool(chosen.out):
        parser.error("--export and --out need each other")
    if (chosen.hard_labels or chosen.copy_pictures) and not chosen.export:
        parser.error("--hard-labels and --copy-pictures go with --export")
    of_annotation = (chosen.model, chosen.coverage, chosen.with_scorers, chosen.match_distribution, chosen.export)
    if any(of_annotation) if chosen.held_out else chosen.everybody:
        parser.error("--held-out takes --everybody and no other option, and nothing else takes --everybody")
    folders = Folders(chosen.root)
    if chosen.held_out:
        annotate_held_out(folders, everybody=chosen.everybody)
    else:
        annotate(folders, chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--valence", choices=VALENCE_MODELS, default="linear", help="which model (default: %(default)s)")
    model.add_argument("--model", type=Path, metavar="FILE", help="a model's file, in place of that in AU_models/")
    sure = parser.add_mutually_exclusive_group()
    sure.add_argument(
        "--minimum-probability",
        type=float,
        default=0.7,
        metavar="P",
        help="below this there is no verdict (default: %(default)s)",
    )
    sure.add_argument(
        "--coverage", type=float, metavar="X", help="in its place: a verdict on the surest share of pairs"
    )
    parser.add_argument("--with-scorers", action="store_true", help="join the scoring models in (Section 6.2.5)")
    parser.add_argument(
        "--match-distribution",
        action="store_true",
        help="map activation values of another AU estimator by rank to those of the model's data",
    )
    parser.add_argument("--export", nargs="+", choices=EXPORTS, default=[], metavar="FORMAT", help=", ".join(EXPORTS))
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder for the exports")
    parser.add_argument("--hard-labels", action="store_true", help="1 and 0 in place of probabilities in pick-a-pic")
    parser.add_argument("--copy-pictures", action="store_true", help="copy pictures into exports that hold paths")
    parser.add_argument("--held-out", action="store_true", help="annotate who ranked, by models that never saw them")
    parser.add_argument("--everybody", action="store_true", help="with --held-out: also whom stage 8 excludes")
    return parser


def annotate(folders: Folders, chosen: argparse.Namespace) -> None:
    """Annotate all participants with one model, one at a time."""
    path = chosen.model or folders.au_models / f"preference_{chosen.valence}.json"
    model = PreferenceModel.load(path)
    if chosen.with_scorers and model.integration is None:
        raise FergiError(f"{path} was fitted without scoring models. Fit it again where there are image tables.")
    options = export_options(folders, chosen, model)
    people = People(folders, TRAINED_SCORERS if chosen.with_scorers else ())
    estimator, notes = check_estimator(folders, model, match=chosen.match_distribution)
    matching = None
    if chosen.match_distribution:
        matching = DistributionMap((each.reactions for each in people), model.activation_quantiles)
    annotator = Annotator(model, chosen.with_scorers, matching)
    minimum = least_probability(annotator, people, chosen)
    settings = {
        "model": path.name,
        "model_sha256": sha256(path),
        "valence_model": model.valence_model,
        **estimator,
        "minimum_probability": minimum,
        "coverage": chosen.coverage,
        "with_scorers": chosen.with_scorers,
        "match_distribution": chosen.match_distribution,
        "matched_reactions": matching.n_reactions if matching else None,
    }
    check_writable(folders.results)
    summary, shared = Summary(annotator.slopes), None
    with contextlib.ExitStack() as stack:
        if chosen.export:
            folder = stack.enter_context(new_folder(chosen.out))
            exporter = stack.enter_context(Exporter(folder, chosen.export, options))
            shared = SharedPairs(folders, exporter, Summary(annotator.slopes))
        file = stack.enter_context(replacing(folders.preferences))
        file.write((",".join(annotator.columns) + "\n").encode())
        for each in people:
            pairs = decide(annotator.pairs(each), minimum)
            summary.add(each, pairs)
            pairs.to_csv(file, index=False, header=False)
            if shared:
                shared.add(each, pairs, annotator.reactions(each))
        require_pairs(summary)
        if shared:
            shared.require_rows()
            write_about(folder, folders, settings, model, shared)
        folders.preferences_settings.unlink(missing_ok=True)
    write_json(settings, folders.preferences_settings)
    print(*notes, *summary.sentences(), *(shared.sentences() if shared else ()), sep="\n")
    print(f"Wrote {folders.preferences}{f' and {chosen.out}' if shared else ''}.")


def export_options(folders: Folders, chosen: argparse.Namespace, model: PreferenceModel) -> Options:
    """How pairs are exported; Diffusion-KTO's single pictures need the parameters of AUcomb."""
    aucomb = None
    if "diffusion-kto" in chosen.export:
        of_aucomb = model.valence_model == "aucomb"
        aucomb = (model if of_aucomb else PreferenceModel.load(folders.au_models / "preference_aucomb.json")).model
    return Options(chosen.hard_labels, chosen.copy_pictures, aucomb)


def least_probability(annotator: Annotator, people: People, chosen: argparse.Namespace) -> float:
    """The probability below which there is no verdict: as given, or that of the coverage, from a first pass."""
    if chosen.coverage is None:
        return chosen.minimum_probability
    certainties = Certainties()
    for each in people:
        certainties.add(annotator.pairs(each))
    return certainties.minimum_probability(chosen.coverage)


def write_about(
    folder: Path, folders: Folders, settings: dict[str, object], model: PreferenceModel, shared: SharedPairs
) -> None:
    """What the exports were made with, beside them, and the data card of ``datasets``."""
    counts = {"people": shared.n_people, "people_withheld": shared.n_people_withheld}
    write_json(
        settings | counts | {f"rows_{name}": n for name, n in shared.exporter.n_rows.items()}, folder / "settings.json"
    )
    if "datasets" in shared.exporter.n_rows:
        measured = None
        if folders.preferences_held_out.is_file() and not settings["with_scorers"]:
            of_model = read_held_out(folders).query("model == @settings['valence_model']")
            if len(of_model):
                measured = calibration_table(of_model, resamples=RESAMPLES, seed=SEED)
        counts["pairs"] = shared.exporter.n_rows["datasets"]
        card = data_card(settings, model.settings, counts, shared.summary.expectation(), measured)
        (folder / "datasets" / "README.md").write_text(card, encoding="utf-8")


def annotate_held_out(folders: Folders, *, everybody: bool) -> None:
    """Annotate each participant who ranked with every valence model fitted on the others, and compare."""
    included, _ = included_sessions(folders, everybody=everybody)
    reactions = read_ranked_reactions(folders, included, ACTION_UNITS, "The comparison of valence models")
    check_writable(folders.results)
    tables, summaries = [], {}
    for name in VALENCE_MODELS:
        if name == "fau-net" and not find_spec("torch"):
            print("FAU-Net is not compared, because it needs torch, which is not installed: make setup.")
            continue
        try:
            pairs = held_out(name, reactions, config.VALENCE_MODELS[name]).pairs
        except ValueError as error:
            raise FergiError(f"The tables in {folders.preparation} cannot be compared: {error}.") from error
        tables.append(as_predictions(name, pairs))
        summaries[NAMES[name]] = summary_of(tables[-1], resamples=RESAMPLES, seed=SEED)
    write_table(pd.concat(tables, ignore_index=True), folders.preferences_held_out)
    print(f"{len(included)} participants, {len(tables[0])} pairs, by models that never saw them [95 % intervals]:\n")
    shown = pd.concat({name: table.apply(show_figure, axis=1) for name, table in summaries.items()}, axis=1)
    print(shown.fillna("–").to_string())
    print(f"\nWrote {folders.preferences_held_out}.")


if __name__ == "__main__":
    run(main)
