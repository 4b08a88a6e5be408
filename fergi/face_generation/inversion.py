"""The layout of a picture: the noise from which DDIM would make it again (SynFER, arXiv 2410.09865).

DDIM's steps are taken backwards, from the picture to noise, without text and AUs. The way forth needs the noise that is
predicted of a step's noisier end, which the way back does not have yet: it predicts it of the other end. So sampling
does not return to the very same picture; the difference falls about as 1 / steps.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fergi.action_units.disfa import PICTURE_ENDINGS
from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.sampling import Layout, ddim, sample
from fergi.files import FergiError, sha256, summarise
from fergi.pictures import open_picture


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


class Layouts:
    """The layouts of pictures that are to be made, from files.

    Attributes
    ----------
    names : list of str
        The file of each picture to be made.
    settings : dict
        Name of file or folder, share of the steps, and a SHA-256 of all files that are used.
    """

    def __init__(self, path: Path, seeds: Sequence[int], *, steps: int, share: float) -> None:
        """Find the files: ``path`` itself, or for each seed one of the pictures in that folder.

        Raises
        ------
        FergiError
            If there are none, or some are no pictures.
        """
        self.steps, self.share = steps, share
        self._latents: dict[Path, Tensor] = {}  # 64 KB each for Stable Diffusion 1.5
        files = [path]
        if path.is_dir():
            files = sorted(each for each in path.iterdir() if each.suffix.lower() in PICTURE_ENDINGS)
            if not files:
                raise FergiError(f"{path} has no pictures ({', '.join(PICTURE_ENDINGS)}). Choose another --layout.")
        self.files = [files[np.random.default_rng(seed).integers(len(files))] for seed in seeds]
        self.names, used, problems = [each.name for each in self.files], sorted(set(self.files)), []
        for each in used:
            try:
                open_picture(each)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise summarise(problems, len(used), "layouts", "Remove them, or choose another --layout.")
        content = hashlib.sha256(" ".join(map(sha256, used)).encode()).hexdigest()
        self.settings = {"layout": path.resolve().name, "layout_sha256": content, "layout_share": share}

    def pixels(self, generator: FaceGenerator, place: int) -> Tensor:
        """The file of one picture, −1 to 1, shape (1, 3, height, width)."""
        return generator.prepare(open_picture(self.files[place]))[None] / 127.5 - 1

    def of(self, generator: FaceGenerator, places: Sequence[int]) -> Layout:
        """Of some pictures. Each file is inverted alone and once, so that the batch does not matter."""
        for place in places:
            if self.files[place] not in self._latents:
                found = invert(generator, self.pixels(generator, place), steps=self.steps, share=self.share)
                self._latents[self.files[place]] = found.latents.cpu()
        return Layout(torch.cat([self._latents[self.files[place]] for place in places]), round(self.share * self.steps))
