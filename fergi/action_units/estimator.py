"""AU intensities of aligned faces."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fergi.action_units.network import SIDE, intensities, load_network, network_input
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, sha256

BATCH_SIZES = {"cpu": 8, "cuda": 128}  # 8 was the fastest of 1, 8, 16 and 32 on two cores
PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class EstimatorSettings:
    """Which AU network, and how it is run; small enough to hand to other processes.

    Attributes
    ----------
    checkpoint : Path
        The trained weights.
    network : str
        Their layout.
    device : str
        "cpu", "cuda", "cuda:1" and so on.
    precision : str
        float32; or tf32 (CUDA only) or bfloat16, which are faster where the hardware has them and less exact.
    """

    checkpoint: Path
    network: str
    device: str
    precision: str = "float32"

    @property
    def device_type(self) -> str:
        """One of ``BATCH_SIZES``."""
        return self.device.partition(":")[0]

    @property
    def batch_size(self) -> int:
        """Faces in every batch."""
        return BATCH_SIZES[self.device_type]

    def describe(self) -> dict[str, str]:
        """What a reader of the outputs should know."""
        return {
            "network": self.network,
            "checkpoint_sha256": sha256(self.checkpoint),
            "precision": self.precision,
            "device": self.device_type,
        }


class AUEstimator:
    """The AU network on a device, in batches of one size."""

    def __init__(self, settings: EstimatorSettings):
        """Load the weights strictly.

        Raises
        ------
        FergiError
            If the file is missing, damaged, or of another layout, or the device has not the precision or the memory.
        """
        if settings.precision == "tf32" and settings.device_type != "cuda":
            raise FergiError(f"There is no tf32 on {settings.device}. Choose --precision float32 or bfloat16.")
        network = load_network(settings.checkpoint, settings.network)
        self._device, self._precision = torch.device(settings.device), settings.precision
        self.batch_size = settings.batch_size
        with self._enough_memory():
            self._network = network.to(self._device, memory_format=torch.channels_last)

    def estimate(self, faces: np.ndarray) -> np.ndarray:
        """Intensities (n, 12) of at most one batch of aligned RGB faces (n, 112, 112, 3), uint8.

        Raises
        ------
        FergiError
            If the device has too little memory.
        """
        batch = np.zeros((self.batch_size, SIDE, SIDE, 3), np.uint8)
        batch[: len(faces)] = faces
        if self._device.type == "cuda":  # where PyTorch's own float32 is tf32 in convolutions
            exact = "tf32" if self._precision == "tf32" else "ieee"
            torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = exact
        reduced = torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16")
        with self._enough_memory(), torch.inference_mode(), reduced:
            outputs = self._network(network_input(torch.from_numpy(batch).to(self._device)))
            return intensities(outputs.float(), ACTION_UNITS)[: len(faces)].cpu().numpy()

    @contextlib.contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise FergiError(
                f"{self._device} has too little memory for the AU network and batches of {self.batch_size} faces. "
                "Free some of it, or choose another --device; finished clips stay."
            ) from error
