"""A small Stable Diffusion for faces, made and trained here from labelled pictures and their captions.

It stands in for the full-size one where there is none: for tests, benchmarks and drawn faces. It is written in the form
of diffusers, so that whatever takes a Stable Diffusion takes it. Its autoencoder is not learned: 8 × 8 patches on their
principal components, which is linear and exact enough, so gradients of a picture reach its latents unchanged.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fergi.files import FergiError, new_folder
from fergi.scorers.interface import offline_import

with offline_import():
    from diffusers import (
        ConfigMixin,
        DDIMScheduler,
        DDPMScheduler,
        ModelMixin,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from diffusers.configuration_utils import register_to_config
    from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
    from diffusers.models.modeling_outputs import AutoencoderKLOutput
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

PATCH = 8  # pixels
COMPONENTS = 32
WIDTHS, HEADS, TEXT_WIDTH = (64, 64), 4, 64  # channels of the UNet by resolution, attention heads, width of a token
MOST_TOKENS = 77  # of a caption, as CLIP's
STEPS, BATCH, RATE, EMPTY = 1200, 64, 2e-3, 0.1  # EMPTY: share of captions left empty, for guidance without a text


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Patches of pictures on their principal components, with the interface of ``AutoencoderKL``.

    A component is divided by the root of its standard deviation: large ones stay larger, so that sampling decides on
    them first and they end with the smallest relative error, and grain is not blown up. Their mean square is 1.

    Parameters
    ----------
    latent_channels : int
        Principal components of a patch.
    scaling_factor : float
        What a pipeline multiplies latents by; their mean square is 1 already.
    block_out_channels : sequence of int
        Pipelines read the side of a patch, 2 to the power of the length less 1, from it; the channels say nothing.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = COMPONENTS,
        scaling_factor: float = 1.0,
        block_out_channels: Sequence[int] = (COMPONENTS,) * PATCH.bit_length(),
    ) -> None:
        super().__init__()
        self.patch = 2 ** (len(block_out_channels) - 1)
        size = 3 * self.patch**2
        for name, shape in (("mean", size), ("components", (latent_channels, size)), ("scales", latent_channels)):
            self.register_parameter(name, torch.nn.Parameter(torch.ones(shape), requires_grad=False))

    @classmethod
    def fit(cls, pixels: Tensor, components: int = COMPONENTS, patch: int = PATCH) -> "PatchAutoencoder":
        """The one of pictures, shape (n, 3, height, width), −1 to 1; ``patch`` is a power of 2."""
        fitted = cls(components, block_out_channels=(components,) * patch.bit_length())
        patches = functional.pixel_unshuffle(pixels, patch).movedim(1, -1).flatten(0, -2).double()
        values, vectors = torch.linalg.eigh(torch.cov(patches.T))
        fitted.mean.copy_(patches.mean(dim=0))
        fitted.components.copy_(vectors[:, -components:].T.flip(0))
        roots = values[-components:].flip(0).clamp(1e-12) ** 0.25
        fitted.scales.copy_(roots * roots.square().mean().sqrt())
        return fitted

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Pictures (n, 3, height, width) to latents (n, components, height / 8, width / 8), without chance."""
        patches = functional.pixel_unshuffle(x, self.patch) - self.mean[:, None, None]
        latents = torch.einsum("cp,nphw->nchw", self.components / self.scales[:, None], patches)
        found = DiagonalGaussianDistribution(torch.cat([latents, torch.zeros_like(latents)], dim=1), deterministic=True)
        return AutoencoderKLOutput(latent_dist=found) if return_dict else (found,)

    def decode(self, z: Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        """Latents to pictures; there is no chance for ``generator`` to decide."""
        patches = torch.einsum("cp,nchw->nphw", self.components * self.scales[:, None], z)
        sample = functional.pixel_shuffle(patches + self.mean[:, None, None], self.patch)
        return DecoderOutput(sample=sample) if return_dict else (sample,)


def make_small_base(
    folder: Path,
    pictures: np.ndarray,
    captions: Sequence[str],
    seed: int,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    rate: float = RATE,
    patch: int = PATCH,
    components: int = COMPONENTS,
    widths: Sequence[int] = WIDTHS,
) -> None:
    """Make the pipeline, train it, and write it.

    Parameters
    ----------
    folder : Path
        A new folder.
    pictures : ndarray of uint8, shape (n, side, side, 3)
        RGB; the side is a multiple of twice the patch's.
    captions : sequence of str
        Of the pictures.
    seed : int
        Of the initial weights and of the training.
    steps, batch, rate : int, int, float
        Of the training: how many steps, pictures of a step, and the highest learning rate.
    patch, components : int
        Side of the autoencoder's patches, a power of 2, and how many principal components they keep.
    widths : sequence of int
        Channels of the UNet by resolution.

    Raises
    ------
    FergiError
        If pictures and captions do not fit, or the folder is there already.
    """
    pictures, side = np.asarray(pictures), pictures.shape[1] if np.ndim(pictures) == 4 else 0
    if pictures.shape != (len(captions), side, side, 3) or not len(captions) or side % (2 * patch):
        raise FergiError(
            f"{len(captions)} captions and pictures of shape {pictures.shape} do not make a small base model. Give one "
            f"caption a picture, and square RGB pictures whose side is a multiple of {2 * patch} pixels."
        )
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    with new_folder(folder) as written, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = untrained(PatchAutoencoder.fit(pixels, components, patch), side, captions, written, widths)
        with torch.no_grad():
            latents = torch.cat([pipeline.vae.encode(part).latent_dist.mode() for part in pixels.split(256)])
        _train(pipeline, latents, captions, steps, batch, rate)
        pipeline.save_pretrained(written)


def untrained(
    autoencoder: PatchAutoencoder, side: int, captions: Iterable[str], folder: Path, widths: Sequence[int] = WIDTHS
) -> Any:
    """The pipeline with random weights but for its autoencoder; ``folder`` is for the vocabulary's files."""
    tokenizer = word_tokenizer(captions, folder)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=2 * TEXT_WIDTH, projection_dim=TEXT_WIDTH,
        num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    n_components = autoencoder.config.latent_channels
    unet = UNet2DConditionModel(
        sample_size=side // autoencoder.patch, in_channels=n_components, out_channels=n_components,
        block_out_channels=tuple(widths),
        layers_per_block=1, norm_num_groups=8, cross_attention_dim=TEXT_WIDTH, attention_head_dim=HEADS,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths), up_block_types=("CrossAttnUpBlock2D",) * len(widths),
    )  # fmt: skip
    return assembled(autoencoder, CLIPTextModel(text), tokenizer, unet)


def assembled(autoencoder: Any, text: Any, tokenizer: Any, unet: Any) -> Any:
    """Parts as a pipeline with Stable Diffusion's noise, and without a safety checker."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        autoencoder, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def word_tokenizer(captions: Iterable[str], folder: Path) -> Any:
    """CLIP's form, with a token for each word of the captions; other words are spelt in bytes."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [*map(chr, printed), *(chr(256 + n) for n in range(256 - len(printed)))]
    spelt, longest = [], 0
    for text in dict.fromkeys(captions):
        words = re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower())
        longest = max(longest, sum(1 if word.isascii() and word.isalpha() else len(word.encode()) for word in words))
        spelt += [word for word in words if len(word) > 1 and word.isascii() and word.isalpha()]
    return spelling_tokenizer(letters, spelt, folder, min(2 * longest + 2, MOST_TOKENS))


def spelling_tokenizer(letters: Sequence[str], words: Iterable[str], folder: Path, length: int) -> Any:
    """CLIP's form, with a token for each word, which merges spell from letters; ``folder`` is for files meanwhile."""
    names, merges = [*letters, *(f"{letter}</w>" for letter in letters)], []
    for word in words:
        spelt = word[0]
        for letter in [*word[1:-1], f"{word[-1]}</w>"]:
            merges.append(f"{spelt} {letter}")
            spelt += letter
            names.append(spelt)
    names = [*dict.fromkeys(names), "<|startoftext|>", "<|endoftext|>"]
    vocabulary, spelling = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({name: number for number, name in enumerate(names)}))
    spelling.write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]) + "\n")
    tokenizer = CLIPTokenizer(vocabulary, spelling, model_max_length=length)
    for file in (vocabulary, spelling):
        file.unlink()
    return tokenizer


def _train(pipeline: Any, latents: Tensor, captions: Sequence[str], steps: int, batch: int, rate: float) -> None:
    """Squared error of the noise, of UNet and text encoder together; some captions are empty."""
    noising = DDPMScheduler.from_config(pipeline.scheduler.config)
    unet, text = pipeline.unet.train(), pipeline.text_encoder.train()
    tokens = pipeline.tokenizer([*captions, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    trained = [*unet.parameters(), *text.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(steps, 1))
    for _ in range(steps):
        chosen, time = (
            torch.randint(len(latents), (batch,)),
            torch.randint(noising.config.num_train_timesteps, (batch,)),
        )
        clean, noise = latents[chosen], torch.randn(batch, *latents.shape[1:])
        words = tokens[torch.where(torch.rand(batch) < EMPTY, len(captions), chosen)]
        loss = functional.mse_loss(unet(noising.add_noise(clean, noise, time), time, text(words)[0]).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
    unet.eval(), text.eval()
