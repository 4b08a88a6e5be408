"""What computes the AU network: PyTorch, the reference, on any device; or OpenVINO on a CPU, which is faster.

Both are equal to float32's last digits. A network that was converted for OpenVINO is kept in a folder of its own,
named after the checkpoint's SHA-256, so that it is converted once.
"""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fergi.action_units.network import SIDE, IResNet, load_network, network_input
from fergi.files import FergiError, check_writable, sha256
from fergi.openvino import compiled, import_openvino

RUNTIMES = ("torch", "openvino")
PRECISIONS = ("float32", "tf32", "bfloat16")
OPENVINO_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
NETWORK_FILE = "network.xml"  # its numbers are in network.bin


class Runtime(Protocol):
    """What computes the network, for batches of one size. Several threads may use it at the same time."""

    def outputs(self, faces: np.ndarray) -> np.ndarray:
        """Outputs (n, 384), float32, of a batch of aligned RGB faces (n, 112, 112, 3), uint8."""


class TorchNetwork:
    """The network in PyTorch, on a device, in one of ``PRECISIONS``."""

    def __init__(self, network: IResNet, device: torch.device, precision: str):
        """Move the network to the device.

        Raises
        ------
        FergiError
            If the device has too little memory.
        """
        self.device, self.precision = device, precision
        with self._enough_memory():
            self.network = network.to(device, memory_format=torch.channels_last)

    def outputs(self, faces: np.ndarray) -> np.ndarray:
        """See ``Runtime``.

        Raises
        ------
        FergiError
            If the device has too little memory.
        """
        if self.device.type == "cuda":  # where PyTorch's own float32 is tf32 in convolutions
            exact = "tf32" if self.precision == "tf32" else "ieee"
            torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = exact
        reduced = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with self._enough_memory(), torch.inference_mode(), reduced:
            return self.network(network_input(torch.from_numpy(faces).to(self.device))).float().cpu().numpy()

    @contextlib.contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise FergiError(
                f"{self.device} has too little memory for the AU network and its batches of faces. "
                "Free some of it, or choose another --device; finished clips stay."
            ) from error


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor, unless ``ONEDNN_MAX_CPU_ISA`` takes that away."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINONetwork:
    """The network in OpenVINO, on the CPU."""

    def __init__(self, model: Path, precision: str, threads: int):
        """Compile a network that ``converted`` made, for so many threads, each with batches of its own.

        Raises
        ------
        FergiError
            If the file cannot be read.
        """
        try:
            self._compiled = compiled(model, OPENVINO_PRECISIONS[precision], threads)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise FergiError(
                f"OpenVINO cannot use {model} ({reason}). Remove the folder {model.parent}, or use --runtime torch."
            ) from error
        self._own = threading.local()

    def outputs(self, faces: np.ndarray) -> np.ndarray:
        """See ``Runtime``; the outputs are valid until the same thread's next call."""
        if not hasattr(self._own, "request"):  # one of them serves one thread
            self._own.request = self._compiled.create_infer_request()
        return self._own.request.infer([np.ascontiguousarray(faces)])[0]


class _FromPictures(torch.nn.Module):
    """The network with the step that makes pictures its input."""

    def __init__(self, network: IResNet):
        super().__init__()
        self.network = network

    def forward(self, faces: Tensor) -> Tensor:
        return self.network(network_input(faces))


def fastest_runtime(device: torch.device, precision: str) -> str:
    """The one of ``RUNTIMES`` that is the fastest there: OpenVINO on a CPU that has the precision, else PyTorch."""
    if device.type != "cpu" or precision not in OPENVINO_PRECISIONS:
        return "torch"
    return "openvino" if precision == "float32" or has_bfloat16() else "torch"


def converted(checkpoint: Path, network: str, batch_size: int, folder: Path, digest: str | None = None) -> Path:
    """The network of a checkpoint as OpenVINO's file, made below ``folder`` if it is not there.

    ``network`` is the checkpoint's layout, one of ``NETWORKS``, ``batch_size`` the number of faces in every batch,
    ``digest`` the checkpoint's SHA-256 if the caller knows it.

    Raises
    ------
    FergiError
        If the checkpoint is missing, damaged, or of another layout, or ``folder`` cannot be written.
    """
    name = f"{digest or sha256(checkpoint)}-{network}-{batch_size}-openvino-{version('openvino')}"
    home = folder / name
    if (home / NETWORK_FILE).is_file():
        return home / NETWORK_FILE
    check_writable(folder)
    example = torch.zeros(batch_size, SIDE, SIDE, 3, dtype=torch.uint8)
    ov = import_openvino()
    program = torch.export.export(_FromPictures(load_network(checkpoint, network)).eval(), (example,))
    model = ov.convert_model(program)
    model.reshape(list(example.shape))
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{network}.") as temporary:
        whole = Path(temporary) / name
        try:
            ov.save_model(model, whole / NETWORK_FILE, compress_to_fp16=False)
            whole.rename(home)
        except (OSError, RuntimeError) as error:
            if not (home / NETWORK_FILE).is_file():  # else another process was faster
                raise FergiError(f"Cannot write {home}: {error}. Make room, or use --runtime torch.") from error
    for other in folder.glob(f"{name.partition('-')[0]}-{network}-*"):
        if other != home:  # of another version of OpenVINO
            shutil.rmtree(other, ignore_errors=True)
    return home / NETWORK_FILE
