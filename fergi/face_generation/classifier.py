"""An image classifier of transformers as a guide, such as one of facial expressions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.transforms.functional import center_crop, normalize

from fergi.files import FergiError, sha256, summarise

ADVICE = "Name an image classifier of transformers, a folder or a model of the hub."
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
SHOWN = 20  # classes in an error
SAME_LEVELS = 2.5  # of 255: transformers rounds to whole grey levels after each step, and no gradient goes through that


@dataclass(frozen=True)
class ExpressionGuide:
    """−log of the probability that a classifier gives to the class that each picture should have."""

    classifier: "ImageClassifier"
    classes: Tensor

    def loss(self, pixels: Tensor) -> Tensor:
        """See ``guidance.Guide``."""
        return cross_entropy(self.classifier(pixels), self.classes, reduction="none")


class ImageClassifier:
    """An image classifier that gradients go through.

    Attributes
    ----------
    classes : dict
        Name of a class, in lower case → its number.
    settings : dict
        Its name, and the SHA-256 of its weights.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """Load it from a folder or the model hub, each weight in its place.

        Raises
        ------
        FergiError
            If it is not there or is none, weights do not fit, or it wants pictures in a form that is not known here.
        """
        self.name, self.device = name, device
        network, self._processor, files = _load(name)
        self.network: nn.Module = network.to(device).requires_grad_(False).eval()
        self._options: dict[str, Any] = self._processor.to_dict()
        self.classes = {label.lower(): int(number) for number, label in network.config.id2label.items()}
        self.settings = {"guidance": name, "guidance_sha256": " ".join(map(sha256, files))}
        self._check_preparation()

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits, shape (n, classes); ``pixels``: shape (n, 3, height, width), −1 to 1."""
        return self.network(self._prepared(pixels)).logits

    def guide(self, expressions: Sequence[str]) -> ExpressionGuide:
        """The guide towards these expressions, one a picture; ``check`` has been asked about them."""
        numbers = [self.classes[expression.lower()] for expression in expressions]
        return ExpressionGuide(self, torch.tensor(numbers, device=self.device))

    def check(self, expressions: Sequence[str]) -> None:
        """Stop unless there is a class for each of these; FergiError names those that there are."""
        wanted = list(dict.fromkeys(expressions))
        unknown = [repr(each) if each else "none given" for each in wanted if each.lower() not in self.classes]
        if unknown:
            known = [*list(self.classes)[:SHOWN], *(["..."] if len(self.classes) > SHOWN else [])]
            advice = f"It knows {', '.join(known)}."
            raise summarise(unknown, len(wanted), "expressions", advice, f"are not known to {self.name}")

    def _prepared(self, pixels: Tensor) -> Tensor:
        """What the network sees of pictures."""
        options, levels = self._options, (pixels / 2 + 0.5).clamp(0, 1)
        if options.get("do_resize"):
            mode = {2: "bilinear", 3: "bicubic"}[int(options["resample"])]
            levels = interpolate(levels, _sides(options["size"]), mode=mode, antialias=True).clamp(0, 1)
        if options.get("do_center_crop"):
            levels = center_crop(levels, _sides(options["crop_size"]))
        if options.get("do_normalize"):
            levels = normalize(levels, options["image_mean"], options["image_std"])
        return levels

    def _check_preparation(self) -> None:
        """Compare ``_prepared`` with what transformers makes of a picture, and show it to the network."""
        random = np.random.default_rng(0)
        picture = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((112, 112))
        pixels = torch.from_numpy(np.asarray(picture) / 127.5 - 1).float().permute(2, 0, 1)[None]
        try:
            ours, theirs = self._prepared(pixels), self._processor(picture, return_tensors="pt")["pixel_values"]
            deviation = torch.tensor(self._options["image_std"] if self._options.get("do_normalize") else [1.0] * 3)
            same = ((ours - theirs).abs().amax(dim=(0, 2, 3)) * deviation * 255 <= SAME_LEVELS).all()
            self.network(theirs.to(self.device))
        except (KeyError, TypeError, ValueError, RuntimeError):  # transformers and PyTorch raise any of these
            same = False
        if not same:
            raise FergiError(
                f"{self.name} prepares pictures in a way that is not known here ({type(self._processor).__name__}). "
                "Name a classifier that resizes, crops the centre and normalises."
            )


def _sides(size: dict[str, int]) -> list[int]:
    """Height and width of a square picture after transformers' resizing."""
    return [size["shortest_edge"]] * 2 if "shortest_edge" in size else [size["height"], size["width"]]


def _load(name: str) -> tuple[Any, Any, list[Path]]:
    """Network, image processor and files of weights."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from transformers import AutoImageProcessor, AutoModelForImageClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        folder = (
            Path(name) if Path(name).is_dir() else Path(snapshot_download(name, allow_patterns=["*.json", *WEIGHTS]))
        )
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, use_fast=False)
        network, found = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FergiError(f"{name} cannot be loaded as an image classifier ({reason}). {ADVICE}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if wrong := sorted(map(str, found.get(what) or ())):
            raise FergiError(
                f"{len(wrong)} {what.replace('_', ' ')} in {folder} (first: {wrong[0]}), so its weights do not fit its "
                "network. Get the model again."
            )
    return network, processor, sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
