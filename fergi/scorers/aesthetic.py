"""Aesthetic score: LAION's improved predictor, linear layers on the image's embedding by CLIP ViT-L/14."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from fergi.scorers.clip import Clip
from fergi.scorers.interface import load_network, normalised
from fergi.scorers.pixels import cropped_by_torchvision
from fergi.weights import AESTHETIC_HEAD, CLIP_L


class LinearHead(nn.Module):
    """Five linear layers in a row, with dropout between the first four and no activation functions.

    ImageReward's head has the same form.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, size) → (n, 1)."""
        return self.layers(x)


class Aesthetic(Clip):
    """About 1 to 10; the prompt plays no part."""

    name = "Aesthetic"
    files = (CLIP_L, AESTHETIC_HEAD)
    packages = ("transformers",)
    method = "five linear layers on the embedding; picture: shorter side to 224 pixels, bicubic, centre; no text"
    lora_targets = projections = trained_layers = ()  # pairs under a prompt have nothing to tell it

    def load(self, root: Path, layout: dict[str, Any]) -> None:
        """The head and CLIP's encoders."""
        self.head = load_network(LinearHead(layout["projection_dim"]), AESTHETIC_HEAD, root, self.device)
        super().load(root, layout)

    def pixels(self, picture: Image.Image) -> Tensor:
        """The centre, cut as torchvision does."""
        return cropped_by_torchvision(picture, self.side)

    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """The head's output."""
        return self.head(normalised(self.embed_images(pixels)).float())[:, 0]
