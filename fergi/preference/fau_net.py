"""FAU-Net, the authors' later valence model (the newest commit of their repository; not in the paper).

A small network gives the valence of a reaction from its 12 activation values. It is trained on pairs of images of a
session (RankNet): P(first preferred) = σ(valence of the first − valence of the second).

The release computes in float32, where processors and GPUs differ in the last bits. Here initial weights are drawn
in float32, as in the release, and all else is computed in float64, so that every machine counts the same.
"""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from fergi.features import ACTION_UNITS
from fergi.preference.checks import check
from fergi.preference.pairs import Pairs
from fergi.preference.valence import activation_values

if TYPE_CHECKING:
    from torch import Tensor

N_UNITS, N_HIDDEN = len(ACTION_UNITS), 16
SHAPES = {
    "unit_weight": (N_UNITS,),
    "unit_bias": (N_UNITS,),
    "hidden_weight": (N_HIDDEN, N_UNITS),
    "hidden_bias": (N_HIDDEN,),
    "output_weight": (N_UNITS + N_HIDDEN,),
    "output_bias": (1,),
}
# How many inputs a unit of the layer has.
_INPUTS = dict.fromkeys(("hidden_weight", "hidden_bias"), N_UNITS)
_INPUTS |= dict.fromkeys(("output_weight", "output_bias"), N_UNITS + N_HIDDEN)
AT_ONCE = 9  # networks that are trained together: more are no faster and need more memory


@dataclass(frozen=True)
class FAUNet:
    """The parameters of one network, float64, with the shapes of ``SHAPES``.

    x = σ(unit_weight · α + unit_bias), each AU on its own; h = hidden_weight x + hidden_bias;
    valence = output_weight σ([x, h]) + output_bias.
    """

    unit_weight: np.ndarray
    unit_bias: np.ndarray
    hidden_weight: np.ndarray
    hidden_bias: np.ndarray
    output_weight: np.ndarray
    output_bias: np.ndarray

    action_units: ClassVar[tuple[int, ...]] = ACTION_UNITS
    inner_folds: ClassVar[int | None] = 5  # a network for each two participants would take minutes

    def valence(self, reactions: pd.DataFrame) -> np.ndarray:
        """The network's output, in logits, shape (n_reactions,)."""
        import torch

        activation = torch.from_numpy(activation_values(reactions, ACTION_UNITS))
        parameters = [torch.from_numpy(getattr(self, name))[None] for name in SHAPES]
        return valence_of_networks(activation, *parameters)[0].numpy()

    @classmethod
    def fit(
        cls,
        reactions: pd.DataFrame,
        pairs: Pairs,
        training: np.ndarray,
        *,
        steps: int,
        rate: float,
        penalty: float,
        seed: int,
    ) -> list[Self]:
        """Train one network for each row of ``training``, several together, on the CPU.

        ``steps`` steps of Adam with learning rate ``rate`` on all training pairs at once; the loss is the mean
        cross-entropy plus ``penalty`` times the sum of the absolute values of all parameters. Initial weights follow
        from ``seed`` and the order of the rows. The release has each pair in both orders, which is the same loss.
        """
        import torch

        activation = torch.from_numpy(activation_values(reactions, ACTION_UNITS))
        preferred, other = torch.from_numpy(pairs.preferred), torch.from_numpy(pairs.other)
        initial = initial_weights(len(training), seed)

        def train(start: int) -> list[Self]:
            rows = slice(start, start + AT_ONCE)
            uses = torch.from_numpy(training[rows][:, pairs.participant].astype(float))
            share = uses / uses.sum(dim=1, keepdim=True).clamp(min=1)
            parameters = [each[rows].clone().requires_grad_() for each in initial]
            optimiser = torch.optim.Adam(parameters, rate)
            for _ in range(steps):
                optimiser.zero_grad()
                valence = valence_of_networks(activation, *parameters)
                difference = valence.index_select(1, preferred) - valence.index_select(1, other)
                loss = (share * torch.nn.functional.softplus(-difference)).sum()
                loss = loss + penalty * sum(each.abs().sum() for each in parameters)
                loss.backward()
                optimiser.step()
            return [cls(*(each.detach().numpy() for each in one)) for one in zip(*parameters, strict=True)]

        # The operations are small: batches side by side in one thread each beat one batch in several threads.
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as threads:
                return list(itertools.chain(*threads.map(train, range(0, len(training), AT_ONCE))))
        finally:
            torch.set_num_threads(n_threads)

    def parameters(self) -> dict[str, Any]:
        """The parameters as nested lists."""
        return {name: getattr(self, name).tolist() for name in SHAPES}

    @classmethod
    def from_parameters(cls, parameters: Any) -> Self:
        """The other way round; ValueError says what does not fit."""
        check(parameters, SHAPES, "parameters")
        return cls(**{name: np.array(parameters[name], float) for name in SHAPES})

    def state_dict(self) -> "dict[str, Tensor]":
        """The parameters under the release's names and in its shapes, float32."""
        import torch

        entries = {}
        for number in range(N_UNITS):
            entries[f"preprocess.{number}.0.weight"] = self.unit_weight[number].reshape(1, 1)
            entries[f"preprocess.{number}.0.bias"] = self.unit_bias[number].reshape(1)
        entries |= {"hidden_layers.0.weight": self.hidden_weight, "hidden_layers.0.bias": self.hidden_bias}
        entries |= {"output_layer.weight": self.output_weight[None], "output_layer.bias": self.output_bias}
        return {name: torch.tensor(entry, dtype=torch.float32) for name, entry in entries.items()}


def initial_weights(n_networks: int, seed: int) -> "list[Tensor]":
    """Weights before the training, in the order of ``SHAPES``, each with n_networks in front, float64.

    As in the release: one seed, network after network, layer after layer, PyTorch's default (uniform up to
    1/√n_inputs) rounded to float32; the layers of single AUs draw, too, and are then set to 1 and −1. PyTorch's own
    layers would round otherwise on processors without fused multiply-add.
    """
    import torch

    bounds = torch.cat([torch.full((math.prod(SHAPES[name]),), n**-0.5) for name, n in _INPUTS.items()]).double()
    drawn = torch.rand(n_networks, 2 * N_UNITS + len(bounds), generator=torch.Generator().manual_seed(seed))
    uniform = (drawn[:, 2 * N_UNITS :].double() * (2 * bounds) - bounds).float().double()
    layers = uniform.split([math.prod(SHAPES[name]) for name in _INPUTS], dim=1)
    units = torch.ones(n_networks, N_UNITS, dtype=torch.float64)
    shaped = [each.reshape(n_networks, *SHAPES[name]) for name, each in zip(_INPUTS, layers, strict=True)]
    return [units, -units, *shaped]


def valence_of_networks(
    activation: "Tensor",
    unit_weight: "Tensor",
    unit_bias: "Tensor",
    hidden_weight: "Tensor",
    hidden_bias: "Tensor",
    output_weight: "Tensor",
    output_bias: "Tensor",
) -> "Tensor":
    """Activation values (n_images, 12) and parameters (n_networks, …) → valence, shape (n_networks, n_images)."""
    import torch

    units = torch.sigmoid(activation.T * unit_weight[:, :, None] + unit_bias[:, :, None])
    hidden = torch.baddbmm(hidden_bias[:, :, None], hidden_weight, units)
    both = torch.sigmoid(torch.cat([units, hidden], dim=1))
    return torch.baddbmm(output_bias[:, None], output_weight[:, None], both)[:, 0]
