"""Small tables of images and small grids, for the tests of the search."""

import numpy as np
import pandas as pd

from fergi.preference.grid_search import Search, search_settings
from fergi.preference.results import SCORERS

LARGE = 1000.0  # e^(−1000 k) is 0 in floats: an activation of this size gives a score of exactly 1
ACTIVATIONS = ["AU4_activation_value", "AU12_activation_value"]
KEY = ["participant", "session_index", "rank_score"]


def one_point(**changed):
    """A search with one candidate for everything, k = 1 and w = 1/2, but for what is changed."""
    only = {
        "ensemble_weights": np.array([[0.5, 0.25, 0.25]]),
        "decays": np.array([1.0]),
        "au4_weights": np.array([0.5]),
        "thresholds": np.array([0.0]),
        "integration_weights": np.array([0.0]),
        "incorrect_penalty": 2,
    }
    return Search(**(only | {name: np.asarray(value) for name, value in changed.items()}))


def small_search(mode="paper", strict=False, penalty=2):
    """Few candidates of everything, in the way of either mode."""
    return search_settings(
        mode,
        strict=strict,
        ensemble_weights=(0.0, 1.0, 0.2),
        decays=(0.5, 1.0, 0.5),
        au4_weights=(0.0, 1.0, 0.25),
        thresholds=(0.0, 0.3, 0.1),
        integration_weights=(0.0, 4.0, 0.5),
        incorrect_penalty=penalty,
    )


def people(*rows):
    """Images from (participant, session, rank, AU4, AU12) and, if given, a score that all six scorers share.

    Without a score each image has its row's number, so that scores vary.
    """
    table = pd.DataFrame([row[:5] for row in rows], columns=[*KEY, *ACTIVATIONS])
    for name in SCORERS:
        table[name] = [float(row[5]) if len(row) > 5 else float(i) for i, row in enumerate(rows)]
    return table


def random_images(seed, n_participants, *, ties, singles=False):
    """A small table in any order of rows.

    With ``ties`` scores and activations repeat, some activations but for noise; without, no two scores are equal.
    With ``singles`` the first participant has no pair.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n_participants):
        for session in rng.permutation(6)[: rng.integers(1, 4)] + 1:
            n = 1 if singles and number == 0 else rng.integers(1, 5)
            for rank in rng.permutation(6)[:n]:
                if ties:
                    scores = rng.integers(0, 4, len(SCORERS)) / 4
                    activations = rng.choice([0.0, 0.3, 1 / 3, 0.7, 2.0], 2) + rng.choice([0.0, 4e-16, 1e-12], 2)
                else:
                    scores, activations = rng.normal(size=len(SCORERS)), rng.exponential(size=2)
                rows.append([f"p{number}", session, float(rank), *scores, *activations])
    table = pd.DataFrame(rows, columns=[*KEY, *SCORERS, *ACTIVATIONS])
    return table.iloc[rng.permutation(len(table))].reset_index(drop=True)


def three_people():
    """Of each of a and b: two pairs 1/2 apart and right, one 1/4 apart and wrong. Of c: a wrong pair, 1/2 apart."""
    quarter = np.log(2)  # score 1/2 at k = 1, so a quarter with w = 1/2
    rows = []
    for who in "ab":
        for session in (1, 2):
            rows += [(who, session, 2, 0, LARGE), (who, session, 1, 0, 0)]
        rows += [(who, 3, 2, 0, 0), (who, 3, 1, 0, quarter)]
    rows += [("c", 1, 2, LARGE, 0), ("c", 1, 1, 0, 0)]
    return people(*rows)
