"""CLIP score: the cosine of the prompt's and the image's embedding by CLIP ViT-L/14."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from fergi.scorers.interface import Scorer, load_network, normalised, offline_import, once_each
from fergi.scorers.pixels import cropped_by_transformers
from fergi.scorers.text import clip_tokens
from fergi.weights import CLIP_L

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


class Clip(Scorer):
    """Cosine, not scaled; −1 to 1. The network is transformers'."""

    name = "CLIP"
    files = (CLIP_L,)
    packages = ("transformers", "open_clip_torch")
    official_layout = VIT_L_14
    method = "cosine; picture: shorter side to 224 pixels, bicubic, centre; text: 77 tokens"

    def load(self, root: Path, layout: dict[str, Any]) -> None:
        """Both encoders; the layout has the arguments of transformers' ``CLIPConfig``."""
        with offline_import():
            from transformers import CLIPConfig, CLIPModel
        dimension = {"projection_dim": layout["projection_dim"]}
        encoders = {part: layout[part] | dimension for part in ("text_config", "vision_config")}
        network = CLIPModel(CLIPConfig(**encoders, **dimension))
        self.network = load_network(network, self.files[0], root, self.device)
        self.side = layout["vision_config"]["image_size"]
        self.length = layout["text_config"]["max_position_embeddings"]

    def pixels(self, picture: Image.Image) -> Tensor:
        """The centre, cut as transformers does."""
        return cropped_by_transformers(picture, self.side)

    def embed_texts(self, tokens: Tensor) -> Tensor:
        """Embeddings, shape (n, dimension)."""
        return self.network.get_text_features(input_ids=tokens)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embeddings, shape (n, dimension)."""
        return self.network.get_image_features(pixel_values=pixels)

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Cosines."""
        different, places = once_each(prompts)
        texts = normalised(self.embed_texts(clip_tokens(different, self.length).to(self.device)))
        return (texts[places] * normalised(self.embed_images(pixels))).sum(dim=-1)
