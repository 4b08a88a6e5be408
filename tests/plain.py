"""The method written down as directly as it can be: one clip, one window, one fold, one grid point at a time.

Slow on purpose, and independent of ``fergi.activation`` and of ``fergi.preference`` but for its grids. The tests
compare those with this on small random tables; ``benchmarks.stages`` compares their times.
"""

from itertools import combinations, product
from pathlib import Path

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


def plain_activation_table(
    data: Path,
    participant: str,
    kind: str,
    sessions: list[int],
    *,
    limits: FrameLimits,
    minimum_valid_share: float,
    window_seconds: float,
    black: set[tuple[int, int]] = frozenset(),
) -> pd.DataFrame:
    """Stage 6 or 7 for one participant: a row for every valid clip whose (session, image) is not black."""
    rows = []
    for session in sorted(sessions):
        folder = data / participant / f"session_{session}"
        for image in range(1, 1 + len(list(folder.glob(f"{kind}_clip_*_features.csv")))):
            path = folder / f"{kind}_clip_{image}_features.csv"
            values, share = plain_activation(path, limits=limits, window_seconds=window_seconds)
            if share >= minimum_valid_share and (session, image) not in black:
                rows.append([session, image, *values])
    columns = ["session_index", "image_index", *(f"AU{unit}_activation_value" for unit in UNITS)]
    return pd.DataFrame(rows, columns=columns)


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


def plain_search(images: pd.DataFrame, search: Search) -> pd.DataFrame:
    """What ``fergi.preference.results.search_preferences`` gives, with all training pairs compared at each grid point.

    Of equally good candidates ``max`` gives the first.

    Raises
    ------
    ValueError
        If there are fewer than two participants, a score does not vary over the training images, or ranks tie.
    """
    everybody = sorted(set(images["participant"]))
    if len(everybody) < 2:
        raise ValueError("one participant")
    owner = images["participant"].to_numpy()
    all_pairs = plain_pairs(images)
    au4, au12 = (images[f"AU{unit}_activation_value"].to_numpy(float) for unit in (4, 12))
    if search.activation_decimals is not None:
        au4, au12 = au4.round(search.activation_decimals), au12.round(search.activation_decimals)

    def pairs_of(wanted) -> tuple[np.ndarray, np.ndarray]:
        chosen = [(preferred, other) for preferred, other, participant in all_pairs if wanted(participant)]
        preferred, other = np.array(chosen, int).reshape(-1, 2).T
        return preferred, other

    def correct(score: np.ndarray, preferred: np.ndarray, other: np.ndarray) -> int:
        return int(np.sum(score[preferred] > score[other]))

    def weighted(weights: np.ndarray, z: np.ndarray) -> np.ndarray:
        return weights[..., 0] * z[:, 0] + weights[..., 1] * z[:, 1] + weights[..., 2] * z[:, 2]

    def objective(difference: np.ndarray, threshold: float) -> float:
        selected = np.abs(difference) >= threshold
        n_correct = np.sum(selected & (difference > 0))
        return n_correct - search.incorrect_penalty * (np.sum(selected) - n_correct)

    # What each fold finds on its training pairs: z-scores, weights of the ensemble; k, w_AU4 and d.
    training_pairs, z_scores, weights, k, w, d = {}, {}, {}, {}, {}, {}
    for held_out in everybody:
        training_pairs[held_out] = preferred, other = pairs_of(lambda who, held_out=held_out: who != held_out)
        scores = images[list(TRAINED)].to_numpy(float)
        training = scores[owner != held_out]
        if not np.all(training.max(axis=0) > training.min(axis=0)):
            raise ValueError("a score does not vary")
        z_scores[held_out] = z = (scores - training.mean(axis=0)) / training.std(axis=0, ddof=1)
        weights[held_out] = max(
            search.ensemble_weights, key=lambda each, z=z, pairs=(preferred, other): correct(weighted(each, z), *pairs)
        )
        difference = {}
        for point in product(search.decays, search.au4_weights):
            score = plain_valence(au4, au12, *point, product=False)
            difference[point] = score[preferred] - score[other]
        k[held_out], w[held_out], d[held_out] = max(
            product(search.decays, search.au4_weights, search.thresholds),
            key=lambda point, difference=difference: objective(difference[point[:2]], point[2]),
        )

    rows = []
    for held_out in everybody:
        # Whose parameters each image carries: its participant's own, or in a strict fold those of the fold.
        carried = [held_out if search.strict else participant for participant in owner]
        valence = plain_valence(
            au4,
            au12,
            np.array([k[each] for each in carried]),
            np.array([w[each] for each in carried]),
            product=search.product_valence,
        )
        z = z_scores[held_out]
        ensemble = weighted(np.array([weights[each] for each in carried]), z)
        own = preferred, other = pairs_of(lambda who, held_out=held_out: who == held_out)
        selecting = plain_valence(au4, au12, k[held_out], w[held_out], product=False)
        selected = np.abs(selecting[preferred] - selecting[other]) >= d[held_out]
        row = {"user_id": held_out}

        def count(name, score, pairs, row=row) -> None:
            row[f"{name}_n_correct"] = correct(score, *pairs)
            row[f"{name}_n_incorrect"] = len(pairs[0]) - row[f"{name}_n_correct"]

        for name, weight in zip(("ImageReward", "PickScore", "HPS_V2"), weights[held_out], strict=True):
            row[f"{name}_weight"] = weight
        count("ensemble_baseline_score", ensemble, own)
        row["exp_decay_coef"] = k[held_out]
        row["AU4_coef"] = w[held_out]
        row["AU12_coef"] = 1 - w[held_out]
        row["diff_threshold"] = d[held_out]
        scores = {name: images[name].to_numpy() for name in SCORES}
        for name, score in (scores | {"ensemble_baseline_score": ensemble, "AUcomb_valence_score": selecting}).items():
            count(f"AUcomb_selected_{name}", score, (preferred[selected], other[selected]))
        for name, score in (scores | {"AUcomb_valence_score": valence}).items():
            count(name, score, own)
        for name, score in zip(INTEGRATED, (*z.T, ensemble), strict=True):
            a = row[f"AUcomb_coef_for_{name}_score"] = max(
                search.integration_weights,
                key=lambda a, score=score: correct(score + a * valence, *training_pairs[held_out]),
            )
            count(f"{name}_score", score + a * valence, own)
        rows.append(row)
    return pd.DataFrame(rows)
