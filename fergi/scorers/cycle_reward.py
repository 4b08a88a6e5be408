"""CycleReward: a reward from cycle consistency, without people's judgements, on BLIP's networks (ICCV 2025).

The variant Combo, trained on both directions, text to image and back. Its own loader ignores entries that do not fit;
here all of them must.
"""

from typing import Any

from torch import Tensor, nn

from fergi.scorers.blip import BlipEncoders
from fergi.scorers.image_reward import Reward
from fergi.weights import BERT_VOCABULARY, CYCLE_REWARD


class GeluHead(nn.Module):
    """Five linear layers with GELU between them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(size, 1024), nn.GELU(), nn.Linear(1024, 128), nn.GELU(), nn.Linear(128, 64), nn.GELU()),
            *(nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, size) → (n, 1)."""
        return self.layers(x)


class CycleRewardNetwork(nn.Module):
    """The encoders of BLIP and the head."""

    head = GeluHead

    def __init__(self, layout: dict[str, Any]) -> None:
        super().__init__()
        self.blip = BlipEncoders(layout)
        self.mlp = self.head(layout["text"]["hidden_size"])


class CycleReward(Reward):
    """The head's output as it is: higher fits better."""

    name = "CycleReward"
    files = (CYCLE_REWARD, BERT_VOCABULARY)
    method = "head with GELU; picture: shorter side to 224 pixels, bicubic, centre; text: 128 tokens"
    network_class = CycleRewardNetwork
    n_tokens = 128
