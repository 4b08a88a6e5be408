"""The method written down as directly as it can be: one clip, one window, one fold, one grid point at a time.

Slow on purpose, and independent of ``fergi.activation`` and of ``fergi.preference`` but for its grids. The tests
compare those with this on small random tables; ``benchmarks.stages`` compares their times.
"""

from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from fergi.features import FrameLimits
from fergi.preference.grid_search import Search

UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
SCORES = ("CLIP_score", "Aesthetic_score", "BLIP_score", "ImageReward_score", "PickScore", "HPS_V2_score")
TRAINED = ("ImageReward_score", "PickScore", "HPS_V2_score")
INTEGRATED = ("ensemble_ImageReward_AUcomb", "ensemble_PickScore_AUcomb", "ensemble_HPS_V2_AUcomb", "ensemble_all")


def plain_activation(path: Path, *, limits: FrameLimits, window_seconds: float) -> tuple[np.ndarray | None, float]:
    """Activation values of one clip (eqs. 1–2), and the share of its frames that are valid.

    Returns
    -------
    values : ndarray of float, shape (12,), or None
        None if no window has all its frames valid.
    valid_share : float
    """
    clip = pd.read_csv(path)
    n_frames = len(clip)
    valid = (
        (clip["face_detection_confidence_score"] >= limits.minimum_detection_confidence)
        & clip["pitch_indicative_ratio"].between(*limits.pitch_ratio)
        & clip["yaw_indicative_ratio"].between(*limits.yaw_ratio)
    ).to_numpy()
    window = 1
    if n_frames > 1:
        seconds = clip["timestamp"].iloc[-1] - clip["timestamp"].iloc[0]
        window = max(1, round(round((n_frames - 1) / seconds) * window_seconds))
    intensities = clip[[f"AU{unit}" for unit in UNITS]].to_numpy()
    means = [
        intensities[begin : begin + window].mean(axis=0)
        for begin in range(n_frames - window + 1)
        if valid[begin : begin + window].all()
    ]
    return (np.max(means, axis=0) - means[0] if means else None), float(valid.mean())


def plain_pairs(images: pd.DataFrame) -> list[tuple[int, int, str]]:
    """Positions of the preferred and of the other image, and the participant, for all pairs within sessions."""
    rank = images["rank_score"].to_numpy()
    position = pd.Series(range(len(images)))
    groups = position.groupby([images["participant"].to_numpy(), images["session_index"].to_numpy()])
    pairs = []
    for (participant, session), members in groups:
        for first, second in combinations(members, 2):
            if rank[first] == rank[second]:
                raise ValueError(f"tied ranks: participant {participant}, session {session}")
            pairs.append((first, second, participant) if rank[first] > rank[second] else (second, first, participant))
    return pairs


def plain_valence(au4, au12, decay, au4_weight, *, product: bool) -> np.ndarray:
    """Eqs. 3–6; ``product`` is the release's slip, which multiplies the AU4 term by the AU12 score."""
    frown = -(1 - np.exp(-decay * au4))
    smile = 1 - np.exp(-decay * au12)
    if product:
        return au4_weight * smile * frown + (1 - au4_weight) * smile
    return au4_weight * frown + (1 - au4_weight) * smile


def _correct(score: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> int:
    """How often the score is higher for the preferred image."""
    preferred, other = pairs
    return int(np.sum(score[preferred] > score[other]))


def _weighted(weights: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Eq. 7."""
    return weights[..., 0] * z[:, 0] + weights[..., 1] * z[:, 1] + weights[..., 2] * z[:, 2]


def _pairs_where(pairs, wanted) -> tuple[np.ndarray, np.ndarray]:
    """The preferred and the other images of the wanted participants' pairs."""
    preferred, other = np.array([pair for *pair, who in pairs if wanted(who)], int).reshape(-1, 2).T
    return preferred, other


def _plain_fold(images: pd.DataFrame, activation, all_pairs, search: Search, held_out: str) -> SimpleNamespace:
    """What a fold finds on its training pairs. Of equally good candidates ``max`` gives the first."""
    pairs = preferred, other = _pairs_where(all_pairs, lambda who: who != held_out)
    scores = images[list(TRAINED)].to_numpy(float)
    training = scores[images["participant"] != held_out]
    if not np.all(training.max(axis=0) > training.min(axis=0)):
        raise ValueError("a score does not vary")
    z = (scores - training.mean(axis=0)) / training.std(axis=0, ddof=1)
    weights = max(search.ensemble_weights, key=lambda each: _correct(_weighted(each, z), pairs))

    difference = {}
    for k, w in product(search.decays, search.au4_weights):
        score = plain_valence(*activation, k, w, product=False)
        difference[k, w] = score[preferred] - score[other]

    def objective(point: tuple[float, float, float]) -> float:
        """Eq. 9."""
        k, w, d = point
        selected = np.abs(difference[k, w]) >= d
        n_correct = np.sum(selected & (difference[k, w] > 0))
        return n_correct - search.incorrect_penalty * (np.sum(selected) - n_correct)

    k, w, d = max(product(search.decays, search.au4_weights, search.thresholds), key=objective)
    return SimpleNamespace(pairs=pairs, z=z, weights=weights, k=k, w=w, d=d)


def _plain_row(images: pd.DataFrame, activation, all_pairs, search: Search, folds: dict, held_out: str) -> dict:
    """A fold's parameters, and what it counts on the pairs of the participant held out."""
    fold = folds[held_out]
    # Whose parameters each image carries: its participant's own, or in a strict fold those of the fold.
    carried = [fold if search.strict else folds[participant] for participant in images["participant"]]
    k, w, weights = (np.array([getattr(each, name) for each in carried]) for name in ("k", "w", "weights"))
    valence = plain_valence(*activation, k, w, product=search.product_valence)
    ensemble = _weighted(weights, fold.z)
    own = preferred, other = _pairs_where(all_pairs, lambda who: who == held_out)
    selecting = plain_valence(*activation, fold.k, fold.w, product=False)
    selected = np.abs(selecting[preferred] - selecting[other]) >= fold.d
    row = {"user_id": held_out}

    def count(name: str, score: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> None:
        row[f"{name}_n_correct"] = _correct(score, pairs)
        row[f"{name}_n_incorrect"] = len(pairs[0]) - row[f"{name}_n_correct"]

    for name, weight in zip(("ImageReward", "PickScore", "HPS_V2"), fold.weights, strict=True):
        row[f"{name}_weight"] = weight
    count("ensemble_baseline_score", ensemble, own)
    row |= {"exp_decay_coef": fold.k, "AU4_coef": fold.w, "AU12_coef": 1 - fold.w, "diff_threshold": fold.d}
    scores = {name: images[name].to_numpy() for name in SCORES}
    for name, score in (scores | {"ensemble_baseline_score": ensemble, "AUcomb_valence_score": selecting}).items():
        count(f"AUcomb_selected_{name}", score, (preferred[selected], other[selected]))
    for name, score in (scores | {"AUcomb_valence_score": valence}).items():
        count(name, score, own)
    for name, score in zip(INTEGRATED, (*fold.z.T, ensemble), strict=True):
        a = max(search.integration_weights, key=lambda a, score=score: _correct(score + a * valence, fold.pairs))
        row[f"AUcomb_coef_for_{name}_score"] = a
        count(f"{name}_score", score + a * valence, own)
    return row


def plain_search(images: pd.DataFrame, search: Search) -> pd.DataFrame:
    """What ``fergi.preference.results.search_preferences`` gives, with all training pairs compared at each grid point.

    Raises
    ------
    ValueError
        If there are fewer than two participants, a score does not vary over the training images, or ranks tie.
    """
    everybody = sorted(set(images["participant"]))
    if len(everybody) < 2:
        raise ValueError("one participant")
    activation = [images[f"AU{unit}_activation_value"].to_numpy(float) for unit in (4, 12)]
    if search.activation_decimals is not None:
        activation = [each.round(search.activation_decimals) for each in activation]
    known = images, activation, plain_pairs(images), search
    folds = {held_out: _plain_fold(*known, held_out) for held_out in everybody}
    return pd.DataFrame([_plain_row(*known, folds, held_out) for held_out in everybody])
