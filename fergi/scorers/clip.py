"""CLIP score: the cosine of the prompt's and the image's embedding by CLIP ViT-L/14."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fergi.scorers.interface import Scorer, load_network, normalised, offline_import, once_each
from fergi.scorers.pixels import cropped_by_transformers
from fergi.scorers.text import clip_tokens
from fergi.weights import CLIP_L, WeightFile

TOKENS = {"vocab_size": 49408, "max_position_embeddings": 77}
PIXELS = {"patch_size": 14, "image_size": 224}


def transformer(width: int, layers: int, heads: int, activation: str) -> dict[str, Any]:
    """Sizes of one of CLIP's two encoders, under transformers' names."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": activation,
    }


VIT_L_14 = {
    "projection_dim": 768,
    "vision_config": transformer(1024, 24, 16, "quick_gelu") | PIXELS,
    "text_config": transformer(768, 12, 12, "quick_gelu") | TOKENS,
}


class ClipNetwork:
    """A CLIP in the layout of transformers: embeddings of prompts and pictures.

    Its weights are ``file`` below ``root``; ``layout`` has its sizes as arguments of transformers' ``CLIPConfig``.
    """

    def __init__(self, file: WeightFile, root: Path, device: torch.device, layout: dict[str, Any]) -> None:
        with offline_import():
            from transformers import CLIPConfig, CLIPModel
        dimension = layout["projection_dim"]
        config = CLIPConfig(
            text_config=layout["text_config"] | {"projection_dim": dimension},
            vision_config=layout["vision_config"] | {"projection_dim": dimension},
            projection_dim=dimension,
        )
        self.network = load_network(CLIPModel(config), file, root, device)
        self.side = config.vision_config.image_size
        self.length = config.text_config.max_position_embeddings
        self.device = device

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings of length 1, shape (n, dimension)."""
        different, places = once_each(prompts)
        tokens = clip_tokens(different, self.length).to(self.device)
        return normalised(self.network.get_text_features(input_ids=tokens))[places]

    def images(self, pixels: Tensor) -> Tensor:
        """Embeddings of length 1, shape (n, dimension)."""
        return normalised(self.network.get_image_features(pixel_values=pixels))


class Clip(Scorer):
    """Cosine, not scaled; −1 to 1."""

    name = "CLIP"
    files = (CLIP_L,)
    packages = ("transformers", "open_clip_torch")
    official_layout = VIT_L_14
    method = "cosine; picture: shorter side to 224 pixels, bicubic, centre; text: 77 tokens"

    def load(self, root: Path, layout: dict[str, Any]) -> None:
        """Both encoders."""
        self.clip = ClipNetwork(self.files[0], root, self.device, layout)

    def pixels(self, picture: Image.Image) -> Tensor:
        """The centre, cut as transformers does."""
        return cropped_by_transformers(picture, self.clip.side)

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Cosines."""
        return (self.clip.texts(prompts) * self.clip.images(pixels)).sum(dim=-1)
