"""AU intensities of detected faces: what every estimator gives, and the paper's estimator.

An estimator gets frames with the faces that ``FaceAligner`` found in them. So detection score, pitch ratio and yaw
ratio do not depend on the estimator, and neither does which frames are valid, as long as it estimates every face.
"""

import abc
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from fergi.action_units.network import SIDE, intensities, load_network
from fergi.action_units.runtime import OpenVINONetwork, Runtime, TorchNetwork, converted
from fergi.faces.pipeline import AlignedFace, FaceAligner
from fergi.features import ACTION_UNITS, NO_FACE
from fergi.files import FergiError, require, sha256
from fergi.weights import AU_MODEL

BATCH_SIZES = {"cpu": 8, "cuda": 128}  # 8 was the fastest of 1, 8, 16 and 32 on two cores


class Estimator(abc.ABC):
    """From frames and their faces to intensities of the twelve AUs.

    Attributes
    ----------
    in_workers : bool
        Whether each worker process has its own, which it gets by pickling; else one serves all of them.
    """

    in_workers: bool

    @property
    @abc.abstractmethod
    def settings(self) -> dict[str, str]:
        """What outputs depend on, for ``keep_settings``; ``estimator`` and ``estimator_version`` are always there."""

    @abc.abstractmethod
    def estimate_faces(self, pictures: Sequence[np.ndarray], faces: Sequence[AlignedFace]) -> np.ndarray:
        """Intensities (n, 12), about 0–5, of faces in RGB pictures (height, width, 3), uint8.

        NaN for an AU that the estimator never gives; a row of NaN for a face in which it finds no AU at all.
        """

    def frame_values(self, aligner: FaceAligner, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """What feature files hold of each picture, shape (n, 15): score, ratios, intensities (see ``format_clip``).

        A picture counts as without a face if the detector or the landmarks find none, or the estimator no AU in it.
        """
        values = np.tile(NO_FACE, (len(pictures), 1))
        aligned = aligner.align(pictures)
        which = [index for index, face in enumerate(aligned) if face is not None]
        faces = [aligned[index] for index in which]
        estimates = self.estimate_faces([pictures[index] for index in which], faces)
        for index, face, row in zip(which, faces, estimates, strict=True):
            if not np.isnan(row).all():
                values[index] = face.score, face.pitch_ratio, face.yaw_ratio, *row
        return values


class AUEstimator(Estimator):
    """The paper's AU network on a device, in batches of one size. Several threads may use it at the same time.

    Attributes
    ----------
    device : torch.device
        Where it computes.
    batch_size : int
        Faces in every batch.
    """

    in_workers = False

    def __init__(
        self,
        checkpoint: Path,
        network: str,
        device: torch.device | str,
        precision: str = "float32",
        *,
        runtime: str = "torch",
        threads: int = 1,
        converted_networks: Path | None = None,
    ):
        """Load the weights strictly; ``load`` compiles for OpenVINO.

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
        runtime : str
            torch, or openvino (CPU only).
        threads : int
            How many threads will use OpenVINO at the same time.
        converted_networks : Path, optional
            Where networks that were converted for OpenVINO are kept; by default beside the checkpoint.

        Raises
        ------
        FergiError
            If the file is missing, damaged, or of another layout, or the device lacks the precision, the runtime or
            the memory.
        """
        self.device = torch.device(device)
        if precision == "tf32" and self.device.type != "cuda":
            raise FergiError(f"There is no tf32 on {device}. Choose --precision float32 or bfloat16.")
        if runtime == "openvino" and self.device.type != "cpu":
            raise FergiError(f"OpenVINO computes on the CPU, not on {device}. Choose --runtime torch or --device cpu.")
        require([checkpoint], "weight file", AU_MODEL.advice)
        self.batch_size = BATCH_SIZES[self.device.type]
        self._layout, self._precision, self._name, self._threads = network, precision, runtime, threads
        self._checkpoint_sha256 = sha256(checkpoint)
        self._runtime: Runtime | None = None
        self._loading = threading.Lock()
        if runtime == "torch":
            self._runtime = TorchNetwork(load_network(checkpoint, network), self.device, precision)
        else:
            kept = converted_networks or checkpoint.with_name("converted")
            self._model = converted(checkpoint, network, self.batch_size, kept, self._checkpoint_sha256)

    def load(self) -> Runtime:
        """What computes the network. OpenVINO compiles it in the first call, which takes a second.

        Raises
        ------
        FergiError
            If the converted network is damaged.
        """
        with self._loading:
            if self._runtime is None:
                self._runtime = OpenVINONetwork(self._model, self._precision, self._threads)
            return self._runtime

    @property
    def settings(self) -> dict[str, str]:
        """See ``Estimator``; the version is the checkpoint's SHA-256, which older files have under its own name."""
        return {
            "estimator": "fergi",
            "network": self._layout,
            "checkpoint_sha256": self._checkpoint_sha256,
            "estimator_version": self._checkpoint_sha256,
            "precision": self._precision,
            "device": self.device.type,
            "runtime": f"openvino {version('openvino')}" if self._name == "openvino" else "torch",
        }

    def estimate_faces(self, pictures: Sequence[np.ndarray], faces: Sequence[AlignedFace]) -> np.ndarray:
        """See ``Estimator``; only the aligned faces are used."""
        estimates = np.empty((len(faces), len(ACTION_UNITS)), np.float32)
        for start in range(0, len(faces), self.batch_size):
            batch = slice(start, start + self.batch_size)
            estimates[batch] = self.estimate(np.stack([face.picture for face in faces[batch]]))
        return estimates

    def estimate(self, faces: np.ndarray) -> np.ndarray:
        """Intensities (n, 12) of at most one batch of aligned RGB faces (n, 112, 112, 3), uint8.

        The batch is filled up with black, because the last bits of an output depend on the size of the batch, though
        not on a face's place in it.

        Raises
        ------
        FergiError
            If the device has too little memory, or see ``load``.
        """
        batch = np.zeros((self.batch_size, SIDE, SIDE, 3), np.uint8)
        batch[: len(faces)] = faces
        return intensities(self.load().outputs(batch)[: len(faces)], ACTION_UNITS)
