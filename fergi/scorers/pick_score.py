"""PickScore: the scaled cosine of a CLIP ViT-H/14 that was trained further on people's choices."""

from collections.abc import Sequence

from torch import Tensor

from fergi.scorers.clip import PIXELS, TOKENS, Clip, transformer
from fergi.weights import PICK_SCORE

VIT_H_14 = {
    "projection_dim": 1024,
    "vision_config": transformer(1280, 32, 16, "gelu") | PIXELS,
    "text_config": transformer(1024, 24, 16, "gelu") | TOKENS,
}


class PickScore(Clip):
    """exp(logit scale) · cosine; about 20 for images and their prompts."""

    name = "PickScore"
    files = (PICK_SCORE,)
    official_layout = VIT_H_14
    method = f"exp(logit_scale) * {Clip.method}"
    trained_layers = ("",)

    def logits(self, scores: Tensor) -> Tensor:
        """The scores themselves."""
        return scores

    def cosines(self, scores: Tensor) -> Tensor:
        """Without the scale."""
        return scores / self.network.logit_scale.double().exp()

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Scaled cosines."""
        return self.network.logit_scale.double().exp() * super().compute(prompts, pixels)
