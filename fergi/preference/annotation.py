"""Which image of each pair a person prefers, from reactions alone: valences, probabilities, verdicts, abstentions.

Nobody needs to have ranked anything. All pairs of images of a session appear, whether their reactions are valid or
not; a pair without a verdict says why. Participants are annotated one at a time, so memory does not grow with their
number.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from tqdm import tqdm

from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import (
    CLIP_KEY,
    CLIP_KINDS,
    VIDEO_ENDINGS,
    Folders,
    read_black_images,
    read_excluded_participants,
    read_valid_sessions,
)
from fergi.features import estimator_of
from fergi.files import FergiError, read_json, read_table, summarise
from fergi.preference.matching import DistributionMap
from fergi.preference.model import PreferenceModel

FIRST, SECOND, ABSTAIN = "first", "second", "abstain"
BLACK, INVALID, SMALL, NO_SCORES = "black image", "invalid reaction", "difference too small", "no scores"
EXCLUDED = "participant excluded"
COLUMNS = (
    *("participant", "session_index", "prompt", "first_image", "second_image", "first_valence", "second_valence"),
    *("probability_first", "verdict", "reason"),
)
SCORE_COLUMNS = ("first_score", "second_score")  # with scoring models, after the valences
_STEPS = 100_000  # of a probability between 1/2 and 1, for the threshold of a coverage
MOST_IMAGES = 1000  # of a session; a higher number is a mistake
STAGE_7_ADVICE = "Run preprocess_reaction_data.py first."


@dataclass(frozen=True)
class Annotator:
    """How reactions become pairs.

    Attributes
    ----------
    model : PreferenceModel
        The fitted model.
    with_scorers : bool
        Whether scoring models join in (Section 6.2.5); the model then has an ``integration``.
    matching : DistributionMap or None
        The map of activation values to the published distribution, if they come from another estimator.
    """

    model: PreferenceModel
    with_scorers: bool = False
    matching: DistributionMap | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the table of pairs."""
        place = COLUMNS.index("probability_first")
        return (*COLUMNS[:place], *(SCORE_COLUMNS if self.with_scorers else ()), *COLUMNS[place:])

    @property
    def slopes(self) -> tuple[float, float, float]:
        """The slope of the probabilities at the ends of its 95 % interval, relative to the slope, which is first."""
        slope, error = self.model.slope, self.model.slope_error
        if self.with_scorers:
            slope, error = self.model.integrated_slope, self.model.integrated_slope_error
        margin = 1.96 * error / slope if slope > 0 else 0.0
        return 1.0, max(0.0, 1 - margin), 1 + margin

    def reactions(self, participant: "Participant") -> pd.DataFrame:
        """The participant's activation values as the model takes them."""
        return self.matching(participant.reactions) if self.matching else participant.reactions

    def pairs(self, participant: "Participant") -> pd.DataFrame:
        """All pairs of images of one participant.

        Returns
        -------
        pandas.DataFrame
            ``columns``, by session, first and second image (first < second), all but ``verdict``; ``reason`` where
            there is no probability, which is NaN then.
        """
        reactions, start = self.reactions(participant), participant.start
        values = {"valence": self.model.valence(reactions)}
        if self.with_scorers:
            scored = reactions.merge(participant.scores, on=list(CLIP_KEY), how="left")
            values["score"] = self.model.score_with_scorers(scored)
        n_images = sum(participant.n_images.values())
        place = [
            start[session] + image - 1 for session, image in zip(*(reactions[name] for name in CLIP_KEY), strict=True)
        ]
        known, black = np.zeros((2, n_images), bool)
        known[place] = True
        black[[start[session] + image - 1 for session, image in participant.black if session in start]] = True
        session, first, second = _all_pairs(participant)
        both = np.stack([first, second]) + np.array([start[each] - 1 for each in session.tolist()], int)
        of_image = {name: np.full(n_images, np.nan) for name in values}
        columns: dict[str, Any] = {"participant": participant.name, "session_index": session}
        columns |= {"prompt": [participant.prompts.get(each) for each in session.tolist()]}
        columns |= {"first_image": first, "second_image": second}
        for name, own in values.items():
            of_image[name][place] = own
            columns |= dict(zip((f"first_{name}", f"second_{name}"), of_image[name][both], strict=True))
        name, probability = "valence", self.model.probability
        if self.with_scorers:
            name, probability = "score", self.model.probability_with_scorers
        columns["probability_first"] = probability(-np.diff(of_image[name][both], axis=0)[0])
        missing = ", ".join(f"AU{unit}" for unit in self.model.missing_units(reactions))
        # A black image explains an invalid reaction, and either explains a missing number.
        causes = {
            BLACK: black[both].any(axis=0),
            INVALID: ~known[both].all(axis=0),
            f"missing {missing}" if missing else NO_SCORES: np.isnan(columns["probability_first"]),
            EXCLUDED: np.full(len(first), participant.excluded and self.model.valence_model == "aucomb"),
        }
        columns["reason"] = np.select(list(causes.values()), list(causes), "")
        columns["probability_first"][columns["reason"] != ""] = np.nan
        return pd.DataFrame(columns | {"verdict": ""}, columns=self.columns)


@dataclass(frozen=True)
class Participant:
    """What is known of one participant.

    Attributes
    ----------
    name : str
        The participant.
    n_images : mapping
        Session → how many images it showed.
    reactions : pandas.DataFrame
        The activation table of stage 7: ``CLIP_KEY`` and ``ACTIVATION_COLUMNS``.
    black : frozenset
        (session, image) of black images.
    prompts : mapping
        Session → prompt, of sessions that have a ``data.json``.
    scores : pandas.DataFrame or None
        ``CLIP_KEY`` and the scores of images.
    pictures : mapping
        (session, image) → file, of those that are there.
    excluded : bool
        Whether stage 8 excludes the participant, whom AUcomb does not annotate then.
    """

    name: str
    n_images: Mapping[int, int]
    reactions: pd.DataFrame
    black: frozenset[tuple[int, int]] = frozenset()
    prompts: Mapping[int, str] = field(default_factory=dict)
    scores: pd.DataFrame | None = None
    pictures: Mapping[tuple[int, int], Path] = field(default_factory=dict)
    excluded: bool = False

    @property
    def start(self) -> dict[int, int]:
        """Session → how many images the sessions before it showed."""
        return dict(zip(self.n_images, itertools.accumulate(self.n_images.values(), initial=0), strict=False))


def _all_pairs(participant: Participant) -> np.ndarray:
    """Session and numbers of both images of every pair, int, shape (3, n_pairs)."""
    parts = [np.zeros((3, 0), int)]
    for session, n in participant.n_images.items():
        first, second = np.triu_indices(n, 1)
        parts.append(np.stack([np.full(len(first), session), first + 1, second + 1]))
    return np.concatenate(parts, axis=1)


class People:
    """All participants under one root, read one at a time, as often as they are iterated over.

    Raises
    ------
    FergiError
        If there is nobody, or a file is missing or unusable.
    """

    def __init__(self, folders: Folders, score_columns: Sequence[str] = ()) -> None:
        self.folders, self.score_columns = folders, score_columns
        self.sessions = find_participants(folders)
        self.black: Mapping[str, set[tuple[int, int]]] = {}
        if folders.black_images.is_file():
            self.black = read_black_images(folders, self.sessions)
        self.excluded: list[str] = []
        if folders.excluded_participants.is_file():
            self.excluded = read_excluded_participants(folders, self.sessions)

    def __iter__(self) -> Iterator[Participant]:
        for name in tqdm(self.sessions, "annotation", unit="participant", disable=None, leave=False):
            black, excluded = self.black.get(name, ()), name in self.excluded
            yield read_participant(
                self.folders, name, self.sessions[name], black, self.score_columns, excluded=excluded
            )


def check_estimator(folders: Folders, model: PreferenceModel, *, match: bool) -> tuple[dict[str, str], list[str]]:
    """The estimator of the activation values, if the model may be used with it, and sentences on how they differ.

    Raises
    ------
    FergiError
        If the model was fitted on values of another estimator and they are not to be matched, or if they are and the
        model's file has no distribution of an AU.
    """
    unknown = [unit for unit in model.action_units if f"AU{unit}_activation_value" not in model.activation_quantiles]
    if match and unknown:
        raise FergiError(
            f"The model's file has no distribution of AU{unknown[0]}. Fit it with fit_preference_model.py."
        )
    own = estimator_of(folders.activation_tables("reaction"))
    names = ("estimator", "estimator_version")
    fitted = {name: model.settings[name] for name in names}
    if own == fitted:
        return own, []
    (ours, our_version), (theirs, their_version) = ([each[name] for name in names] for each in (own, fitted))
    if match:
        return own, [f"Activation values of {ours} were mapped by rank to the distribution of those of {theirs}."]
    if ours == theirs == "fergi":
        versions = f"{their_version[:12]}, and these come from its version {our_version[:12]}"
        return own, [f"The preference model was fitted on activation values of the AU model {versions}."]
    raise FergiError(
        f"The activation values come from the estimator {ours} ({our_version[:12]}), and the preference model was "
        f"fitted on values of {theirs} ({their_version[:12]}). Fit one on your own rankings with "
        "fit_preference_model.py, or map the values with --match-distribution."
    )


# Reading -----------------------------------------------------------------------------------------------------------


def find_participants(folders: Folders) -> dict[str, list[int] | None]:
    """Participant → sessions, of ``valid_sessions.json`` if there is one, else of every table (None: all sessions).

    Raises
    ------
    FergiError
        If there is no table of activation values, or one of a participant of that list is missing.
    """
    tables = folders.activation_tables("reaction")
    there = sorted(path.stem for path in tables.glob("*.csv"))
    if not there:
        raise FergiError(f"There are no tables of activation values in {tables}. {STAGE_7_ADVICE}")
    if not folders.valid_sessions.is_file():
        return dict.fromkeys(there)
    sessions = read_valid_sessions(folders)
    missing = [f"{name}.csv" for name in sessions if name not in set(there)]
    if missing:
        raise summarise(missing, len(sessions), "participants", STAGE_7_ADVICE, f"have no table in {tables}")
    return sessions


def read_participant(
    folders: Folders,
    name: str,
    sessions: Sequence[int] | None,
    black: Iterable[tuple[int, int]] = (),
    score_columns: Sequence[str] = (),
    *,
    excluded: bool = False,
) -> Participant:
    """One participant's reactions, which images there were, prompts, and scores where they are wanted.

    A session's images are numbered from 1 to the highest number that its files, its ``data.json``, the table of
    reactions or the list of black images name.

    Raises
    ------
    FergiError
        If a table or a ``data.json`` is unusable, or an image table is missing where scores are wanted.
    """
    path = folders.activation_tables("reaction") / f"{name}.csv"
    try:
        reactions = read_table(path, key=CLIP_KEY, optional=ACTIVATION_COLUMNS)
    except ValueError as error:
        raise FergiError(f"{error}. {STAGE_7_ADVICE}") from None
    scores = None
    if score_columns:
        try:
            scores = read_table(folders.image_tables / f"{name}.csv", key=CLIP_KEY, numeric=score_columns)
        except ValueError as error:
            raise FergiError(f"{error}. Run preprocess_image_data.py first, or leave out --with-scorers.") from None
    known = [*reactions[list(CLIP_KEY)].itertuples(index=False, name=None), *black]
    if sessions is None:
        there = (re.fullmatch(r"session_(\d+)", each) for each in _names(folders.data / name))
        sessions = sorted({session for session, _ in known} | {int(match[1]) for match in there if match})
    n_images, prompts, pictures = dict.fromkeys(sessions, 0), {}, {}
    for session in n_images:
        folder = folders.session(name, session)
        n_images[session], prompt, numbers = _read_session(folder)
        pictures |= {(session, image): folder / f"image{image}.png" for image in numbers}
        if prompt is not None:
            prompts[session] = prompt
    for session, image in known:
        if session in n_images:
            n_images[session] = max(n_images[session], image)
        if not 1 <= image <= MOST_IMAGES:
            raise FergiError(f"{path} or a list names the image {image} of session {session}. {STAGE_7_ADVICE}")
    reactions = reactions[reactions["session_index"].isin(n_images)].reset_index(drop=True)
    return Participant(name, n_images, reactions, frozenset(black), prompts, scores, pictures, excluded)


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


_ENDINGS = "|".join(["_features.csv", *VIDEO_ENDINGS]).replace(".", r"\.")
_OF_IMAGE = re.compile(rf"(?:(?:{'|'.join(CLIP_KINDS)})_clip_(\d+)(?:{_ENDINGS})|image(\d+)\.png)", re.IGNORECASE)


def _read_session(folder: Path) -> tuple[int, str | None, list[int]]:
    """The highest number of an image that the folder of a session names, the prompt, and the numbers of pictures."""
    names = _names(folder)
    found = [match for match in map(_OF_IMAGE.fullmatch, names) if match]
    numbers = [int(match[1] or match[2]) for match in found]
    pictures = [int(match[2]) for match in found if match[0] == f"image{match[2]}.png"]
    prompt = None
    if "data.json" in names:
        path, advice = folder / "data.json", "Correct it, or take it out of the folder."
        content: Any = read_json(path, advice)
        prompt = content.get("prompt") if isinstance(content, dict) else None
        if not isinstance(prompt, str):
            raise FergiError(f"{path} has no prompt. {advice}")
        asked = content.get("survey")
        numbers.append(len(asked) if isinstance(asked, list) else 0)
    return max(numbers, default=0), prompt, pictures


# Deciding ----------------------------------------------------------------------------------------------------------


def decide(pairs: pd.DataFrame, minimum_probability: float) -> pd.DataFrame:
    """The pairs with a verdict: first or second where that one's probability is at least so high, else abstain.

    A probability of exactly 1/2 has no verdict, whatever the minimum is. ``minimum_probability`` lies between 1/2
    and 1.
    """
    first = pairs["probability_first"].to_numpy(float)
    sides = [(first >= minimum_probability) & (first > 0.5), (1 - first >= minimum_probability) & (first < 0.5)]
    verdict = np.select(sides, [FIRST, SECOND], ABSTAIN)
    small = (verdict == ABSTAIN) & ~np.isnan(first)
    return pairs.assign(verdict=verdict, reason=np.where(small, SMALL, pairs["reason"]))


class Certainties:
    """How sure all pairs are: a histogram, whose size does not grow with their number."""

    def __init__(self) -> None:
        self.counts = np.zeros(_STEPS + 1, np.int64)

    def add(self, pairs: pd.DataFrame) -> None:
        """Count the pairs of one participant."""
        probability = pairs["probability_first"].dropna().to_numpy()
        steps = np.rint((np.maximum(probability, 1 - probability) - 0.5) * 2 * _STEPS).astype(int)
        self.counts += np.bincount(steps, minlength=len(self.counts))

    def minimum_probability(self, coverage: float) -> float:
        """The lowest probability at which at most the share ``coverage`` of the pairs gets a verdict, to 1e-5.

        Pairs that are equally sure come in together.

        Raises
        ------
        FergiError
            If even the surest pairs are more than that.
        """
        at_least = self.counts[::-1].cumsum()[::-1]
        step = int(np.argmax(at_least <= coverage * at_least[0]))
        if at_least[step] == 0:
            surest = np.flatnonzero(self.counts)[-1]
            raise FergiError(
                f"{self.counts[surest]} of {at_least[0]} pairs are equally sure, so that no pair or more than the "
                f"share {coverage:g} would get a verdict. Give a higher --coverage, or --minimum-probability."
            )
        return max(0.5, 0.5 + (step - 0.5) / (2 * _STEPS))  # between two steps


@dataclass
class Summary:
    """Counts over all participants."""

    slopes: Sequence[float]  # see ``Annotator``
    n_participants: int = 0
    n_sessions: int = 0
    n_valid: int = 0
    n_decided: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    # Sums over the decided pairs of the probability of the verdict, for each of the slopes.
    expected: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @property
    def n_pairs(self) -> int:
        """All pairs of images."""
        return self.n_decided + sum(self.reasons.values())

    def add(self, participant: Participant, pairs: pd.DataFrame) -> None:
        """Count the pairs of one participant, after ``decide``."""
        self.n_participants += 1
        self.n_sessions += len(participant.n_images)
        self.n_valid += int(pairs["probability_first"].notna().sum())
        decided = pairs.loc[pairs["verdict"] != ABSTAIN, "probability_first"].to_numpy(float)
        self.n_decided += len(decided)
        for reason, n in pairs.loc[pairs["verdict"] == ABSTAIN, "reason"].value_counts().items():
            self.reasons[reason] = self.reasons.get(reason, 0) + int(n)
        self.expected += expit(np.outer(self.slopes, np.abs(logit(decided)).clip(max=50))).sum(axis=1)

    def expectation(self) -> str:
        """The share of verdicts that is expected to be right, with its 95 % interval from that of the slope."""
        middle, lower, upper = 100 * self.expected / self.n_decided
        return f"{middle:.1f} % [{lower:.1f}, {upper:.1f}] of {self.n_decided} verdicts"

    def sentences(self) -> Iterator[str]:
        """What was annotated, for a terminal."""
        yield (
            f"{self.n_pairs} pairs of images in {self.n_sessions} sessions of {self.n_participants} participants; "
            f"{self.n_valid} of them have two valid reactions."
        )
        share = f", {100 * self.n_decided / self.n_valid:.1f} % of those" if self.n_valid else ""
        yield f"{self.n_decided} have a verdict{share}."
        if self.n_decided:
            yield f"Expected to be right: {self.expectation()}, if these people are like those of the calibration."
        for reason, n in sorted(self.reasons.items(), key=lambda each: -each[1]):
            yield f"{n} abstentions: {reason}."


def require_pairs(summary: Summary) -> None:
    """Stop if there is nothing to annotate.

    Raises
    ------
    FergiError
        If no session has two images, or no pair has a probability; with the reasons.
    """
    where = f"{summary.n_sessions} sessions of {summary.n_participants} participants"
    if not summary.n_pairs:
        raise FergiError(f"No session of {where} has two images, so that there is no pair to annotate.")
    if not summary.n_valid:
        why = ", ".join(f"{n} {reason}" for reason, n in summary.reasons.items())
        advice = "Record these sessions again."
        if EXCLUDED in summary.reasons:
            advice = "Take --valence linear, which excludes nobody."
        if "missing" in why:
            advice = "Take --valence aucomb, or fit a model on other AUs: fit_preference_model.py --action-units."
        raise FergiError(f"None of {summary.n_pairs} pairs of images in {where} can be annotated ({why}). {advice}")
