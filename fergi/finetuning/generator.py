"""A diffusion model with a LoRA: errors with and without it, samples, and the file that diffusers loads.

There is one UNet. With its LoRA switched off it is the reference, the model as it was before.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from fergi.files import FergiError, replacing, sha256
from fergi.finetuning.generator_losses import squared_error
from fergi.recording.images import load_pipeline
from fergi.scorers.interface import offline_import
from fergi.weights import load_strictly

ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
PIPELINE_ADVICE = "Name a Stable Diffusion 1.x or 2.x, as a folder of diffusers' form or a model of the hub."
PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Draw:
    """What chance decides for a pair or a picture; it follows from its key alone, whatever was drawn before."""

    timestep: float  # share of all timesteps, from 0, below 1
    flip: bool
    empty: float  # the prompt is left empty where this is below the share of empty prompts
    noise: Tensor  # as the latents
    sampling: Tensor  # likewise: where in the VAE's distribution the latents lie
    random: torch.Generator  # for more


def draw(key: Sequence[int], shape: Sequence[int]) -> Draw:
    """The draw of a key, such as seed, step, and place in the batch."""
    number = np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)
    random = torch.Generator().manual_seed(int(number))
    timestep, flip, empty = torch.rand(3, generator=random, dtype=torch.float64).tolist()
    noise, sampling = (torch.randn(*shape, generator=random) for _ in range(2))
    return Draw(timestep, flip < 0.5, empty, noise, sampling, random)


@dataclass(frozen=True)
class Noised:
    """Noised latents of n pictures, what the network is to predict from them, and the reference's errors."""

    latents: Tensor
    timestep: Tensor
    text: Tensor
    target: Tensor
    reference: Tensor  # shape (n,)


class StableDiffusion:
    """A Stable Diffusion 1.x or 2.x whose networks are frozen.

    Attributes
    ----------
    resolution : int
        Pixels of a picture's side.
    shape : tuple of int
        Of a picture's latents.
    """

    def __init__(self, name: str, device: torch.device, *, precision: str, resolution: int | None = None) -> None:
        """Load it from a folder or the model hub.

        Raises
        ------
        FergiError
            If it cannot be loaded, is of another kind, or makes no pictures of that resolution.
        """
        self.name, self.device = name, device
        self.pipeline = load_pipeline(name, getattr(torch, precision), PIPELINE_ADVICE)
        self._check()
        self.pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.unet, self.vae = self.pipeline.unet, self.pipeline.vae
        for network in (self.unet, self.vae, self.pipeline.text_encoder):
            network.requires_grad_(False).eval()
        factor = self.pipeline.vae_scale_factor
        self.resolution = resolution or self.unet.config.sample_size * factor
        step = int(np.lcm(8, factor * 2 ** (len(self.unet.config.block_out_channels) - 1)))
        if self.resolution % step:
            raise FergiError(f"{name} makes no pictures of {self.resolution} pixels. Choose a multiple of {step}.")
        self.shape = (self.unet.config.in_channels, *(self.resolution // factor,) * 2)
        from diffusers import DDPMScheduler

        self.noising = DDPMScheduler.from_config(self.pipeline.scheduler.config)

    def _check(self) -> None:
        """Stop if it is not a Stable Diffusion 1.x or 2.x that makes pictures from text."""
        from diffusers import StableDiffusionPipeline

        kind = type(self.pipeline).__name__
        if not isinstance(self.pipeline, StableDiffusionPipeline):
            raise FergiError(f"{self.name} is a {kind}, which cannot be tuned here. {PIPELINE_ADVICE}")
        prediction = self.pipeline.scheduler.config.get("prediction_type", "epsilon")
        n_channels = self.pipeline.unet.config.in_channels, self.pipeline.vae.config.latent_channels
        if prediction not in PREDICTIONS or n_channels[0] != n_channels[1]:
            what = f"predicts {prediction!r}" if prediction not in PREDICTIONS else "needs more than text and noise"
            raise FergiError(f"{self.name} {what}, so it cannot be tuned here. {PIPELINE_ADVICE}")

    def fingerprint(self) -> str:
        """The SHA-256 of the UNet's files, which an adapter fits."""
        folder = Path(self.unet.config["_name_or_path"])
        return " ".join(sha256(path) for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]))

    def prepare(self, picture: Image.Image) -> Tensor:
        """An RGB picture's centre, its shorter side brought to the resolution; uint8, shape (3, side, side)."""
        return Compose([Resize(self.resolution), CenterCrop(self.resolution), PILToTensor()])(picture)

    def text(self, prompts: Sequence[str]) -> Tensor:
        """What the UNet reads of prompts."""
        return self.pipeline.encode_prompt(list(prompts), self.device, 1, False)[0]


class Generator(StableDiffusion):
    """A Stable Diffusion whose UNet has a LoRA.

    Attributes
    ----------
    parameters : dict
        Name → parameter of the LoRA, float32.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        *,
        lora_targets: Sequence[str],
        rank: int,
        alpha: int,
        precision: str,
        resolution: int | None,
        seed: int,
    ) -> None:
        """Load it from a folder or the model hub, and add a LoRA that changes nothing yet.

        Raises
        ------
        FergiError
            If it cannot be loaded, is of another kind, or no layer has such a name.
        """
        super().__init__(name, device, precision=precision, resolution=resolution)
        self._add_lora(lora_targets, rank, alpha, seed)

    def _add_lora(self, targets: Sequence[str], rank: int, alpha: int, seed: int) -> None:
        with offline_import():
            from peft import LoraConfig
        options = {"r": rank, "lora_alpha": alpha, "target_modules": list(targets), "init_lora_weights": "gaussian"}
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.unet.add_adapter(LoraConfig(**options))
        except (ValueError, TypeError) as error:
            raise FergiError(
                f"A LoRA on {' '.join(targets)} reaches no parameter of {self.name}, or a layer that cannot have one. "
                "Choose --lora-targets among the ends of its layers' names, such as to_q to_k to_v to_out.0."
            ) from error
        self.parameters = {name: value for name, value in self.unet.named_parameters() if value.requires_grad}
        for value in self.parameters.values():
            value.data = value.data.float()

    def check_gradients(self) -> None:
        """Stop unless a backward pass has reached the whole LoRA; FergiError counts what it did not reach."""
        missed = [name for name, value in self.parameters.items() if value.grad is None]
        if missed:
            raise FergiError(
                f"{len(missed)} of the {len(self.parameters)} parameters to tune in {self.name} get no gradient "
                f"(first: {missed[0]}), so they would never change. Choose other --lora-targets."
            )

    # Errors --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def noised(self, pixels: Sequence[Tensor], prompts: Sequence[str], draws: Sequence[Draw]) -> Noised:
        """Pictures of ``prepare`` with their noise, and the reference's errors."""
        flipped = [each.flip(-1) if drawn.flip else each for each, drawn in zip(pixels, draws, strict=True)]
        levels = torch.stack(flipped).to(self.device) / 127.5 - 1
        noise, sampling = (torch.stack([getattr(drawn, name) for drawn in draws]) for name in ("noise", "sampling"))
        noise, sampling = noise.to(self.device), sampling.to(self.device)
        found = self.vae.encode(levels.to(self.vae.dtype)).latent_dist
        latents = (found.mean.float() + found.std.float() * sampling) * self.vae.config.scaling_factor
        n_timesteps = self.noising.config.num_train_timesteps
        timestep = torch.tensor([int(drawn.timestep * n_timesteps) for drawn in draws], device=self.device)
        velocity = self.noising.config.prediction_type == "v_prediction"
        target = self.noising.get_velocity(latents, noise, timestep) if velocity else noise
        given = self.noising.add_noise(latents, noise, timestep).to(self.unet.dtype), timestep, self.text(prompts)
        self.unet.disable_adapters()
        try:
            reference = squared_error(self.unet(*given).sample, target)
        finally:
            self.unet.enable_adapters()
        return Noised(*given, target, reference)

    def error(self, noised: Noised, network: torch.nn.Module | None = None) -> Tensor:
        """The errors with the LoRA, shape (n,); ``network`` is the UNet as an engine has wrapped it."""
        prediction = (network or self.unet)(noised.latents, noised.timestep, noised.text).sample
        return squared_error(prediction, noised.target)

    # Samples -------------------------------------------------------------------------------------------------------

    def samples(self, prompt: str, seeds: Sequence[int], steps: int, guidance: float) -> list[Image.Image]:
        """A picture for each seed; the same seed starts from the same noise."""
        random = [torch.Generator().manual_seed(seed) for seed in seeds]
        sides = {"height": self.resolution, "width": self.resolution}
        made = self.pipeline(
            [prompt] * len(seeds), num_inference_steps=steps, guidance_scale=guidance, generator=random, **sides
        )
        return [picture.convert("RGB") for picture in made.images]

    # The adapter ---------------------------------------------------------------------------------------------------

    def load(self, tensors: Mapping[str, Tensor], source: Path | str) -> None:
        """Take a LoRA's values, all of them or nothing; FergiError names the first that does not fit."""
        fixed = {name: value for name, value in self.unet.state_dict().items() if name not in self.parameters}
        load_strictly(self.unet, fixed | dict(tensors), source=source)

    def save(self, path: Path) -> None:
        """Write the file that ``StableDiffusionPipeline.load_lora_weights`` takes, all or nothing."""
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft.utils import get_peft_model_state_dict

        layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(self.unet))
        kept: dict[str, Any] = {name: value.detach().cpu().contiguous() for name, value in layers.items()}
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".adapter.") as folder:
            settings = self.unet.peft_config["default"].to_dict()
            self.pipeline.save_lora_weights(folder, kept, unet_lora_adapter_metadata=settings)
            with replacing(path) as file:
                file.write((Path(folder) / ADAPTER_FILE).read_bytes())
