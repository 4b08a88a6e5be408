"""Drawn faces with what is known of them, and the small networks that read AUs and moods in pictures of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fergi.features import ACTION_UNITS
from synthetic.portraits import MOODS, portraits

PEOPLE, N_PICTURES = range(3), 800  # of the generator; pictures of each
JUDGE_PEOPLE, JUDGE_PICTURES = range(100, 160), 60
UNKNOWN, UNKNOWN_PICTURES = range(200, 220), 15  # people whom nothing is trained on
UNITS = [f"AU{unit}" for unit in ACTION_UNITS]
Row = dict[str, Any]


def row(part: str, how: str, what: str, value: float, **more: float) -> Row:
    """One number of the results."""
    return {"part": part, "how": how, "what": what, "value": float(value)} | more


@dataclass(frozen=True)
class Drawn:
    """Drawn faces: pixels (uint8, n × 3 × 64 × 64), intensities (n × 12), places of moods, captions."""

    pixels: Tensor
    intensities: Tensor
    moods: Tensor
    captions: list[str]

    @classmethod
    def of(cls, people: Sequence[int], n: int, seed: int) -> "Drawn":
        """So many pictures of each person."""
        drawn = list(portraits(people, n, seed))
        pixels = torch.from_numpy(np.stack([each.picture for each in drawn])).permute(0, 3, 1, 2)
        intensities = torch.tensor(np.stack([each.intensities for each in drawn]), dtype=torch.float32)
        moods = torch.tensor([list(MOODS).index(each.mood) for each in drawn])
        return cls(pixels, intensities, moods, [each.caption for each in drawn])


class Reader(nn.Module):
    """A small network that reads intensities (n, 12) and logits of moods (n, 4) in pictures, −1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 24, 48, 96, 96), []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 5, 2, 2), nn.BatchNorm2d(after), nn.ReLU()]
        ends = nn.Linear(96 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, len(ACTION_UNITS) + len(MOODS))
        self.layers = nn.Sequential(*layers, nn.Flatten(), *ends)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        intensities, moods = self.layers(pixels).split([len(ACTION_UNITS), len(MOODS)], dim=1)
        return 5 * intensities, moods

    @torch.no_grad()
    def read(self, pictures: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Intensities and moods (places) of uint8 pictures, channels last or first."""
        pixels = torch.as_tensor(pictures)
        pixels = pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2)
        found = [self(part / 127.5 - 1) for part in pixels.split(256)]
        intensities, moods = (torch.cat(part) for part in zip(*found, strict=True))
        return intensities.numpy(), moods.argmax(dim=1).numpy()


def trained_reader(drawn: Drawn, seed: int, epochs: int = 8, batch: int = 64, rate: float = 3e-3) -> Reader:
    """Squared error of the intensities and cross-entropy of the moods; pictures are shifted, tinted and noised."""
    torch.manual_seed(seed)
    reader, n = Reader(), len(drawn.pixels)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * (n // batch))
    for _ in range(epochs):
        for rows in torch.randperm(n)[: n // batch * batch].split(batch):
            pixels = functional.pad(drawn.pixels[rows] / 127.5 - 1, (2, 2, 2, 2), mode="replicate")
            down, right = torch.randint(5, (2,)).tolist()
            pixels = pixels[..., down : down + 64, right : right + 64]
            pixels = pixels * (1 + 0.1 * torch.randn(batch, 1, 1, 1)) + 0.1 * torch.randn(batch, 3, 1, 1)
            intensities, moods = reader(pixels + 0.05 * torch.randn_like(pixels))
            loss = 0.4 * functional.mse_loss(intensities, drawn.intensities[rows])
            loss = loss + functional.cross_entropy(moods, drawn.moods[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return reader.eval().requires_grad_(False)


def make_readers(root: Path) -> list[Row]:
    """Write judge and guide; the rows say how well they read drawn expressions that they do not know."""
    unseen = {"the generator's people": Drawn.of(PEOPLE, 100, 12), "others": Drawn.of(UNKNOWN, UNKNOWN_PICTURES, 13)}
    rows = []
    for name, people, n, seed in (("judge", JUDGE_PEOPLE, JUDGE_PICTURES, 10), ("guide", PEOPLE, N_PICTURES, 11)):
        trained = trained_reader(Drawn.of(people, n, seed), seed)
        torch.save(trained.state_dict(), root / f"{name}.pth")
        for whose, drawn in unseen.items():
            read, moods = trained.read(drawn.pixels)
            how = f"{name}, {whose}"
            rows.append(row("readers", how, "mood right", (moods == drawn.moods.numpy()).mean()))
            found = zip(UNITS, correlations(drawn.intensities.numpy(), read), strict=True)
            rows += [row("readers", how, name, r) for name, r in found]
    return rows


def reader(root: Path, name: str) -> Reader:
    """One that ``make_readers`` wrote."""
    network = Reader()
    network.load_state_dict(torch.load(root / f"{name}.pth", weights_only=True))
    return network.eval().requires_grad_(False)


def correlations(asked: np.ndarray, read: np.ndarray) -> np.ndarray:
    """Pearson's r of each AU, shape (12,)."""
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(asked.T, read.T, strict=True)])
