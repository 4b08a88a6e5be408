"""Logistic regression on differences: how a difference of valence, or of several scores, becomes a probability."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit


def fit_logistic(differences: np.ndarray) -> np.ndarray:
    """Coefficients b of P(first preferred) = σ(b·difference), without intercept, so that P(second) = 1 − P(first).

    ``differences`` are preferred minus other, shape (n_pairs, n_scores); the result has shape (n_scores,). The n pairs
    count as preferred with (n + 1) / (n + 2) rather than 1 (Platt 1999), so that b is finite where all are right.

    Raises
    ------
    ValueError
        If there is no pair.
    """
    differences = np.asarray(differences, float)
    if not len(differences):
        raise ValueError("there is no pair of ranked images with valid reactions")
    scale = np.sqrt(np.mean(differences**2, axis=0))
    scale[scale == 0] = 1
    scaled, target = differences / scale, (len(differences) + 1) / (len(differences) + 2)

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        logit = scaled @ b
        gradient = scaled.T @ (expit(logit) - target) / len(scaled)
        return np.mean(np.logaddexp(0, logit) - target * logit), gradient

    found = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-10})
    return found.x / scale


def fit_slope(difference: np.ndarray) -> float:
    """The b of a single score, at least 0: where held-out differences say nothing, every probability is 1/2."""
    return max(0.0, float(fit_logistic(np.asarray(difference)[:, None])[0]))


def slope_error(difference: np.ndarray, participant: np.ndarray, slope: float) -> float:
    """The standard error of ``fit_slope``, in which participants and not pairs are independent (a sandwich estimate).

    ``difference`` and ``participant``, a number, have shape (n_pairs,). 0 if no difference is other than 0.
    """
    right = expit(slope * difference)
    information = np.sum(difference**2 * right * (1 - right))
    gradients = np.bincount(participant, difference * ((len(right) + 1) / (len(right) + 2) - right))
    n = len(np.unique(participant))
    return float(np.sqrt(n / max(1, n - 1) * np.sum(gradients**2)) / information) if information > 0 else 0.0
