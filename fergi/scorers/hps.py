"""HPS v2 and v2.1: the cosine of a CLIP ViT-H/14 that was trained further on people's rankings.

The network is open_clip's, and pictures are padded, not cropped, as in the hpsv2 package.
"""

from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from fergi.scorers.clip import Clip
from fergi.scorers.interface import load_network, offline_import
from fergi.scorers.pixels import padded
from fergi.weights import HPS_V2, HPS_V2_1

# As open_clip's ViT-H-14 has it.
VIT_H_14 = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
}


class HpsV2(Clip):
    """Cosine, not scaled; about 0.27 for images and their prompts."""

    name = "HPSv2"
    files = (HPS_V2,)
    packages = ("open_clip_torch",)
    official_layout = VIT_H_14
    method = "cosine; picture: longer side to 224 pixels, bicubic, antialiased, padded with zeros; text: 77 tokens"
    lora_targets = ("attn", "c_fc", "c_proj")  # not out_proj: open_clip's attention reads that weight past an adapter
    projections = ("visual.proj", "text_projection")
    trained_layers = (
        ("visual.transformer.resblocks", 19),
        ("transformer.resblocks", 11),
        *("visual.ln_post", "visual.proj", "ln_final", "text_projection", "logit_scale"),
    )

    def load(self, root: Path, layout: dict[str, Any]) -> None:
        """Both encoders."""
        with offline_import():
            import open_clip
        self.network = load_network(open_clip.CLIP(**layout), self.files[0], root, self.device)
        self.side = layout["vision_cfg"]["image_size"]
        self.length = layout["text_cfg"]["context_length"]

    def pixels(self, picture: Image.Image) -> Tensor:
        """The whole picture."""
        return padded(picture, self.side)

    def embed_texts(self, tokens: Tensor) -> Tensor:
        """Embeddings, shape (n, dimension)."""
        return self.network.encode_text(tokens)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embeddings, shape (n, dimension)."""
        return self.network.encode_image(pixels)


class HpsV21(HpsV2):
    """The same with the weights of version 2.1, which the paper does not use."""

    name = "HPSv2.1"
    files = (HPS_V2_1,)
