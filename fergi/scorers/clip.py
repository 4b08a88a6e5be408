"""CLIP score: the cosine of the prompt's and the image's embedding by CLIP ViT-L/14."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor, nn

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


def clip_network(layout: dict[str, Any]) -> nn.Module:
    """Transformers' ``CLIPModel``; the layout has the arguments of its ``CLIPConfig``."""
    with offline_import():
        from transformers import CLIPConfig, CLIPModel
    dimension = {"projection_dim": layout["projection_dim"]}
    encoders = {part: layout[part] | dimension for part in ("text_config", "vision_config")}
    return CLIPModel(CLIPConfig(**encoders, **dimension))


class Clip(Scorer):
    """Cosine, not scaled; −1 to 1. The network is transformers'."""

    name = "CLIP"
    files = (CLIP_L,)
    packages = ("transformers", "open_clip_torch")
    official_layout = VIT_L_14
    method = "cosine; picture: shorter side to 224 pixels, bicubic, centre; text: 77 tokens"
    lora_targets = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    projections = ("visual_projection", "text_projection")
    # As Social Reward, which starts from this network, was trained.
    trained_layers = (
        ("vision_model.encoder.layers", 3),
        ("text_model.encoder.layers", 2),
        *("vision_model.post_layernorm", "text_model.final_layer_norm", "text_projection"),
    )
    convert: ClassVar[Callable[[dict[str, Tensor]], dict[str, Tensor]] | None] = None  # of a file's layout

    def load(self, root: Path, layout: dict[str, Any]) -> None:
        """Both encoders."""
        network = clip_network(layout)
        self.network = load_network(network, self.files[0], root, self.device, convert=type(self).convert)
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

    def logits(self, scores: Tensor) -> Tensor:
        """Scaled cosines, which CLIP and HPS v2 were trained with."""
        return self.network.logit_scale.double().exp() * scores

    def cosines(self, scores: Tensor) -> Tensor:
        """The scores themselves."""
        return scores

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Cosines."""
        different, places = once_each(prompts)
        texts = normalised(self.embed_texts(clip_tokens(different, self.length).to(self.device)))
        return (texts[places] * normalised(self.embed_images(pixels))).sum(dim=-1)
