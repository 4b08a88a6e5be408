"""PickScore: the scaled cosine of a CLIP ViT-H/14 that was trained further on people's choices."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from fergi.scorers.clip import Clip
from fergi.weights import PICK_SCORE

VIT_H_14 = {
    "projection_dim": 1024,
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 224,
        "hidden_act": "gelu",
    },
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
    },
}


class PickScore(Clip):
    """exp(logit scale) · cosine; about 20 for images and their prompts."""

    name = "PickScore"
    files = (PICK_SCORE,)
    method: ClassVar = Clip.method | {"score": "exp(logit_scale) * cosine"}

    @classmethod
    def official_layout(cls) -> dict[str, Any]:
        """ViT-H/14."""
        return VIT_H_14

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Scaled cosines."""
        return self.clip.network.logit_scale.double().exp() * super().compute(prompts, pixels)
