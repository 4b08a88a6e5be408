"""Weights that anybody can make, for which the outputs of the original networks are known."""

import numpy as np
import torch


def formula_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of the same names and shapes: the i-th entry from RandomState(i), scaled by what it is."""
    made = {}
    for index, (name, entry) in enumerate(state.items()):
        if name.endswith("num_batches_tracked"):
            made[name] = torch.zeros_like(entry)
            continue
        values = np.random.RandomState(index).standard_normal(entry.numel())
        if name.endswith("running_var"):
            values = 1 + 0.2 * np.abs(values)
        elif name.endswith(("running_mean", "bias")):
            values = 0.05 * values
        elif entry.dim() >= 2:
            values = values * np.sqrt(2 / (entry.numel() / entry.shape[0]))
        elif "prelu" in name:
            values = 0.25 + 0.05 * values
        else:
            values = 1 + 0.1 * values
        made[name] = torch.tensor(values.reshape(entry.shape), dtype=torch.float32)
    return made
