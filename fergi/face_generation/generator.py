"""A Stable Diffusion with an AU adapter: noise, latents, pictures, and the adapter's file.

``FaceGenerator.pipeline`` itself computes with the adapter, too: pass intensities as ``ip_adapter_image_embeds``, a
list of one tensor of shape (2, 1, 12), whose first row is for the negative prompt (NaN: not told); all pictures of a
call share them. λ is ``set_ip_adapter_scale``. Where the base model is not float32, call it in ``autocast()``.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fergi.face_generation.adapter import ActionUnitAdapter
from fergi.features import ACTION_UNITS
from fergi.finetuning.generator import StableDiffusion


class FaceGenerator(StableDiffusion):
    """A frozen Stable Diffusion whose UNet has an AU adapter.

    Attributes
    ----------
    adapter : ActionUnitAdapter
        What is trained, float32 whatever the precision of the rest.
    parameters : dict
        Name → tensor, of the adapter.
    action_units : tuple of int
        The AUs of the columns of intensities.
    """

    action_units = ACTION_UNITS

    def __init__(
        self,
        name: str,
        device: torch.device | str,
        *,
        precision: str = "float32",
        adapter: Path | None = None,
        seed: int = 0,
        resolution: int | None = None,
    ) -> None:
        """Load the base model from a folder or the model hub, and the adapter from a file, or make a new one.

        Parameters
        ----------
        name : str
            A Stable Diffusion 1.x or 2.x, folder or model of the hub.
        device : torch.device or str
            Where it computes.
        adapter : Path, optional
            The file that ``save`` wrote.
        precision : str
            float32 or bfloat16, of what is not trained.
        seed : int
            Of a new adapter's values.
        resolution : int, optional
            Pixels of a side, if not the model's own.

        Raises
        ------
        FergiError
            If the model cannot be loaded, is of another kind or has no cross-attention, or the file does not fit.
        """
        super().__init__(name, torch.device(device), precision=precision, resolution=resolution)
        self.dtype = getattr(torch, precision)
        self.adapter = ActionUnitAdapter(self.unet, seed, name)
        self.parameters = dict(self.adapter.named_parameters())
        if adapter:
            self.load(adapter)

    def set_scale(self, scale: float) -> None:
        """Choose λ, by which the attention to AUs is multiplied: 1 as trained, 0 the base model to the last bit."""
        self.pipeline.set_ip_adapter_scale(scale)

    def autocast(self) -> torch.autocast:
        """For what is computed with the UNet and the adapter together, which may be of two precisions."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def predict(
        self,
        latents: Tensor,
        timestep: Tensor | int,
        text: Tensor,
        intensities: Tensor,
        network: nn.Module | None = None,
    ) -> Tensor:
        """The predicted noise, float32, also of models that predict velocity.

        Parameters
        ----------
        latents : Tensor, shape (n, *shape)
            With noise.
        timestep : Tensor or int
            From 0, one or n.
        text : Tensor, shape (n, tokens, width)
            From ``text``.
        intensities : Tensor, shape (n, 12)
            0–5 in the order of ``action_units``; NaN: not told.
        network : Module, optional
            The UNet as an engine has wrapped it.
        """
        told = {"image_embeds": [intensities[:, None].to(self.device)]}
        with self.autocast():
            given = latents.to(self.dtype), timestep, text.to(self.dtype)
            predicted = (network or self.unet)(*given, added_cond_kwargs=told).sample.float()
        if self.noising.config.prediction_type == "epsilon":
            return predicted
        signal = self.noising.alphas_cumprod.to(self.device)[torch.as_tensor(timestep, device=self.device).long()]
        signal = signal.view(-1, 1, 1, 1)
        return signal.sqrt() * predicted + (1 - signal).sqrt() * latents

    def encode(self, pixels: Tensor, sampling: Tensor | None = None) -> Tensor:
        """Latents of pictures, float32, shape (n, *shape); differentiable.

        ``pixels``: shape (n, 3, height, width), −1 to 1. ``sampling``: of latents' shape, standard normal, says where
        in the distribution of the VAE's latents they lie (default: at its mean).
        """
        found = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        latents = found.mean.float() if sampling is None else found.mean.float() + found.std.float() * sampling
        return latents * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, float32, shape (n, 3, height, width), about −1 to 1, not cut; differentiable."""
        return self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample.float()

    def intensities(self, rows: Sequence[Sequence[float]] | None = None, n: int = 1) -> Tensor:
        """Rows as a tensor on the device, shape (n, 12); n rows of NaN, "not told", where none are given."""
        if rows is None:
            return torch.full((n, len(ACTION_UNITS)), torch.nan, device=self.device)
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)

    def load(self, path: Path) -> None:
        """Take the adapter of a file that ``save`` wrote, all of it or nothing; else FergiError."""
        self.adapter.load(path)

    def save(self, path: Path) -> None:
        """Write the adapter, all or nothing."""
        self.adapter.save(path)
