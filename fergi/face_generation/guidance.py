"""Semantic guidance: a classifier moves the text while a picture is made (SynFER, arXiv 2410.09865).

In the late steps of sampling the clean picture is predicted, x̂₀ = (x_t − √(1 − ᾱ_t) · ε̂) / √ᾱ_t, and decoded. A loss L
is computed of it, and each token of the text moves by −λ · ∇L / ‖∇L‖₂, where ∇L is the gradient with respect to that
token. This lowers the loss; the paper prints a plus, which raises it. Moves add up from step to step.

A classifier that guides cannot judge the result as well: it is pleased by pictures that others do not read so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fergi.files import FergiError


class Guide(Protocol):
    """What wants something of the pictures that are made together."""

    def loss(self, pixels: Tensor) -> Tensor:
        """The loss of each picture, shape (n,), differentiable; ``pixels``: shape (n, 3, height, width), −1 to 1."""


@dataclass(frozen=True)
class Guidance:
    """How a guide moves the text.

    Attributes
    ----------
    guide : Guide
        Of the pictures of one batch, in their order.
    step : float
        λ: how far each token moves at each guided step, in units of the text embedding. Below 0 it raises the loss.
    first : float
        Share of all steps that come before the first guided one. The community's code takes 50 steps, of which a layout
        leaves 35, and guides from the 15th of these on: 0.6.
    """

    guide: Guide
    step: float = 0.1
    first: float = 0.6

    def moved(self, text: Tensor, predicted: Callable[[Tensor], Tensor]) -> Tensor:
        """The text after one move.

        Parameters
        ----------
        text : Tensor of float32, shape (n, tokens, width)
            What the UNet reads.
        predicted : callable
            From a text to the clean pictures that it leads to, shape (n, 3, height, width), about −1 to 1.

        Raises
        ------
        FergiError
            If the gradient is not finite.
        """
        with torch.enable_grad():
            text = text.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.guide.loss(predicted(text)).sum(), text)
        if not gradient.isfinite().all():
            raise FergiError("The gradient of the guidance is not finite. Choose a smaller step, or float32.")
        length = gradient.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(gradient.dtype).tiny)
        return text.detach() - self.step * gradient / length
