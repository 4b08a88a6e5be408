"""A scorer as the reward of a generator (ReFL): its score of a picture that was just made, with gradients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, functional

from fergi.files import FergiError
from fergi.finetuning.generator import Draw, Generator
from fergi.finetuning.pairs import PreferencePairs
from fergi.scorers.interface import Scorer
from fergi.scorers.pixels import MEAN, SPREAD

STEPS = 40  # of DDPM; the gradient goes through one of the last ten alone
EARLIEST = 30
STANDARDISED_ON = 256  # pictures at most


def square_pixels(pictures: Tensor, side: int) -> Tensor:
    """Square pictures as every scorer's network takes them, with gradients.

    Scorers crop or pad pictures that are not square, and differ in nothing else; so this is ``Scorer.pixels`` but for
    the rounding to 8 bits.

    Parameters
    ----------
    pictures : torch.Tensor, shape (n, 3, any, any)
        RGB, 0–1.
    side : int
        Pixels that the network takes.
    """
    resized = functional.resize(pictures, [side, side], InterpolationMode.BICUBIC, antialias=True)
    return functional.normalize(resized.clamp(0, 1), MEAN, SPREAD)


class Reward:
    """Scores, standardised so that the pictures of the pairs have mean 0 and standard deviation 1."""

    def __init__(self, scorer: Scorer, pairs: PreferencePairs, seed: int) -> None:
        """Score some of the pictures.

        Raises
        ------
        FergiError
            If they all get the same score.
        """
        self.scorer = scorer
        rows = np.random.default_rng(seed).permutation(len(pairs))[:STANDARDISED_ON]
        shown = pairs.table.iloc[rows]
        pictures = [pairs.pictures[place].open() for place in shown["first"]]
        scores = np.concatenate(
            [scorer.score([prompt], [each]) for prompt, each in zip(shown["prompt"], pictures, strict=True)]
        )
        self.location, self.scale = float(scores.mean()), float(scores.std())
        if not self.scale > 1e-9 * abs(self.location):
            raise FergiError(f"{scorer.name} gives all pictures the same score, so it is no reward. Choose another.")

    def __call__(self, prompts: Sequence[str], pictures: Tensor) -> Tensor:
        """Rewards of square pictures (RGB, 0–1), float64, shape (n,)."""
        scores = self.scorer.compute(list(prompts), square_pixels(pictures, self.scorer.side))
        return self.standardised(scores.double())

    def standardised(self, scores: Any) -> Any:
        """Scores (tensor or array) as rewards."""
        return (scores - self.location) / self.scale


def rewards_of_new(
    generator: Generator, network: nn.Module, reward: Reward, prompts: Sequence[str], draws: Sequence[Draw], last: int
) -> Tensor:
    """Rewards of new pictures, with the gradient of the one denoising step ``last``; shape (n,).

    Steps before it are without gradient and without guidance, and the picture is what that step takes the end to be.
    """
    from diffusers import DDPMScheduler

    scheduler, text = DDPMScheduler.from_config(generator.noising.config), generator.text(prompts)
    scheduler.set_timesteps(STEPS, device=generator.device)
    random, dtype = [drawn.random for drawn in draws], generator.unet.dtype
    latents = torch.stack([drawn.noise for drawn in draws]).to(generator.device)
    with torch.no_grad():
        for timestep in scheduler.timesteps[:last]:
            predicted = generator.unet(latents.to(dtype), timestep, text).sample.float()
            latents = scheduler.step(predicted, timestep, latents, generator=random).prev_sample
    timestep = scheduler.timesteps[last]
    predicted = network(latents.to(dtype), timestep, text).sample.float()
    end = scheduler.step(predicted, timestep, latents, generator=random).pred_original_sample
    decoded = generator.vae.decode((end / generator.vae.config.scaling_factor).to(generator.vae.dtype)).sample
    return reward(prompts, (decoded.float() / 2 + 0.5).clamp(0, 1))
