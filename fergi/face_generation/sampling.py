"""Pictures from noise: DDIM with classifier-free guidance, AUs, semantic guidance and a layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.guidance import Guidance
from fergi.files import FergiError


@dataclass(frozen=True)
class Layout:
    """Where to start in place of noise: latents of n pictures, as noisy as DDIM's before its last ``steps`` steps."""

    latents: Tensor
    steps: int


@torch.no_grad()
def sample(
    generator: FaceGenerator,
    prompts: Sequence[str],
    intensities: Tensor,
    seeds: Sequence[int],
    *,
    steps: int,
    scale: float,
    guide: Guidance | None = None,
    layout: Layout | None = None,
) -> np.ndarray:
    """Make n pictures.

    A picture follows from its own prompt, intensities and seed, but for rounding: the batch does not matter.

    Parameters
    ----------
    generator : FaceGenerator
        With its adapter.
    prompts : sequence of str
        One a picture.
    intensities : Tensor, shape (n, 12)
        0–5 in the order of ``fergi.features.ACTION_UNITS``; NaN: not told.
    seeds : sequence of int
        Of the noise, one a picture.
    steps : int
        Of DDIM, from noise to a clean picture.
    scale : float
        s of classifier-free guidance, ε̂ = ε̂(nothing) + s · (ε̂(text, AUs) − ε̂(nothing)). At 1 there is none.
    guide : Guidance, optional
        Moves the text in the late steps.
    layout : Layout, optional
        Of ``inversion.invert`` with the same ``steps``; seeds have no effect then.

    Returns
    -------
    ndarray of uint8, shape (n, height, width, 3)
        RGB.

    Raises
    ------
    FergiError
        If pictures or the guidance's gradient are not finite, or there are too many steps.
    """
    scheduler = ddim("DDIMScheduler", generator, steps)
    intensities = intensities.to(generator.device)
    nothing = generator.text([""] * len(prompts)).float(), torch.full_like(intensities, torch.nan)
    text = generator.text(prompts).float()
    latents = (layout.latents if layout else noise(seeds, generator.shape)).to(generator.device)
    begun = steps - layout.steps if layout else 0
    for number, timestep in enumerate(scheduler.timesteps[begun:], begun):
        empty = generator.predict(latents, timestep, *nothing) if scale != 1 else None
        step = partial(_step, generator, scheduler, latents, timestep, intensities, empty, scale)
        if guide and number >= round(guide.first * steps):
            text = guide.moved(text, lambda told, step=step: generator.decode(step(told).pred_original_sample))
        latents = step(text).prev_sample
    pixels = generator.decode(latents)
    if not pixels.isfinite().all():
        raise FergiError(
            f"{generator.name} makes pictures that are not finite. Choose --precision float32, or another."
        )
    levels = (pixels / 2 + 0.5).clamp(0, 1) * 255
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _step(
    generator: FaceGenerator,
    scheduler: Any,
    latents: Tensor,
    timestep: Tensor,
    intensities: Tensor,
    empty: Tensor | None,
    scale: float,
    text: Tensor,
) -> Any:
    """One step of DDIM with a text: ``prev_sample``, less noisy, and ``pred_original_sample``, the clean x̂₀."""
    predicted = generator.predict(latents, timestep, text, intensities)
    return scheduler.step(predicted if empty is None else empty + scale * (predicted - empty), timestep, latents)


def noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Each seed's own noise, shape (n, *shape), the same on every device."""
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds])


def ddim(kind: str, generator: FaceGenerator, steps: int) -> Any:
    """DDIMScheduler or DDIMInverseScheduler on the noise that a generator predicts.

    Nothing is clipped, which DDIM does unless a model says otherwise: it is made for pixels, and latents go beyond 1.

    Raises
    ------
    FergiError
        If there are more steps than timesteps that the generator knows.
    """
    import diffusers

    if steps > (most := generator.noising.config.num_train_timesteps // 2):
        raise FergiError(f"{steps} steps are too many for {generator.name}. Choose at most {most}.")

    options = {"clip_sample": False, "prediction_type": "epsilon"}
    scheduler = getattr(diffusers, kind).from_config(generator.pipeline.scheduler.config, **options)
    scheduler.set_timesteps(steps, device=generator.device)
    return scheduler
