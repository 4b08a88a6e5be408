"""Tiny Stable Diffusions for drawn pictures of 32 pixels, trained here in minutes without a network connection.

One draws things before a background. A prompt names a colour and a thing; the background is dark or bright, each in
half of the pictures, and no prompt says which. So a preference for bright pictures has room to move the generator, and
the colour of the thing is a property that such a preference should leave alone. The other draws scenes as participants
see them, good ones and bad ones.

Writes  the pipeline in diffusers' form: tokenizer, text encoder, VAE, UNet, scheduler
Run     python -m synthetic generator --root DIR            writes DIR/pretrained_models/tiny_generator
        python -m synthetic generator --root DIR --scenes   writes DIR/pretrained_models/scene_generator
Takes   three CPU-minutes, with --scenes one and a half; 4 MB.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from fergi.files import new_folder, sha256
from fergi.scorers.interface import offline_import
from fergi.script import CHECKOUT, argument_parser, at_least, run
from synthetic.claim import KEPT, claim
from synthetic.pictures import COLOURS, CREAM, DARK, FLYING, LIGHT, STANDING, draw_picture, random_scene

FOLDER, SCENES_FOLDER = "pretrained_models/tiny_generator", "pretrained_models/scene_generator"
SIDE = 32  # pixels
OVERSAMPLING = 4
KINDS = {name: (STANDING | FLYING)[name] for name in ("ball", "house", "heart", "star")}
DARKER, BRIGHTER = (25, 75), (180, 230)  # grey levels of the background
LENGTH = 12  # tokens of a prompt
WIDTH = 32  # of the text encoder
N_PICTURES = 2048  # to train on
VAE_STEPS, VAE_BATCH, VAE_RATE, KL_WEIGHT = 400, 32, 3e-3, 1e-5
UNET_STEPS, UNET_BATCH, UNET_RATE, EMPTY = 900, 64, 2e-3, 0.1
BORDER = 3  # pixels, which no thing reaches
SCENES = {"n_pictures": 4096, "steps": 600}  # how much training of the other one
PATCHES = {"patch": 4, "components": 6, "widths": (32, 64)}  # and its size
WARM, COLD = ("red", "orange", "yellow", "pink"), ("green", "blue", "purple")


def random_prompt(random: np.random.Generator) -> tuple[str, str, str]:
    """A prompt, its colour and its thing."""
    colour, kind = (list(names)[random.integers(len(names))] for names in (COLOURS, KINDS))
    return f"a {colour} {kind}", colour, kind


def draw_thing(colour: str, kind: str, bright: bool, random: np.random.Generator) -> Image.Image:
    """A thing in the middle of a plain background, RGB; everything but the background is independent of ``bright``."""
    level, tint = random.uniform(0, 1), random.uniform(-8, 8, 3)
    low, high = BRIGHTER if bright else DARKER
    side = SIDE * OVERSAMPLING
    canvas = np.full((side, side, 3), (low + (high - low) * level) + tint).clip(0, 255).astype(np.uint8)
    size, place = random.uniform(0.3, 0.36), random.uniform(-0.03, 0.03, 2) + 0.5
    for points, paint in KINDS[kind]:
        tone = np.array(COLOURS[colour]) * {DARK: 0.85, LIGHT: 1.1}.get(paint, 1) if isinstance(paint, float) else CREAM
        fixed = ((points * size + place) * side * 16).round().astype(np.int32)
        cv2.fillPoly(canvas, [fixed], np.clip(tone, 0, 255).tolist(), lineType=cv2.LINE_AA, shift=4)
    return Image.fromarray(cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def background(picture: Image.Image) -> float:
    """The mean level of a picture's border, 0–1."""
    levels = np.asarray(picture, float).mean(axis=2) / 255
    inside = np.zeros(levels.shape, bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    return float(levels[~inside].mean())


def is_warm(picture: Image.Image) -> bool:
    """Whether the middle of a picture has more red than blue."""
    middle = slice(SIDE // 2 - 3, SIDE // 2 + 3)
    red, _, blue = np.asarray(picture, float)[middle, middle].mean(axis=(0, 1))
    return bool(red > blue)


def untrained(folder: Path) -> Any:
    """The pipeline with random weights; ``folder`` is for the vocabulary's files."""
    with offline_import():
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        from fergi.face_generation.small_base import assembled, spelling_tokenizer
    tokenizer = spelling_tokenizer("abcdefghijklmnopqrstuvwxyz", [*COLOURS, *KINDS], folder, LENGTH)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8, latent_channels=4, sample_size=SIDE,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4,
    )  # fmt: skip
    return assembled(vae, CLIPTextModel(text), tokenizer, unet)


def _optimizer(parameters: Sequence[torch.nn.Parameter], rate: float, steps: int) -> tuple[Any, Any]:
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-2)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)


def _train_vae(vae: Any, pixels: torch.Tensor, steps: int) -> None:
    """Squared error of the reconstruction; afterwards latents are scaled to standard deviation 1."""
    optimizer, schedule = _optimizer(list(vae.parameters()), VAE_RATE, steps)
    for _ in range(steps):
        batch = pixels[torch.randint(len(pixels), (VAE_BATCH,))]
        found = vae.encode(batch).latent_dist
        loss = functional.mse_loss(vae.decode(found.sample()).sample, batch) + KL_WEIGHT * found.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        vae.register_to_config(scaling_factor=1 / vae.encode(pixels[:256]).latent_dist.mode().std().item())


def _train_unet(pipeline: Any, pixels: torch.Tensor, prompts: Sequence[str], steps: int) -> None:
    """Squared error of the noise, of UNet and text encoder together; some prompts are empty."""
    from diffusers import DDPMScheduler

    noising = DDPMScheduler.from_config(pipeline.scheduler.config)
    vae, unet, text = pipeline.vae, pipeline.unet, pipeline.text_encoder
    with torch.no_grad():
        found = [vae.encode(each).latent_dist.mode() for each in pixels.split(256)]
    latents = torch.cat(found) * vae.config.scaling_factor

    def tokens(texts: Sequence[str]) -> torch.Tensor:
        return pipeline.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        ).input_ids

    every, empty = tokens(prompts), tokens([""])
    optimizer, schedule = _optimizer([*unet.parameters(), *text.parameters()], UNET_RATE, steps)
    for _ in range(steps):
        chosen = torch.randint(len(latents), (UNET_BATCH,))
        clean, time = latents[chosen], torch.randint(noising.config.num_train_timesteps, (UNET_BATCH,))
        noise = torch.randn_like(clean)
        words = torch.where(torch.rand(UNET_BATCH, 1) < EMPTY, empty, every[chosen])
        predicted = unet(noising.add_noise(clean, noise, time), time, text(words)[0]).sample
        loss = functional.mse_loss(predicted, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def make_generator(
    folder: Path, seed: int, *, n_pictures: int = N_PICTURES, vae_steps: int = VAE_STEPS, unet_steps: int = UNET_STEPS
) -> None:
    """Make the pipeline, train it on pictures of its own, and write it.

    Parameters
    ----------
    folder : Path
        A new folder.
    seed : int
        Of the initial weights and of the pictures.
    n_pictures, vae_steps, unet_steps : int
        How much training.
    """
    random = np.random.default_rng(seed)
    drawn = [random_prompt(random) for _ in range(n_pictures)]
    pictures = [draw_thing(colour, kind, bool(random.integers(2)), random) for _, colour, kind in drawn]
    pixels = torch.from_numpy(np.stack([np.asarray(each) for each in pictures])).permute(0, 3, 1, 2) / 127.5 - 1
    with new_folder(folder) as written, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = untrained(written)
        _train_vae(pipeline.vae, pixels, vae_steps)
        _train_unet(pipeline, pixels, [prompt for prompt, _, _ in drawn], unet_steps)
        pipeline.save_pretrained(written)


def make_scene_generator(folder: Path, seed: int, *, n_pictures: int, steps: int) -> None:
    """Make the pipeline that draws scenes of any quality, train it, and write it into a new folder."""
    from fergi.face_generation.small_base import make_small_base

    random = np.random.default_rng(seed)
    scenes = [random_scene(random) for _ in range(n_pictures)]
    drawn = [draw_picture(scene, random.uniform(), random, 2 * SIDE).picture for scene in scenes]
    small = np.stack([np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for each in drawn])
    make_small_base(folder, small, [scene.prompt for scene in scenes], seed, steps=steps, **PATCHES)


def _name(options: dict[str, int]) -> str:
    """A name that changes with the options, the packages and the code that a scene generator is made with."""
    code = (
        "requirements.txt",
        "synthetic/generator.py",
        "synthetic/pictures.py",
        "fergi/face_generation/small_base.py",
    )
    settings = f"{options} {[sha256(CHECKOUT / path) for path in code]}"
    return f"scene_generator_{hashlib.sha256(settings.encode()).hexdigest()[:16]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the generator, unless it is there."""
    parser = argument_parser(__doc__, "python -m synthetic generator")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--scenes", action="store_true", help="the one that draws scenes")
    for name, value in SCENES.items():
        shown = f"of --scenes (default: {value})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=at_least(1), default=value, metavar="N", help=shown)
    chosen = parser.parse_args(arguments)
    claim(chosen.root)
    folder = chosen.root / (SCENES_FOLDER if chosen.scenes else FOLDER)
    if (folder / "model_index.json").is_file():
        print(f"{folder} is there already.")
        return
    if chosen.scenes:
        options = {"seed": chosen.seed, "n_pictures": chosen.n_pictures, "steps": chosen.steps}
        kept = chosen.root / KEPT / _name(options)
        if not kept.is_dir():
            make_scene_generator(kept, **options)
        with new_folder(folder) as written:
            shutil.copytree(kept, written, dirs_exist_ok=True)
    else:
        make_generator(folder, chosen.seed)
    print(f"Wrote {folder}.")


if __name__ == "__main__":
    run(main)
