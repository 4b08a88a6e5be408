"""A model that tells from reactions which image people prefer, for people who never ranked anything.

It is fitted on everybody who ranked images. The probability that its difference of valence stands for is fitted on
held-out differences: each participant's, by a model that is fitted on the others.

Reads   preparation/preprocessed_reaction_data/<participant>.csv    (stage 7)
        preparation/preprocessed_image_data/<participant>.csv       rankings, and if they are there, scores of stage 5
        preparation/valid_sessions.json, invalid_images.json, AU4_excluded_participants.json
Writes  AU_models/preference_<valence>.json     parameters, probabilities, settings, checksums of the data
        AU_models/preference_fau-net.pth        FAU-Net also as a state dict, with the names of its release
Run     python fit_preference_model.py --valence linear
        python fit_preference_model.py --valence linear --action-units 1 2 4 5 12 15 17 20 25 26
Takes   two seconds, FAU-Net about fifteen; no GPU.

docs/preference_models.md says which model to take and what to expect; annotate_preferences.py uses it.
"""

import argparse
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import config
from fergi.activation import missing_action_units
from fergi.dataset import Folders
from fergi.features import ACTION_UNITS, estimator_of
from fergi.files import FergiError, check_writable
from fergi.preference.fau_net import FAUNet
from fergi.preference.grid_search import TRAINED_SCORERS, search_settings
from fergi.preference.linear import Linear
from fergi.preference.model import VALENCE_MODELS, PreferenceModel
from fergi.preference.reading import included_sessions, read_ranked_reactions
from fergi.script import argument_parser, run
from fergi.weights import save_weights


def main(arguments: Sequence[str] | None = None) -> None:
    """Read reactions and rankings, fit, write the model, and say what it is."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.action_units and chosen.valence != "linear":
        parser.error("--action-units goes with --valence linear")
    folders = Folders(chosen.root)
    units = action_units(folders, chosen.valence, chosen.action_units)
    options: dict[str, Any] = dict(config.VALENCE_MODELS[chosen.valence])
    if chosen.valence == "linear":
        options["action_units"] = units
    included, excluded = included_sessions(folders, everybody=chosen.everybody or chosen.valence == "fau-net")
    scorers = TRAINED_SCORERS if chosen.scorers or have_scores(folders, included) else ()
    images = read_ranked_reactions(folders, included, units, f"The model {chosen.valence}", image_columns=scorers)
    check_writable(folders.au_models)
    search = search_settings("paper", **config.PREFERENCE_SEARCH) if scorers else None
    plain = {name: value for name, value in options.items() if isinstance(value, int | float)}
    settings = estimator_of(folders.activation_tables("reaction")) | plain | {"n_excluded": len(excluded)}
    try:
        model = PreferenceModel.fit(
            chosen.valence, images, options, search=search, settings=settings, data=checksums(folders, included)
        )
    except ValueError as error:
        raise FergiError(f"The tables in {folders.preparation} cannot be fitted: {error}.") from error
    output = folders.au_models / f"preference_{chosen.valence}.json"
    written = [output]
    if isinstance(model.model, FAUNet):
        written.append(output.with_suffix(".pth"))
        save_weights(model.model.state_dict(), written[-1])
    model.save(output)
    for sentence in report(model, images, len(excluded)):
        print(sentence)
    print(f"Wrote {' and '.join(str(path) for path in written)}.")


def report(model: PreferenceModel, images: pd.DataFrame, n_excluded: int) -> Iterable[str]:
    """What was fitted, in sentences."""
    settings = model.settings
    yield (
        f"{settings['n_participants']} participants ({n_excluded} excluded), {len(images)} images with a valid "
        f"reaction, {settings['n_pairs']} pairs."
    )
    if isinstance(model.model, Linear):
        yield "Weights (logits per log of 1 + intensity units):"
        yield "  ".join(f"AU{unit} {weight:+.3f}" for unit, weight in zip(*vars(model.model).values(), strict=True))
    elif model.threshold is not None:
        yield "  ".join(f"{name} {value:g}" for name, value in model.model.parameters().items())
    yield (
        f"Held-out differences of valence count {model.slope:.3f} logits per unit (standard error "
        f"{model.slope_error:.3f}, over participants)."
    )
    if model.slope == 0:
        yield "They say nothing about preferences here: every probability is 1/2."
    elif model.slope - 1.96 * model.slope_error < 0:
        yield "That is not certainly more than 0: these reactions may say nothing about preferences."
    if model.integration is None:
        yield "Without scoring models: the image tables have no scores."


def action_units(folders: Folders, valence: str, asked: Sequence[int] | None) -> tuple[int, ...]:
    """The AUs to fit on, in ascending order.

    Raises
    ------
    FergiError
        If the linear model should take AUs that the activation tables lack.
    """
    units = tuple(sorted(set(asked or getattr(VALENCE_MODELS[valence], "action_units", ACTION_UNITS))))
    missing = missing_action_units(folders.activation_tables("reaction"))
    if valence == "linear" and (lacking := [unit for unit in units if unit in missing]):
        left = " ".join(str(unit) for unit in units if unit not in missing)
        raise FergiError(
            f"The activation tables have no {', '.join(f'AU{unit}' for unit in lacking)}, since their estimator does "
            f"not give them. Fit on others: --action-units {left or ' '.join(map(str, set(ACTION_UNITS) - {*missing}))}"
        )
    return units


def have_scores(folders: Folders, participants: Iterable[str]) -> bool:
    """Whether every image table has the scores of ``TRAINED_SCORERS``."""
    paths = [folders.image_tables / f"{participant}.csv" for participant in participants]
    headers = [path.read_text(errors="replace").partition("\n")[0].split(",") for path in paths if path.is_file()]
    return bool(headers) and all(set(TRAINED_SCORERS) <= set(header) for header in headers)


def checksums(folders: Folders, participants: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the participants' tables, one after the other: what ``cat 001.csv 002.csv … | sha256sum`` prints."""
    sums: dict[str, str] = {}
    for folder in (folders.activation_tables("reaction"), folders.image_tables):
        paths: list[Path] = [folder / f"{participant}.csv" for participant in participants]
        sums[folder.name] = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    return sums


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    parser.add_argument("--valence", choices=VALENCE_MODELS, default="linear", help="(default: %(default)s)")
    parser.add_argument(
        "--action-units",
        type=int,
        nargs="+",
        choices=ACTION_UNITS,
        metavar="AU",
        help="the AUs of the linear model (default: all 12), where an estimator does not give all",
    )
    parser.add_argument(
        "--everybody", action="store_true", help="also whom stage 8 excludes; fau-net always takes everybody"
    )
    parser.add_argument(
        "--scorers",
        action="store_true",
        help="stop if the image tables have no scores, for annotate_preferences.py --with-scorers",
    )
    return parser


if __name__ == "__main__":
    run(main)
