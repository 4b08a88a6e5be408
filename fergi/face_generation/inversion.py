"""The layout of a picture: the noise from which DDIM would make it again (SynFER, arXiv 2410.09865).

DDIM's steps are taken backwards, from the picture to noise, without text and AUs. The way forth needs the noise that is
predicted of a step's noisier end, which the way back does not have yet: it predicts it of the other end. So sampling
does not return to the very same picture; the difference falls about as 1 / steps.
"""

import numpy as np
import torch
from torch import Tensor

from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.sampling import Layout, ddim, sample


@torch.no_grad()
def invert(generator: FaceGenerator, pixels: Tensor, *, steps: int, share: float = 0.7) -> Layout:
    """The layout of pictures.

    Parameters
    ----------
    generator : FaceGenerator
        Is told neither text nor AUs.
    pixels : Tensor, shape (n, 3, height, width)
        −1 to 1, of the generator's resolution.
    steps : int
        Of DDIM, all the way from noise to a clean picture.
    share : float
        Of these steps, how many are inverted. What is left out keeps the picture's coarse forms: the community's code
        inverts 35 of 50.

    Raises
    ------
    FergiError
        If there are too many steps.
    """
    inverted = round(share * steps)
    scheduler = ddim("DDIMInverseScheduler", generator, steps)
    nothing = generator.text([""] * len(pixels)).float(), generator.intensities(n=len(pixels))
    latents = generator.encode(pixels.to(generator.device))
    for timestep in scheduler.timesteps[:inverted]:
        latents = scheduler.step(generator.predict(latents, timestep, *nothing), timestep, latents).prev_sample
    return Layout(latents, inverted)


@torch.no_grad()
def round_trip_error(generator: FaceGenerator, pixels: Tensor, *, steps: int, share: float = 0.7) -> float:
    """How far sampling from the layout of pictures, without text and AUs, ends from them.

    Returns
    -------
    float
        The root mean square difference in grey levels, 0–255, from what the VAE makes of the pictures; so the VAE's own
        error does not count.
    """
    layout = invert(generator, pixels, steps=steps, share=share)
    n = len(pixels)
    made = sample(generator, [""] * n, generator.intensities(n=n), range(n), steps=steps, scale=1, layout=layout)
    kept = (generator.decode(generator.encode(pixels.to(generator.device))) / 2 + 0.5).clamp(0, 1) * 255
    return float(np.sqrt(np.mean((made - kept.permute(0, 2, 3, 1).cpu().numpy()) ** 2)))
