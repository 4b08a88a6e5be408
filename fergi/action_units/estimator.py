"""AU intensities of aligned faces."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from fergi.action_units.network import SIDE, intensities, load_network, network_input
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, sha256

BATCH_SIZES = {"cpu": 8, "cuda": 128}  # 8 was the fastest of 1, 8, 16 and 32 on two cores
PRECISIONS = ("float32", "tf32", "bfloat16")


class AUEstimator:
    """The AU network on a device, in batches of one size. Several threads may use it at the same time.

    Attributes
    ----------
    device : torch.device
        Where it computes.
    batch_size : int
        Faces in every batch.
    """

    def __init__(self, checkpoint: Path, network: str, device: torch.device | str, precision: str = "float32"):
        """Load the weights strictly.

        Parameters
        ----------
        checkpoint : Path
            The trained weights.
        network : str
            Their layout, one of ``NETWORKS``.
        device : torch.device or str
            The CPU or a CUDA device.
        precision : str
            float32; or tf32 (CUDA only) or bfloat16, which are faster where the hardware has them and less exact.

        Raises
        ------
        FergiError
            If the file is missing, damaged, or of another layout, or the device lacks the precision or the memory.
        """
        self.device = torch.device(device)
        if precision == "tf32" and self.device.type != "cuda":
            raise FergiError(f"There is no tf32 on {device}. Choose --precision float32 or bfloat16.")
        self.batch_size = BATCH_SIZES[self.device.type]
        self._checkpoint, self._layout, self._precision = checkpoint, network, precision
        loaded = load_network(checkpoint, network)
        with self._enough_memory():
            self._network = loaded.to(self.device, memory_format=torch.channels_last)

    @property
    def settings(self) -> dict[str, str]:
        """What outputs depend on, for ``keep_settings``."""
        return {
            "network": self._layout,
            "checkpoint_sha256": sha256(self._checkpoint),
            "precision": self._precision,
            "device": self.device.type,
        }

    def estimate(self, faces: np.ndarray) -> np.ndarray:
        """Intensities (n, 12) of at most one batch of aligned RGB faces (n, 112, 112, 3), uint8.

        The batch is filled up with black, because the last bits of an output depend on the size of the batch, though
        not on a face's place in it.

        Raises
        ------
        FergiError
            If the device has too little memory.
        """
        batch = np.zeros((self.batch_size, SIDE, SIDE, 3), np.uint8)
        batch[: len(faces)] = faces
        if self.device.type == "cuda":  # where PyTorch's own float32 is tf32 in convolutions
            exact = "tf32" if self._precision == "tf32" else "ieee"
            torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = exact
        reduced = torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bfloat16")
        with self._enough_memory(), torch.inference_mode(), reduced:
            outputs = self._network(network_input(torch.from_numpy(batch).to(self.device)))
            return intensities(outputs.float(), ACTION_UNITS)[: len(faces)].cpu().numpy()

    @contextlib.contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise FergiError(
                f"{self.device} has too little memory for the AU network and batches of {self.batch_size} faces. "
                "Free some of it, or choose another --device; finished clips stay."
            ) from error
