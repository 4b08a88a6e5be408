"""A Stable Diffusion pipeline of 0.8 MB with random weights, complete with tokenizer and safety checker."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 32


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Of single bytes."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printed] + [chr(256 + n) for n in range(256 - len(printed))]
    names = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(folder / "vocab.json", folder / "merges.txt", model_max_length=77)


def save_small_generator(folder: Path, *, black: bool = False) -> Path:
    """Write the pipeline; its safety checker flags every picture if ``black``, and none if not."""
    torch.manual_seed(5)
    tokenizer = _tokenizer(folder.with_name(f"{folder.name}_vocabulary"))
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": WIDTH, "intermediate_size": 37}
    text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=77, projection_dim=WIDTH, **layers)
    vision = {"image_size": 32, "patch_size": 8, "projection_dim": WIDTH, **layers}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision, projection_dim=WIDTH)
    )
    checker.concept_embeds_weights.fill_(-2 if black else 2)
    checker.special_care_embeds_weights.fill_(2)
    blocks = {"block_out_channels": (32, 64), "layers_per_block": 1}
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            **blocks,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH,
            **blocks,
        ),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    ).save_pretrained(folder)
    return folder
