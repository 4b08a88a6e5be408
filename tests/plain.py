"""The method written down as directly as it can be: one clip, one window, one fold, one grid point at a time.

Slow on purpose, and independent of ``fergi.activation`` and of all of ``fergi.preference``.
The tests compare those with this on small random tables; ``benchmarks.stages`` compares their times.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from fergi.features import FrameLimits
from fergi.preference.grid_search import Search

UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
SCORES = ("CLIP_score", "Aesthetic_score", "BLIP_score", "ImageReward_score", "PickScore", "HPS_V2_score")
TRAINED = ("ImageReward_score", "PickScore", "HPS_V2_score")
WITH_AUS = (
    "ensemble_ImageReward_AUcomb_score",
    "ensemble_PickScore_AUcomb_score",
    "ensemble_HPS_V2_AUcomb_score",
    "ensemble_all_score",
)


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
    left_out: set[tuple[int, int]] = frozenset(),
) -> pd.DataFrame:
    """Stage 6 or 7 for one participant: a row for every valid clip whose (session, image) is not left out."""
    rows = []
    for session in sorted(sessions):
        folder = data / participant / f"session_{session}"
        for image in range(1, 1 + len(list(folder.glob(f"{kind}_clip_*_features.csv")))):
            path = folder / f"{kind}_clip_{image}_features.csv"
            values, share = plain_activation(path, limits=limits, window_seconds=window_seconds)
            if share >= minimum_valid_share and (session, image) not in left_out:
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
        for first, second in itertools.combinations(members, 2):
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
    """What ``fergi.preference.results.search_preferences`` gives, with every training pair compared again at every grid point.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction.
    search : Search
        Grids and rules.

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
    au4 = images["AU4_activation_value"].to_numpy(float)
    au12 = images["AU12_activation_value"].to_numpy(float)
    if search.activation_decimals is not None:
        au4, au12 = au4.round(search.activation_decimals), au12.round(search.activation_decimals)

    def pairs_of(wanted) -> tuple[np.ndarray, np.ndarray]:
        chosen = [(preferred, other) for preferred, other, participant in all_pairs if wanted(participant)]
        preferred, other = np.array(chosen, int).reshape(-1, 2).T
        return preferred, other

    def count_correct(score: np.ndarray, preferred: np.ndarray, other: np.ndarray) -> int:
        return int(np.sum(score[preferred] > score[other]))

    def z_scores(left_out: str) -> np.ndarray:
        trained = images[list(TRAINED)].to_numpy(float)
        training = trained[owner != left_out]
        if not np.all(training.max(axis=0) > training.min(axis=0)):
            raise ValueError("a score does not vary")
        return (trained - training.mean(axis=0)) / training.std(axis=0, ddof=1)

    # What each fold finds on its training pairs: weights of the ensemble; k, w_AU4 and d.
    fold_weights, fold_k, fold_w, fold_d = {}, {}, {}, {}
    for left_out in everybody:
        preferred, other = pairs_of(lambda participant, left_out=left_out: participant != left_out)
        z = z_scores(left_out)
        best = None
        for weights in search.ensemble_weights:
            correct = count_correct(
                weights[0] * z[:, 0] + weights[1] * z[:, 1] + weights[2] * z[:, 2], preferred, other
            )
            if best is None or correct > best:
                best, fold_weights[left_out] = correct, weights
        best = None
        for k in search.decays:
            for w in search.au4_weights:
                score = plain_valence(au4, au12, k, w, product=False)
                for d in search.thresholds:
                    difference = score[preferred] - score[other]
                    selected = np.abs(difference) >= d
                    correct = int(np.sum(selected & (difference > 0)))
                    incorrect = int(np.sum(selected)) - correct
                    objective = correct - search.incorrect_penalty * incorrect
                    if best is None or objective > best:
                        best, fold_k[left_out], fold_w[left_out], fold_d[left_out] = objective, k, w, d

    rows = []
    for left_out in everybody:
        # Whose parameters each image carries: its participant's own, or in a strict fold those of the fold.
        carried = [left_out if search.strict else participant for participant in owner]
        valence = plain_valence(
            au4,
            au12,
            np.array([fold_k[each] for each in carried]),
            np.array([fold_w[each] for each in carried]),
            product=search.product_valence,
        )
        weights = np.array([fold_weights[each] for each in carried])
        z = z_scores(left_out)
        ensemble = weights[:, 0] * z[:, 0] + weights[:, 1] * z[:, 1] + weights[:, 2] * z[:, 2]
        training_pairs = pairs_of(lambda participant, left_out=left_out: participant != left_out)
        preferred, other = own_pairs = pairs_of(lambda participant, left_out=left_out: participant == left_out)
        n_own = len(preferred)

        row = {"user_id": left_out}
        for name, weight in zip(("ImageReward", "PickScore", "HPS_V2"), fold_weights[left_out], strict=True):
            row[f"{name}_weight"] = weight
        row["ensemble_baseline_score_n_correct"] = count_correct(ensemble, *own_pairs)
        row["ensemble_baseline_score_n_incorrect"] = n_own - row["ensemble_baseline_score_n_correct"]
        row["exp_decay_coef"] = fold_k[left_out]
        row["AU4_coef"] = fold_w[left_out]
        row["AU12_coef"] = 1 - fold_w[left_out]
        row["diff_threshold"] = fold_d[left_out]

        selecting = plain_valence(au4, au12, fold_k[left_out], fold_w[left_out], product=False)
        selected = np.abs(selecting[preferred] - selecting[other]) >= fold_d[left_out]
        scores = {name: images[name].to_numpy() for name in SCORES} | {"ensemble_baseline_score": ensemble}
        for name, score in (*scores.items(), ("AUcomb_valence_score", selecting)):
            correct = count_correct(score, preferred[selected], other[selected])
            row[f"AUcomb_selected_{name}_n_correct"] = correct
            row[f"AUcomb_selected_{name}_n_incorrect"] = int(selected.sum()) - correct
        for name in SCORES:
            row[f"{name}_n_correct"] = count_correct(scores[name], *own_pairs)
            row[f"{name}_n_incorrect"] = n_own - row[f"{name}_n_correct"]
        row["AUcomb_valence_score_n_correct"] = count_correct(valence, *own_pairs)
        row["AUcomb_valence_score_n_incorrect"] = n_own - row["AUcomb_valence_score_n_correct"]

        for name, score in zip(WITH_AUS, (z[:, 0], z[:, 1], z[:, 2], ensemble), strict=True):
            best = None
            for a in search.integration_weights:
                correct = count_correct(score + a * valence, *training_pairs)
                if best is None or correct > best:
                    best, best_a = correct, a
            row[f"AUcomb_coef_for_{name}"] = best_a
            row[f"{name}_n_correct"] = count_correct(score + best_a * valence, *own_pairs)
            row[f"{name}_n_incorrect"] = n_own - row[f"{name}_n_correct"]
        rows.append(row)
    return pd.DataFrame(rows)
