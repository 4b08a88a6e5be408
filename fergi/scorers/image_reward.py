"""ImageReward: a head on BLIP's text encoder, which looks at the image while it reads the prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fergi.scorers.aesthetic import LinearHead
from fergi.scorers.blip import BlipEncoders, BlipScorer
from fergi.scorers.interface import once_each
from fergi.weights import BERT_VOCABULARY, IMAGE_REWARD

# By which the head's output is standardised, as published with the weights.
MEAN = 0.16717362830052426
SPREAD = 1.0333394966054072


class ImageRewardNetwork(nn.Module):
    """The encoders of BLIP and the head."""

    def __init__(self, layout: dict[str, Any]) -> None:
        super().__init__()
        self.blip = BlipEncoders(layout)
        self.mlp = LinearHead(layout["text"]["hidden_size"])


class Reward(BlipScorer):
    """A head on what the text encoder makes of the prompt while it looks at the image."""

    lora_targets = (
        *BlipScorer.lora_targets,
        *("crossattention.self.query", "crossattention.self.key", "crossattention.self.value"),
    )
    projections = ("mlp",)
    # ImageReward's and CycleReward's authors fixed the first 70 % of both encoders.
    trained_layers = (
        ("blip.visual_encoder.blocks", 8),
        ("blip.text_encoder.encoder.layer", 4),
        *("blip.visual_encoder.norm", "mlp"),
    )
    unused = ("blip.vision_proj.", "blip.text_proj.")

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """The head's output."""
        different, places = once_each(prompts)
        tokens, counts = (each[places] for each in self.tokens(different))
        seen = self.network.blip.visual_encoder(pixels)
        read = self.network.blip.text_encoder(
            tokens,
            attention_mask=counts,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=self.device),
            return_dict=True,
        )
        return self.network.mlp(read.last_hidden_state[:, 0])[:, 0]


class ImageReward(Reward):
    """Mean 0 and standard deviation 1 on the data that it was trained with."""

    name = "ImageReward"
    files = (IMAGE_REWARD, BERT_VOCABULARY)
    method = f"(head - {MEAN}) / {SPREAD}; picture: shorter side to 224 pixels, bicubic, centre; text: 35 tokens"
    network_class = ImageRewardNetwork

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Standardised rewards."""
        return (super().compute(prompts, pixels) - MEAN) / SPREAD

    def logits(self, scores: Tensor) -> Tensor:
        """The head's output."""
        return SPREAD * scores + MEAN
