"""What every scorer has in common, and how its weights are loaded.

A scorer names its weight files, prepares a picture, and computes scores of prompts and prepared pictures. It is always
loaded whole: entries that are missing, unknown, misshapen or not finite stop it.
"""

import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fergi.files import FergiError, sha256
from fergi.pictures import open_picture
from fergi.weights import WeightFile, load_strictly

POSITIONS = "position_ids"
# Scores that differ by less are the same: float32 has seven digits, and a network's sums lose one of them. For trained
# scorers, white and noise differ thousands of times more.
SAME = 1e-6


class Scorer(ABC):
    """Scores of images under their prompts."""

    name: ClassVar[str]  # what ``--scorers`` calls it
    files: ClassVar[tuple[WeightFile, ...]]  # everything that it loads
    packages: ClassVar[tuple[str, ...]]  # libraries that its network comes from
    official_layout: ClassVar[dict[str, Any]] = {}  # sizes of its network, if it comes in several
    method: ClassVar[str]  # how score, picture and text are computed
    # What can be tuned further, as names of modules and parameters of ``network`` (see ``fergi.scorers.adapters``):
    # the ends of names of modules for LoRA, the projections or head that make the score, and what its authors trained:
    # a name, or a list of blocks with how many of them, from the last one; "" is everything.
    lora_targets: ClassVar[tuple[str, ...]] = ()
    projections: ClassVar[tuple[str, ...]] = ()
    trained_layers: ClassVar[tuple[str | tuple[str, int], ...]] = ()
    starts_from: ClassVar[
        tuple[WeightFile, ...]
    ] = ()  # in place of ``files`` when it is tuned, if nobody published them

    device: torch.device
    network: nn.Module

    def __init__(self, root: Path, device: torch.device, layout: dict[str, Any] | None = None) -> None:
        """Load every file below ``root``, and ask the scorer about two pictures.

        ``layout`` gives the sizes of the network under the names of ``official_layout``, which is the default.

        Raises
        ------
        FergiError
            If a file is missing or does not fit, the layout is impossible, or two different pictures get the same
            score.
        """
        self.device = device
        try:
            self.load(root, self.official_layout if layout is None else layout)
            self._tells_pictures_apart()
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if layout is None:
                raise
            reason = " ".join(str(error).split())
            raise FergiError(f"{self.name} cannot be made with the layout that was given: {reason}.") from error

    @abstractmethod
    def load(self, root: Path, layout: dict[str, Any]) -> None:
        """Make the network of that layout, with the weights below ``root``, on the device."""

    def _tells_pictures_apart(self) -> None:
        white = Image.new("RGB", (224, 224), "white")
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8))
        scores = self.score(["a picture", "a picture"], [white, noise])
        if np.isclose(*scores, rtol=SAME, atol=SAME):
            raise FergiError(
                f"{self.name} gives a white picture and random pixels the same score, {scores[0]:.6g}: the weights in "
                f"{', '.join(file.path for file in self.files)} were never trained or are damaged. Fetch them again."
            )

    @abstractmethod
    def pixels(self, picture: Image.Image) -> Tensor:
        """An RGB picture as the network takes it, shape (3, side, side), on the CPU."""

    @abstractmethod
    def compute(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Scores, shape (n,), of n prompts and pixels of shape (n, 3, side, side), on the device."""

    def logits(self, scores: Tensor) -> Tensor:
        """Scores on the scale on which its authors' loss compares them: σ of a difference is a probability."""
        return scores

    def cosines(self, scores: Tensor) -> Tensor:
        """The cosines of the embeddings of text and image, from the scores.

        Raises
        ------
        FergiError
            If the scores are not made from cosines.
        """
        raise FergiError(f"{self.name} has no embeddings to compare. Choose --loss logistic.")

    def score(self, prompts: Sequence[str], images: Sequence[Path | Image.Image]) -> np.ndarray:
        """Scores of images, each under the prompt at its place.

        Parameters
        ----------
        prompts : sequence of str
            Any text; what is longer than the network takes is cut off.
        images : sequence of Path or PIL.Image.Image
            As many.

        Returns
        -------
        ndarray of float, shape (n,)

        Raises
        ------
        ValueError
            If the numbers differ, or a picture cannot be used.
        FergiError
            If a score is not a finite number.
        """
        return self.score_pixels(prompts, [self.pixels(open_picture(image)) for image in images])

    def score_pixels(self, prompts: Sequence[str], pixels: Sequence[Tensor]) -> np.ndarray:
        """Scores of pictures that ``pixels`` has prepared."""
        if len(prompts) != len(pixels):
            raise ValueError(f"{len(prompts)} prompts for {len(pixels)} images")
        if not prompts:
            return np.empty(0)
        with torch.inference_mode():
            scores = self.compute(list(prompts), torch.stack(list(pixels)).to(self.device)).double().cpu().numpy()
        if scores.shape != (len(prompts),) or not np.isfinite(scores).all():
            broken = prompts[int(np.argmin(np.isfinite(scores)))]
            raise FergiError(
                f"{self.name} gives no finite number for the prompt {broken[:60]!r}. Its weights do not fit this use."
            )
        return scores

    @classmethod
    def settings(cls, root: Path, device: torch.device, layout: dict[str, Any] | None = None) -> dict[str, str]:
        """Settings of its scores: SHA-256 of every file, library versions, method, sizes, device."""
        return {
            "scorer": cls.name,
            **{file.path: sha256(file.under(root)) for file in cls.files},
            **{package: version(package) for package in ("torch", "torchvision", "pillow", *cls.packages)},
            "method": cls.method,
            "layout": "official" if layout is None else json.dumps(layout, sort_keys=True),
            "precision": "float32",
            "device": device.type,
        }


def load_network(
    network: nn.Module,
    file: WeightFile,
    root: Path,
    device: torch.device,
    *,
    unused: Sequence[str] = (),
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> nn.Module:
    """Load a file's weights into a new network, all of them or nothing; gives it in evaluation mode on the device.

    Lists of positions (0, 1, 2, …), which some versions of the libraries store, may be there or not. ``unused`` has
    beginnings of names in the file of parts that the score does not need, which the network does not have.
    ``convert`` brings the file's entries into the network's layout first.

    Raises
    ------
    FergiError
        Naming the first entry that does not fit.
    """
    own, state, source = network.state_dict(), file.read(root), file.under(root)
    if convert is not None:
        state = convert(state)
    if any(name.startswith(tuple(unused)) for name in own):
        raise ValueError(f"{type(network).__name__} has entries among those that are not used: {', '.join(unused)}")
    for name in [name for name in state if name.endswith(POSITIONS)]:
        value = state.pop(name)
        if not torch.equal(value.flatten().long(), torch.arange(value.numel())):
            raise FergiError(f"{source} does not fit: its entry {name} does not count 0, 1, 2, …")
    ignored = [name for name in own if name.endswith(POSITIONS)]
    ignored += [start for start in unused if any(name.startswith(start) for name in state)]
    load_strictly(network, state, source=source, except_for=ignored)
    return network.eval().requires_grad_(False).to(device)


def normalised(embeddings: Tensor) -> Tensor:
    """Rows of length 1, in double precision so that what follows adds no rounding."""
    embeddings = embeddings.double()
    return embeddings / embeddings.norm(dim=-1, keepdim=True)


def once_each(prompts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different prompts, and which of them each prompt is: the images of one session share one."""
    different = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    return list(different), [different[prompt] for prompt in prompts]


@contextmanager
def offline_import() -> Iterator[None]:
    """Import libraries with access to model hubs and telemetry switched off; their warning filters are undone."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
