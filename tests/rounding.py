"""How far apart two evaluations of one network in float32 may be."""

import numpy as np


def float32_bound(outputs, *, sums: int = 50, terms: int = 1024) -> float:
    """For evaluations that add in other orders, as processors, batches and numbers of threads do.

    A sum of n products is off by about sqrt(n) · 2⁻²⁴ of the size of its terms, and the errors of sums that feed one
    another add up like a random walk. Two evaluations are off independently, hence the factor 2.

    Parameters
    ----------
    outputs : array_like
        Of the network; the size of the terms is their largest, at least 1 (cosines: products of unit vectors).
    sums : int
        One behind the other: about eight in a transformer's block. The small scorers have up to five blocks.
    terms : int
        In the longest of them.
    """
    return 2 * np.sqrt(sums * terms) * 2.0**-24 * max(1.0, float(np.abs(outputs).max()))
