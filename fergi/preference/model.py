"""A valence model fitted on everybody, with the probability that its differences stand for, as a file.

    model = PreferenceModel.load(Path("AU_models/preference_linear.json"))
    valence = model.valence(activation_table)
    model.probability(valence[0] - valence[1])      # that the first reaction's image is preferred

``held_out`` gives what models say about people whom they never saw.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import pandas as pd
from scipy.special import expit

from fergi.activation import ACTIVATION_COLUMNS
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, read_json, write_json
from fergi.preference.aucomb import AUcomb
from fergi.preference.checks import check
from fergi.preference.fau_net import FAUNet
from fergi.preference.folds import own_valence, training_masks
from fergi.preference.grid_search import (
    ENSEMBLE,
    TRAINED_SCORERS,
    WITH_AUS,
    Integration,
    Search,
    fit_integration,
    held_out_integration,
)
from fergi.preference.linear import Linear
from fergi.preference.logistic import fit_logistic, fit_slope, slope_error
from fergi.preference.matching import N_QUANTILES, activation_quantiles
from fergi.preference.pairs import Pairs, pairs_of

FORMAT = 1


class ValenceModel(Protocol):
    """What a valence model does; ``AUcomb``, ``FAUNet`` and ``Linear`` do it.

    Attributes
    ----------
    action_units : tuple of int
        The AUs that it needs.
    inner_folds : int or None
        Into how many groups ``held_out`` divides the training participants; None: each is a group.
    """

    action_units: tuple[int, ...]
    inner_folds: int | None

    def valence(self, reactions: pd.DataFrame) -> np.ndarray:
        """Valence of reactions from their ``AU<n>_activation_value``; higher is more pleased, shape (n_reactions,)."""

    @classmethod
    def fit(cls, reactions: pd.DataFrame, pairs: Pairs, training: np.ndarray, **options: Any) -> list[Self]:
        """One model for each row of ``training``: which participants it sees, bool, (n_fits, n_participants)."""

    def parameters(self) -> dict[str, Any]:
        """Plain numbers for a JSON file."""

    @classmethod
    def from_parameters(cls, parameters: Any) -> Self:
        """The other way round; ValueError says what does not fit."""


VALENCE_MODELS: dict[str, type[ValenceModel]] = {"aucomb": AUcomb, "fau-net": FAUNet, "linear": Linear}


@dataclass(frozen=True)
class PreferenceModel:
    """A valence model for new people.

    Attributes
    ----------
    valence_model : str
        Key of ``VALENCE_MODELS``.
    model : ValenceModel
        The fitted parameters.
    slope : float
        b of P(first preferred) = σ(b · difference of valence), fitted on held-out differences; at least 0.
    settings : dict
        ``estimator`` and ``estimator_version`` of the activation values, ``n_participants``, ``n_pairs``, and more.
    data : dict
        SHA-256 sums of the data that it was fitted on.
    integration : Integration or None
        The join with scoring models (Section 6.2.5), if there were scores.
    integrated_slope : float or None
        Like ``slope``, for differences of ``score_with_scorers``.
    slope_error, integrated_slope_error : float
        Standard errors of the slopes, over participants.
    activation_quantiles : dict
        Activation column → evenly spaced quantiles of the data that it was fitted on (``fergi.preference.matching``).
    """

    valence_model: str
    model: ValenceModel
    slope: float
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    integration: Integration | None = None
    integrated_slope: float | None = None
    slope_error: float = 0.0
    integrated_slope_error: float = 0.0
    activation_quantiles: dict[str, list[float]] = field(default_factory=dict)

    @property
    def action_units(self) -> tuple[int, ...]:
        """The AUs that the model needs."""
        return self.model.action_units

    @property
    def threshold(self) -> float | None:
        """AUcomb's d (Section 6.2.4): pairs whose valence differs by this or more are selected; else None."""
        return getattr(self.model, "threshold", None)

    def missing_units(self, reactions: pd.DataFrame) -> list[int]:
        """The AUs that the model needs and no row of the table has."""
        columns = {unit: f"AU{unit}_activation_value" for unit in self.action_units}
        return [unit for unit, name in columns.items() if name not in reactions or reactions[name].isna().all()]

    def valence(self, reactions: pd.DataFrame) -> np.ndarray:
        """Valence of reactions, NaN where an AU that the model needs is missing, shape (n_reactions,).

        ``reactions`` has the columns ``AU<n>_activation_value``, in intensity units; no other column is looked at.
        """
        names = [f"AU{unit}_activation_value" for unit in self.action_units]
        return self.model.valence(reactions.reindex(columns=names))

    def probability(self, difference: np.ndarray) -> np.ndarray:
        """Probability that the first image is preferred, from valence of the first minus valence of the second."""
        return expit(self.slope * np.asarray(difference))

    def score_with_scorers(self, images: pd.DataFrame) -> np.ndarray:
        """Scores of the ensemble with AUs (eq. 10), shape (n_images,).

        ``images`` has ``TRAINED_SCORERS`` beside the activation values. Only for a model that has an ``integration``.
        """
        return self.integration.scores(images, self.valence(images))[WITH_AUS[ENSEMBLE]].to_numpy()

    def probability_with_scorers(self, difference: np.ndarray) -> np.ndarray:
        """As ``probability``, from differences of ``score_with_scorers``."""
        return expit(self.integrated_slope * np.asarray(difference))

    @classmethod
    def fit(
        cls,
        valence_model: str,
        reactions: pd.DataFrame,
        options: Mapping[str, Any],
        *,
        search: Search | None = None,
        settings: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> Self:
        """A model for new people, fitted on everybody.

        Parameters
        ----------
        valence_model : str
            Key of ``VALENCE_MODELS``.
        reactions : pandas.DataFrame
            One row an image with a valid reaction: ``participant``, ``session_index``, ``rank_score`` and the
            activation values; with ``search`` also ``TRAINED_SCORERS``.
        options : mapping
            For the ``fit`` of the valence model (config.VALENCE_MODELS).
        search : Search, optional
            Grids of the integration with scoring models; without it there is none.
        settings, data : mapping, optional
            See the attributes.

        Raises
        ------
        ValueError
            If fewer than two participants have pairs, ranks are tied, a score does not vary, or an activation value
            is missing.
        """
        kind = VALENCE_MODELS[valence_model]
        pairs = _checked_pairs(kind, reactions, options, 2)
        n_participants = len(pairs.names)
        model = kind.fit(reactions, pairs, training_masks([None], n_participants), **options)[0]
        held_out_models = kind.fit(reactions, pairs, training_masks(range(n_participants), n_participants), **options)
        valence = own_valence(held_out_models, reactions, pairs.owner)
        counted = {"n_participants": n_participants, "n_pairs": len(pairs)}
        parts: dict[str, Any] = {"settings": {**(settings or {}), **counted}, "data": dict(data or {})}
        if search:
            folds = fit_integration(reactions, pairs, [valence] * n_participants, search, range(n_participants))
            scores = held_out_integration(reactions, pairs.owner, valence, folds)[WITH_AUS[ENSEMBLE]].to_numpy()
            parts["integration"] = fit_integration(reactions, pairs, [valence], search, [None])[0]
            slope, error = _slope_with_error(pairs, scores)
            parts |= {"integrated_slope": slope, "integrated_slope_error": error}
        slope, parts["slope_error"] = _slope_with_error(pairs, valence)
        parts["activation_quantiles"] = activation_quantiles(reactions)
        return cls(valence_model, model, slope, **parts)

    def save(self, path: Path) -> None:
        """Write the model as JSON, all or nothing."""
        integration = None
        if self.integration:
            columns = _integration_columns()
            integration = {
                name: dict(zip(columns[name], values.tolist(), strict=True))
                for name, values in vars(self.integration).items()
            }
            integration |= {"slope": self.integrated_slope, "slope_error": self.integrated_slope_error}
        content = {
            "format": FORMAT,
            "valence_model": self.valence_model,
            "parameters": self.model.parameters(),
            "calibration": {"slope": self.slope, "slope_error": self.slope_error},
            "integration": integration,
            "settings": self.settings,
            "data": self.data,
            "activation_quantiles": self.activation_quantiles,
        }
        write_json(content, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a model's file.

        Raises
        ------
        FergiError
            If the file is missing, is of another format, or its content is not exactly that of such a file.
        """
        again = f"Make it with: fit_preference_model.py --valence {path.stem.removeprefix('preference_')}"
        content = read_json(path, again)
        try:
            return cls._from_content(content)
        except ValueError as error:
            raise FergiError(f"{path} is no preference model: {error}. {again}") from error

    @classmethod
    def _from_content(cls, content: Any) -> Self:
        form = {
            "format": int,
            "valence_model": str,
            "parameters": dict,
            "calibration": {"slope": (), "slope_error": ()},
        }
        form |= {"integration": object, "settings": dict, "data": dict, "activation_quantiles": dict}
        if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
        check(content, form, "the file")
        if content["valence_model"] not in VALENCE_MODELS:
            raise ValueError(f"it has a {content['valence_model']!r}, not one of {', '.join(VALENCE_MODELS)}")
        settings = dict.fromkeys(content["settings"], object)
        settings |= {"estimator": str, "estimator_version": str, "n_participants": int, "n_pairs": int}
        check(content["settings"], settings, "settings")
        check(content["data"], dict.fromkeys(content["data"], str), "data")
        quantiles = {name: (N_QUANTILES,) for name in ACTIVATION_COLUMNS if name in content["activation_quantiles"]}
        check(content["activation_quantiles"], quantiles, "activation_quantiles")
        integration, slope, error = None, None, 0.0
        if content["integration"] is not None:
            columns = _integration_columns()
            form = {name: dict.fromkeys(each, ()) for name, each in columns.items()} | {"slope": (), "slope_error": ()}
            check(content["integration"], form, "integration")
            integration = Integration(
                **{name: np.array([content["integration"][name][each] for each in columns[name]]) for name in columns}
            )
            slope, error = (float(content["integration"][name]) for name in ("slope", "slope_error"))
        return cls(
            content["valence_model"],
            VALENCE_MODELS[content["valence_model"]].from_parameters(content["parameters"]),
            float(content["calibration"]["slope"]),
            content["settings"],
            content["data"],
            integration,
            slope,
            float(content["calibration"]["slope_error"]),
            error,
            content["activation_quantiles"],
        )


def _slope_with_error(pairs: Pairs, scores: np.ndarray) -> tuple[float, float]:
    """Of held-out scores of all images."""
    difference = pairs.difference(scores)
    slope = fit_slope(difference)
    return slope, slope_error(difference, pairs.participant, slope)


def _integration_columns() -> dict[str, tuple[str, ...]]:
    """What the numbers of an ``Integration`` belong to."""
    return dict.fromkeys(("mean", "deviation", "ensemble_weights"), TRAINED_SCORERS) | {
        "integration_weights": (*TRAINED_SCORERS, ENSEMBLE)
    }


def _checked_pairs(
    kind: type[ValenceModel], reactions: pd.DataFrame, options: Mapping[str, Any], n_needed: int
) -> Pairs:
    """The pairs, if all activation values are there, and so many people have pairs that each fold has some."""
    units = options.get("action_units") or getattr(kind, "action_units", ACTION_UNITS)
    missing = [f"AU{unit}" for unit in units if reactions[f"AU{unit}_activation_value"].isna().any()]
    if missing:
        raise ValueError(f"activation values of {', '.join(missing)} are missing")
    pairs = pairs_of(reactions)
    n_with_pairs = len(np.unique(pairs.participant))
    if n_with_pairs < n_needed:
        raise ValueError(
            f"at least {n_needed} participants must have two ranked images with valid reactions in a session, "
            f"and {n_with_pairs} of {len(pairs.names)} have"
        )
    return pairs


class HeldOut(NamedTuple):
    """What models say about people whom they never saw.

    Attributes
    ----------
    images : pandas.DataFrame
        One row an image: ``participant``, ``session_index``, ``image_index``, ``valence``.
    pairs : pandas.DataFrame
        One row a pair: ``participant``, ``session_index``, ``first`` and ``second`` (image numbers, first < second),
        ``first_preferred`` (bool, from the ranking), ``difference`` (valence of the first minus the second),
        ``probability`` (that the first is preferred), for AUcomb ``selected`` (Section 6.2.4), and if there are
        scores, ``probability_with_scorers``, by logistic regression on the differences of valence and scores.
    """

    images: pd.DataFrame
    pairs: pd.DataFrame


def held_out(valence_model: str, reactions: pd.DataFrame, options: Mapping[str, Any]) -> HeldOut:
    """Annotate each participant with a model and a slope that are fitted on the others alone.

    The slope of a participant's probabilities comes from differences of the others, each by a model that saw neither
    them nor the participant: the others are held out in turn, one by one or in ``inner_folds`` groups.

    ``reactions`` and ``options`` are as for ``PreferenceModel.fit``, with ``image_index``; errors, too, but that at
    least three participants must have pairs.
    """
    kind = VALENCE_MODELS[valence_model]
    pairs = _checked_pairs(kind, reactions, options, 3)
    n_participants = len(pairs.names)
    outer = training_masks(range(n_participants), n_participants)
    group = np.arange(n_participants) % (kind.inner_folds or n_participants)
    inner = outer[:, None] & (group != np.arange(group.max() + 1)[:, None])
    masks, place = np.unique(inner.reshape(-1, n_participants), axis=0, return_inverse=True)
    place = place.reshape(inner.shape[:2])
    models = kind.fit(reactions, pairs, np.concatenate([outer, masks]), **options)
    valence = own_valence(models[:n_participants], reactions, pairs.owner)
    difference = pairs.difference(valence)
    inner_difference = np.stack([pairs.difference(model.valence(reactions)) for model in models[n_participants:]])
    scores = [name for name in TRAINED_SCORERS if name in reactions]
    score_difference = pairs.difference(reactions[scores].to_numpy(float))
    probability, with_scorers = np.empty((2, len(pairs)))
    for number, mask in enumerate(outer):
        own, others = pairs.participant == number, np.flatnonzero(mask[pairs.participant])
        seen = inner_difference[place[number, group[pairs.participant[others]]], others]
        probability[own] = expit(fit_slope(seen) * difference[own])
        coefficients = fit_logistic(np.column_stack([seen, score_difference[others]]))
        with_scorers[own] = expit(np.column_stack([difference, score_difference])[own] @ coefficients)
    columns = {"difference": difference, "probability": probability}
    if valence_model == "aucomb":
        threshold = np.array([model.threshold for model in models[:n_participants]])
        columns["selected"] = np.abs(difference) >= threshold[pairs.participant]
    if scores:
        columns["probability_with_scorers"] = with_scorers
    images = reactions[["participant", "session_index", "image_index"]].assign(valence=valence)
    return HeldOut(images, _pair_table(reactions, pairs, columns))


def _pair_table(reactions: pd.DataFrame, pairs: Pairs, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The pairs of ``HeldOut`` from columns about the preferred image first."""
    number = reactions["image_index"].to_numpy()
    images = np.stack([number[pairs.preferred], number[pairs.other]])
    first_preferred = images[0] < images[1]
    table = pd.DataFrame(
        {
            "participant": pairs.names[pairs.participant],
            "session_index": reactions["session_index"].to_numpy()[pairs.preferred],
            "first": images.min(axis=0),
            "second": images.max(axis=0),
            "first_preferred": first_preferred,
            **columns,
        }
    )
    table["difference"] = table["difference"].where(first_preferred, -table["difference"])
    for name in ("probability", "probability_with_scorers"):
        if name in table:
            table[name] = table[name].where(first_preferred, 1 - table[name])
    return table.sort_values(["participant", "session_index", "first", "second"], ignore_index=True)
