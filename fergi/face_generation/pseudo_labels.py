"""Pseudo-labels: expression and AU intensities that a small head reads in a frozen UNet (FERAnno of SynFER).

A picture's latents get a little noise, always the same, and go once through the UNet, with an empty text and no AUs
told. What its blocks compute, and where its cross-attentions look for each AU's token, are the features. Only the head
is trained: an encoder for the maps of the blocks and one for the maps of the attention, cross-attention from each to
the other, and one linear layer on all places.

Ours: the paper inverts a picture to timestep 1, here noise of that timestep is added. Its attention is that to the
text, which is empty here, so that the twelve AU tokens say more. Places are not averaged, because faces are cut out
alike: with the mean over places, heads on drawn faces read intensities much worse.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, smooth_l1_loss
from tqdm import tqdm

from fergi.face_generation.generator import FaceGenerator
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, different_settings, read_json, replacing, summarise, write_json
from fergi.finetuning.pairs import Picture
from fergi.finetuning.scorer_training import learning_rate, option
from fergi.weights import load_state, load_strictly, read_weights_file, save_weights

GRID = 8  # largest side of a map, after averaging
NARROW = 8  # numbers of a token that the last layer sees
AT_ONCE = 16  # pictures that the UNet takes
ROWS = 64  # of features that are computed with at once; a row may have half a million numbers
LARGEST_HALF = 65504.0  # number that float16 has
HEAD_FILE, SETTINGS, STATE = "label_head.safetensors", "settings.json", "last_training_state.pth"
SMALLEST_DEVIATION = 1e-3  # of a channel that never changes
STATE_EVERY = 200  # steps
NEAR = 0.5  # of intensity
RETRAIN = "Delete the folder to train a new one."
N_UNITS = len(ACTION_UNITS)

MapShapes = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
"""Channels and side of each map of a row of features: those of the blocks, and those of the attention."""


@dataclass(frozen=True)
class HeadSettings:
    """What a head depends on besides features and labels; the values stand in ``config.LABEL_HEAD``."""

    steps: int = option(1, "of the optimiser")
    batch_size: int = option(1, "pictures of a step")
    rate: float = option(0, "highest learning rate")
    weight_decay: float = option(0, "of AdamW")
    width: int = option(4, "numbers of a token in the head; a multiple of 4")
    seed: int = option(0, "of weights and order")


class FaceFeatures:
    """What the UNet of a generator computes from pictures; the same picture always has the same features.

    Parameters
    ----------
    generator : FaceGenerator
        With its adapter.
    timestep : int
        Of the noise, from 0: 1 is next to none, which leaves the face as it is.
    seed : int
        Of the noise, which is the same for all pictures.

    Attributes
    ----------
    shapes : MapShapes
        Of a row.
    size : int
        Numbers in a row.
    """

    def __init__(self, generator: FaceGenerator, timestep: int, seed: int = 0) -> None:
        self.generator, self.timestep, self.seed = generator, timestep, seed
        if not 0 <= timestep < (n_timesteps := generator.noising.config.num_train_timesteps):
            raise FergiError(f"{generator.name} has timesteps from 0 to {n_timesteps - 1}, and no {timestep}.")
        self._noise = torch.randn(*generator.shape, generator=torch.Generator().manual_seed(seed)).to(generator.device)
        self._text = generator.text([""])
        side = generator.resolution
        blocks, maps = self._maps(torch.zeros(1, 3, side, side))
        self.shapes: MapShapes = tuple(
            tuple((each.shape[1], each.shape[2]) for each in part) for part in (blocks, maps)
        )
        self.size = sum(channels * side**2 for part in self.shapes for channels, side in part)

    @property
    def settings(self) -> dict[str, Any]:
        """What features depend on: the base model, the adapter, the noise, the averaging."""
        generator, adapter = self.generator, hashlib.sha256()
        for name, value in sorted(generator.parameters.items()):
            adapter.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
        return {
            "unet": generator.fingerprint(),
            "adapter": adapter.hexdigest(),
            "resolution": generator.resolution,
            "timestep": self.timestep,
            "noise_seed": self.seed,
            "grid": GRID,
        }

    def __call__(self, pixels: Tensor) -> Tensor:
        """Features of pictures (n, 3, height, width), −1 to 1; float32, shape (n, size)."""
        blocks, maps = self._maps(pixels)
        return torch.cat([each.flatten(1) for each in (*blocks, *maps)], dim=1).cpu()

    def of_pictures(self, pictures: Sequence[Picture], into: np.ndarray | None = None) -> np.ndarray:
        """Features of picture files, float16, shape (n, size), with a bar.

        ``into`` is an array to fill, as of a file: rows that have features already stay as they are.

        Raises
        ------
        FergiError
            If a file is no picture.
        """
        features = np.zeros((len(pictures), self.size), np.float16) if into is None else into
        todo = np.array([row for row in range(len(pictures)) if not features[row].any()], int)
        more = {"desc": "features", "unit": " pictures", "disable": None, "leave": False}
        with tqdm(total=len(pictures), initial=len(pictures) - len(todo), **more) as bar:
            for start in range(0, len(todo), AT_ONCE):
                rows = todo[start : start + AT_ONCE]
                found = self(torch.stack([self._pixels(pictures[row]) for row in rows]))
                features[rows] = found.clamp(-LARGEST_HALF, LARGEST_HALF).half()
                bar.update(len(rows))
        return features

    def _pixels(self, picture: Picture) -> Tensor:
        try:
            return self.generator.prepare(picture.open()) / 127.5 - 1
        except ValueError as error:
            raise FergiError(f"{error}. Make it again, or take its row out of the index.") from error

    @torch.no_grad()
    def _maps(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of the blocks and of the attention, (n, channels, side, side), those of one side joined."""
        generator, n = self.generator, len(pixels)
        latents = generator.encode(pixels.to(generator.device))
        timestep = torch.full((n,), self.timestep, device=generator.device)
        noised = generator.noising.add_noise(latents, self._noise.expand_as(latents), timestep)
        with self._recorded() as (blocks, maps):
            generator.predict(noised, timestep, self._text.expand(n, -1, -1), generator.intensities(n=n))
        return _joined(blocks), _joined(maps)

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Two lists that a pass through the UNet fills: outputs of its blocks, and its attention to the AU tokens."""
        unet, blocks, maps = self.generator.unet, [], []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            blocks.append(output[0] if isinstance(output, tuple) else output)

        def look(attention: nn.Module, given: tuple[Tensor, ...], named: dict[str, Any]) -> None:
            _, (tokens,) = named["encoder_hidden_states"]
            query = attention.head_to_batch_dim(attention.to_q(given[0]))
            key = attention.head_to_batch_dim(attention.processor.to_k_ip[0](tokens))
            seen = attention.get_attention_scores(query, key).unflatten(0, (-1, attention.heads)).mean(dim=1)
            side = round(seen.shape[1] ** 0.5)
            maps.append(seen.transpose(1, 2).unflatten(2, (side, side)))

        each_block = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        handles = [block.register_forward_hook(keep) for block in each_block if block is not None]
        attentions = [module for name, module in unet.named_modules() if name.endswith("attn2")]
        handles += [each.register_forward_pre_hook(look, with_kwargs=True) for each in attentions]
        try:
            yield blocks, maps
        finally:
            for handle in handles:
                handle.remove()


def _joined(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps averaged down to ``GRID``; the channels of those that have the same side are joined."""
    by_side: dict[int, list[Tensor]] = {}
    for each in maps:
        side = min(GRID, each.shape[-1])
        by_side.setdefault(side, []).append(adaptive_avg_pool2d(each.float(), side))
    return [torch.cat(by_side[side], dim=1) for side in sorted(by_side)]


class Encoder(nn.Module):
    """Maps of several sizes as tokens of ``width`` numbers, one for each place of each map."""

    def __init__(self, maps: Sequence[tuple[int, int]], width: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Linear(channels, width) for channels, _ in maps)
        self.places = nn.ParameterList(0.02 * torch.randn(side**2, width) for _, side in maps)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (n, channels, side²) → tokens (n, places, width)."""
        parts = zip(self.enter, self.places, maps, strict=True)
        tokens = torch.cat([enter(each.transpose(1, 2)) + places for enter, places, each in parts], dim=1)
        return tokens + self.layers(tokens)


class LabelHead(nn.Module):
    """From features to AU intensities and logits of expressions.

    Attributes
    ----------
    expressions : tuple of str
        The classes.
    """

    def __init__(self, shapes: MapShapes, expressions: Sequence[str], width: int, seed: int = 0) -> None:
        super().__init__()
        self.shapes, self.expressions = shapes, tuple(expressions)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoders = nn.ModuleList(Encoder(maps, width) for maps in shapes)
            self.across = nn.ModuleList(nn.MultiheadAttention(width, 4, batch_first=True) for _ in shapes)
            self.narrow = nn.Linear(width, NARROW)
            n_places = sum(side**2 for part in shapes for _, side in part)
            self.out = nn.Linear(NARROW * n_places, N_UNITS + len(expressions))
        n_channels = sum(channels for part in shapes for channels, _ in part)
        self.register_buffer("mean", torch.zeros(n_channels))
        self.register_buffer("deviation", torch.ones(n_channels))
        self.register_buffer("learned", torch.ones(N_UNITS, dtype=torch.bool))  # AUs that had labels

    def standardise(self, features: np.ndarray) -> None:
        """Bring each channel to mean 0 and standard deviation 1 over these rows, here and ever after."""
        sums, counts = torch.zeros(2, len(self.mean), dtype=torch.float64), 0
        for start in range(0, len(features), ROWS):
            maps = self._split(torch.from_numpy(np.asarray(features[start : start + ROWS])).double())
            moments = [(each.mean(dim=2).sum(0), each.square().mean(dim=2).sum(0)) for each in maps]
            sums += torch.stack([torch.cat(part) for part in zip(*moments, strict=True)])
            counts += len(features[start : start + ROWS])
        mean, square = sums / counts
        self.mean.copy_(mean)
        self.deviation.copy_((square - mean**2).clamp(min=0).sqrt().clamp(min=SMALLEST_DEVIATION))

    def _split(self, features: Tensor) -> list[Tensor]:
        """Rows as maps (n, channels, side²), those of the blocks first."""
        shapes = [(channels, side**2) for part in self.shapes for channels, side in part]
        parts = features.split([channels * places for channels, places in shapes], dim=1)
        return [each.unflatten(1, shape) for each, shape in zip(parts, shapes, strict=True)]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Intensities (n, 12), not clipped, and logits (n, expressions)."""
        maps = self._split(features.float())
        sizes = [each.shape[1] for each in maps]
        scale = zip(maps, self.mean.split(sizes), self.deviation.split(sizes), strict=True)
        maps = [(each - mean[:, None]) / deviation[:, None] for each, mean, deviation in scale]
        n_blocks = len(self.shapes[0])
        tokens = [
            encoder(part) for encoder, part in zip(self.encoders, (maps[:n_blocks], maps[n_blocks:]), strict=True)
        ]
        seen = []
        for own, other, across in zip(tokens, reversed(tokens), self.across, strict=True):
            seen.append(own + across(own, other, other, need_weights=False)[0])
        found = self.out(self.narrow(torch.cat(seen, dim=1)).flatten(1))
        return found.split([N_UNITS, len(self.expressions)], dim=1)

    @torch.no_grad()
    def estimate(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intensities (n, 12), 0–5, and probabilities of the expressions (n, expressions), float32.

        NaN for AUs of which the head has seen no label.
        """
        device = self.mean.device
        rows = (torch.from_numpy(np.asarray(features[cut : cut + ROWS])) for cut in range(0, len(features), ROWS))
        found = [self(each.to(device)) for each in rows]
        intensities, logits = (torch.cat(part).cpu() for part in zip(*found, strict=True))
        intensities = intensities.clamp(0, 5).masked_fill(~self.learned.cpu(), torch.nan)
        return intensities.numpy(), logits.softmax(dim=1).numpy()


def train_head(
    shapes: MapShapes,
    features: np.ndarray,
    intensities: np.ndarray,
    expressions: Sequence[str],
    settings: HeadSettings,
    *,
    device: torch.device | str = "cpu",
    state: Path | None = None,
) -> LabelHead:
    """A head that learned labels: smooth L1 loss of the intensities, and cross-entropy of the expressions.

    AdamW, with the rate of ``scorer_training.learning_rate``. Order and weights follow from the seed and the step, so
    that a resumed training gives what an uninterrupted one gives.

    Parameters
    ----------
    shapes : MapShapes
        Of the features.
    features : ndarray, shape (n, size)
        Rows of ``FaceFeatures``; may be mapped from a file.
    intensities : ndarray, shape (n, 12)
        0–5, NaN where there is no label.
    expressions : sequence of str
        "" where there is no label. The head's classes are those that there are.
    settings : HeadSettings
        Of the head and its training.
    device : torch.device or str, optional
        Where it is trained and stays.
    state : Path, optional
        A file to save to every ``STATE_EVERY`` steps, and to resume from if it is there.

    Raises
    ------
    FergiError
        If there is not one row of labels a picture, no picture has a label, or the loss is not finite.
    """
    intensities, words = np.asarray(intensities, np.float32), np.asarray(expressions, str)
    rows = _labelled_rows(intensities, words, len(features))
    classes = sorted(set(words.tolist()) - {""})
    numbers = torch.tensor([classes.index(word) if word else -1 for word in words.tolist()])
    head = _new_head(shapes, features, intensities, classes, settings).to(device).train()
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=settings.weight_decay)
    done = 0
    if state and state.exists():
        saved = read_weights_file(state, RETRAIN)
        head.load_state_dict(saved["head"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["steps_done"]
    steps = tqdm(
        range(done, settings.steps), initial=done, total=settings.steps, desc="head", disable=None, leave=False
    )
    for step in steps:
        random = np.random.default_rng([settings.seed, step])
        batch = np.sort(random.choice(rows, min(settings.batch_size, len(rows)), replace=False))
        loss = _loss(head, features[batch], torch.from_numpy(intensities[batch]), numbers[batch])
        if not loss.isfinite():
            raise FergiError(f"The loss is {loss.item()} in step {step + 1}: training has failed. Lower the rate.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings.steps, settings.rate)
        optimizer.step()
        if state and (step + 1) % STATE_EVERY == 0:
            whole = {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "steps_done": step + 1}
            save_weights(whole, state)
    return head.eval()


def _labelled_rows(intensities: np.ndarray, words: np.ndarray, n: int) -> np.ndarray:
    """The rows of n pictures that have a label; FergiError if there are none, or not one row of labels a picture."""
    if intensities.shape != (n, N_UNITS) or words.shape != (n,):
        raise FergiError(
            f"Labels of shape {intensities.shape} and {len(words)} expressions do not fit {n} pictures. "
            f"Give each picture {N_UNITS} intensities and one expression."
        )
    rows = np.flatnonzero(~np.isnan(intensities).all(axis=1) | (words != ""))
    if not len(rows):
        raise FergiError(f"None of the {n} pictures has a label to train on. Name others with --labelled.")
    return rows


def _new_head(
    shapes: MapShapes, features: np.ndarray, intensities: np.ndarray, classes: Sequence[str], settings: HeadSettings
) -> LabelHead:
    """A head that knows how features spread, which AUs have labels, and their means."""
    head, known = LabelHead(shapes, classes, settings.width, settings.seed), ~np.isnan(intensities)
    head.standardise(features)
    with torch.no_grad():
        head.learned.copy_(torch.from_numpy(known.any(axis=0)))
        mean = np.where(known, intensities, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        head.out.bias[:N_UNITS] = torch.from_numpy(mean)
    return head


def _loss(head: LabelHead, features: np.ndarray, intensities: Tensor, numbers: Tensor) -> Tensor:
    """The sum of both losses, each a mean over the labels that there are in the batch.

    Errors of intensities above ``NEAR`` count by their size, not their square: squares let wrong labels pull too hard.
    """
    device = head.mean.device
    found, logits = head(torch.from_numpy(np.asarray(features)).to(device))
    intensities, numbers = intensities.to(device), numbers.to(device)
    known = ~intensities.isnan()
    loss = smooth_l1_loss(found[known], intensities[known], reduction="sum", beta=NEAR) / known.sum().clamp(min=1)
    if (numbers >= 0).any():
        loss = loss + cross_entropy(logits, numbers, ignore_index=-1)
    return loss


def save_head(head: LabelHead, folder: Path, settings: dict[str, Any]) -> None:
    """Write a head and its settings, which hold those of its features and its ``HeadSettings``."""
    from safetensors.torch import save

    content = save({name: value.cpu().contiguous() for name, value in head.state_dict().items()})
    write_json(settings | {"expressions": list(head.expressions)}, folder / SETTINGS)
    with replacing(folder / HEAD_FILE) as file:
        file.write(content)


def load_head(folder: Path, features: FaceFeatures) -> LabelHead:
    """The head in a folder, on the generator's device.

    Raises
    ------
    FergiError
        If it is not whole, or was trained on other features, such as those of another base model or adapter.
    """
    advice = "Train a head with correct_labels.py --labelled."
    for name, (there, now) in (different_settings(features.settings, folder / SETTINGS) or {}).items():
        raise FergiError(
            f"The head in {folder} was trained on other features ({name} was {there!r} and is {now!r} now). Use the "
            "generator that it was trained with, or choose another --head."
        )
    settings = read_json(folder / SETTINGS, advice)
    missing = [name for name in ("expressions", "width") if name not in settings]
    if missing:
        raise summarise(missing, 2, f"settings of a head in {folder / SETTINGS}", advice, "are missing")
    head = LabelHead(features.shapes, settings["expressions"], settings["width"])
    load_strictly(head, load_state(folder / HEAD_FILE, advice=advice), source=folder / HEAD_FILE)
    return head.to(features.generator.device).eval()
