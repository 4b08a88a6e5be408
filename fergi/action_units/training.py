"""Training of the AU model (Appendix B.3): steps, epochs, evaluation, log, and going on after an interruption.

Adam with its own learning rate for the last layer, weight decay added to the gradient (coupled L2), no schedule.
What chance does to an epoch follows from seed, epoch and picture alone (``faces_dataset``), and dropout is 0, so the
saved state needs no random numbers: weights, the optimizer's state, and how far it got. Going on from it gives what
an uninterrupted training gives, on a CPU to the last bit.
"""

import dataclasses
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fergi.action_units.faces_dataset import (
    SHARED_MEMORY,
    Augmentation,
    Batch,
    BatchOrder,
    FaceBatches,
    Faces,
    batch_loader,
)
from fergi.action_units.losses import LOSS_NAMES, LossWeights, intensity_counts, loss_parts, loss_weights
from fergi.action_units.metrics import agreement, agreement_sums
from fergi.action_units.network import HEAD, IResNet, intensities, network_input
from fergi.action_units.parallel import synchronise_batch_norms
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, check_writable, write_json, write_table
from fergi.processes import Process
from fergi.weights import read_weights_file, save_weights

STATE_FORMAT = 3
LOGGED_METRICS = ("ICC", "MSE", "MAE")
PRECISIONS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
STEPS_BETWEEN_LOOKS = 50  # looking at the loss makes the processor wait for the device


@dataclass(frozen=True)
class TrainingSettings:
    """What the trained weights depend on, besides the data.

    Attributes
    ----------
    mode : {"paper", "released"}
        Weights of the squared error (eq. 16).
    network : str
        Name of the network.
    start : str
        Where its weights come from: "random", or name and SHA-256 of a file.
    epochs : int
        Passes over the data. A finished training can be prolonged: nothing before depends on it.
    batch_size : int
        Pictures of a step, all processes together.
    seed : int
        Of the new weights, the order of pictures and the augmentation.
    last_layer_rate, rate : float
        Learning rates of the last layer and of all others.
    weight_decay : float
        Factor of the weights in the gradient.
    augmentation : Augmentation or None
        What happens to pictures in training.
    precision : {"float64", "float32", "tf32", "bfloat16", "float16"}
        Of the convolutions; weights, last layer and losses are float32, but for float64, in which all is computed:
        slow, and the same on every machine and with any number of processes to nine digits. tf32 is float32 of which
        CUDA multiplies ten binary digits only.
    """

    mode: str
    network: str
    start: str
    epochs: int
    batch_size: int
    seed: int
    last_layer_rate: float
    rate: float
    weight_decay: float
    augmentation: Augmentation | None
    precision: str


def choose_precision(name: str, device: torch.device) -> str:
    """The precision of that name; "auto" takes the fast one of the device: half the size on CUDA since Volta.

    Raises
    ------
    FergiError
        If the device has no such precision.
    """
    if name == "tf32" and device.type != "cuda":
        raise FergiError(f"There is no tf32 on {device}, only on CUDA. Use --precision float32.")
    if name != "auto":
        return name
    if device.type != "cuda":
        return "float32"
    generation = torch.cuda.get_device_capability(device)[0]
    return "bfloat16" if generation >= 8 else "float16" if generation == 7 else "float32"


def set_cuda_arithmetic(precision: str) -> None:
    """Let CUDA compute float32 exactly, or convolutions with tf32 if that is asked for (which is PyTorch's default)."""
    torch.backends.cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = "ieee"


@contextmanager
def explained() -> Iterator[None]:
    """Errors of PyTorch that a person can do something about, as one sentence each.

    Raises
    ------
    FergiError
        If CUDA has no memory left, or a worker process was ended or hands over nothing.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FergiError(
            "The CUDA device has not enough memory. Choose a smaller --batch-size, or more processes on as many "
            "devices (torchrun --nproc-per-node), which share each batch."
        ) from error
    except RuntimeError as error:  # raised wherever the main process is when a worker ends
        if not str(error).startswith("DataLoader"):
            raise
        raise FergiError(
            f"Reading pictures failed ({str(error).splitlines()[0].rstrip('. ')}), most likely for want of memory or "
            f"of room in {SHARED_MEMORY}. Choose fewer --workers and run this again to go on."
        ) from error


def make_optimizer(network: IResNet, settings: TrainingSettings) -> torch.optim.Adam:
    """Adam with two groups of parameters: the last layer, and the rest."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[name.startswith(HEAD)].append(parameter)
    return torch.optim.Adam(
        [
            {"params": groups[True], "lr": settings.last_layer_rate},
            {"params": groups[False], "lr": settings.rate},
        ],
        weight_decay=settings.weight_decay,
        fused=next(network.parameters()).device.type == "cuda",
    )


class Tally:
    """Sums over the pictures of an epoch, from which its row in the log is made."""

    def __init__(self, device: torch.device) -> None:
        self.sums = {
            "losses": torch.zeros(len(LOSS_NAMES), dtype=torch.float64, device=device),
            "agreement": torch.zeros(7, len(ACTION_UNITS), dtype=torch.float64, device=device),
        }

    def add(self, parts: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Count a batch: its losses by picture, what the network gave, and what is true."""
        self.sums["losses"] += parts.detach().double().sum(0)
        self.sums["agreement"] += agreement_sums(
            intensities(outputs.detach(), ACTION_UNITS), intensities(labels, ACTION_UNITS)
        )

    def row(self, epoch: int, part: str, n: int) -> dict[str, Any]:
        """The log's row of one epoch and one part of the data; the sums must be those of all processes."""
        losses = (self.sums["losses"] / n).tolist()
        metrics = agreement(self.sums["agreement"])
        row = {"epoch": epoch, "part": part, "frames": n, "loss": sum(losses)}
        row |= {f"{name}_loss": loss for name, loss in zip(LOSS_NAMES, losses, strict=True)}
        for position, unit in enumerate(ACTION_UNITS):
            row |= {f"AU{unit}_{name}": float(metrics[name][position]) for name in LOGGED_METRICS}
        return row


class Training:
    """One training: network, optimizer, data, and how far it is.

    Parameters
    ----------
    network : IResNet
        With the weights to start from.
    faces, held_out : Faces
        To train on, and to evaluate on after every epoch (may be empty).
    settings : TrainingSettings
        See there.
    face_settings : dict
        Data set → how its pictures were made (``read_faces``).
    folder : Path
        Where checkpoints, state and log go (``AU_models``).
    process : Process
        This process among all.
    workers : int
        Processes that read pictures, for each training process.
    state_every : int
        Steps from one saved state to the next; there is one after every epoch anyway.
    """

    def __init__(
        self,
        network: IResNet,
        faces: Faces,
        held_out: Faces,
        settings: TrainingSettings,
        *,
        face_settings: dict[str, dict[str, Any]],
        folder: Path,
        process: Process,
        workers: int,
        state_every: int,
    ) -> None:
        self.settings, self.folder, self.process, self.state_every = settings, folder, process, state_every
        self.faces, self.held_out, self.face_settings = faces, held_out, face_settings
        on_cuda = process.device.type == "cuda"
        if on_cuda:
            torch.backends.cudnn.benchmark = True
            set_cuda_arithmetic(settings.precision)
        # Faster on CPUs too, but there PyTorch's backward pass aborts in this layout with 8 or 12 channels.
        channels_last = on_cuda or network.conv1.out_channels % 16 == 0
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        exact = torch.float64 if settings.precision == "float64" else torch.float32
        self.network = synchronise_batch_norms(network, process).to(process.device, exact, memory_format=self.layout)
        self.parallel_network = process.spread(self.network)
        self.optimizer = make_optimizer(self.network, settings)
        # It begins where the first gradients do not overflow, as they do at PyTorch's 65536.
        self.scaler = torch.amp.GradScaler(
            process.device.type, init_scale=1024.0, enabled=settings.precision == "float16"
        )
        self.weights: LossWeights = loss_weights(torch.from_numpy(faces.labels), settings.mode).to(process.device)
        self.order = BatchOrder(len(faces), settings.batch_size, settings.seed, process.rank, process.world_size)
        self.loader = batch_loader(
            FaceBatches(faces, settings.augmentation, settings.seed), self.order, workers, pinned=on_cuda
        )
        self.held_out_order = BatchOrder(len(held_out), settings.batch_size, None, process.rank, process.world_size)
        self.held_out_loader = batch_loader(
            FaceBatches(held_out, None, settings.seed), self.held_out_order, workers, pinned=on_cuda
        )
        self.epochs_done = self.steps_done = 0
        self.tally = Tally(process.device)
        self.log: list[dict[str, Any]] = []

    @property
    def state_path(self) -> Path:
        """The state to go on from."""
        return self.folder / "last_training_state.pth"

    @property
    def log_path(self) -> Path:
        """Losses and metrics of every epoch."""
        return self.folder / "training_log.csv"

    @property
    def events_folder(self) -> Path:
        """The same for TensorBoard."""
        return self.folder / "tensorboard"

    def checkpoint_path(self, epoch: int) -> Path:
        """The trained weights after an epoch, numbered from 1."""
        return self.folder / f"checkpoint_epoch{epoch}.pth"

    def identity(self) -> dict[str, Any]:
        """What must be the same for a state to be gone on from, as plain values."""
        settings = dataclasses.asdict(self.settings)
        del settings["epochs"]
        settings |= {
            f"{dataset} {name}": value for dataset, made in self.face_settings.items() for name, value in made.items()
        }
        return settings | {"training faces": self.faces.fingerprint(), "held-out faces": self.held_out.fingerprint()}

    def description(self) -> dict[str, Any]:
        """Settings and data, to be written beside the weights."""
        counts = intensity_counts(torch.from_numpy(self.faces.labels))
        return {
            "format": STATE_FORMAT,
            "settings": dataclasses.asdict(self.settings),
            "optimizer": "Adam, weight decay added to the gradient, no schedule",
            "faces": {
                part: {
                    "frames": {name: int((faces.datasets == name).sum()) for name in sorted(set(faces.datasets))},
                    "subjects": sorted(set(faces.subjects.tolist())),
                    "sha256": faces.fingerprint(),
                }
                for part, faces in (("training", self.faces), ("held_out", self.held_out))
            },
            "face_settings": self.face_settings,
            "training_labels_by_intensity": {f"AU{unit}": counts[unit - 1].tolist() for unit in ACTION_UNITS},
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }

    def resume(self, restart: bool) -> None:
        """Go back to the saved state, if there is one.

        Every process reads it from its own folder, so that processes on several machines need a shared one.

        Parameters
        ----------
        restart : bool
            Begin anew: state, checkpoints and log of an earlier training are deleted.

        Raises
        ------
        FergiError
            If the state is of other settings or data, there are checkpoints without a state, or the processes found
            different states.
        """
        self._read_state(restart)
        if not self.process.all_agree(repr((self.epochs_done, self.steps_done, self.identity()))):
            raise FergiError(
                f"The {self.process.world_size} processes found different data or states to go on from (this one: "
                f"after {self.epochs_done} epochs and {self.steps_done} steps). Every machine needs the same --root, "
                "on a disk that they share."
            )

    def _read_state(self, restart: bool) -> None:
        check_writable(self.folder)
        if restart:
            self.process.wait()
            if self.process.leads:
                for path in (self.state_path, *self._checkpoints(), self.log_path, *event_files(self.events_folder)):
                    path.unlink(missing_ok=True)
            self.process.wait()
        if not self.state_path.exists():
            left = self._checkpoints()
            if left:
                raise FergiError(
                    f"{self.folder} has {len(left)} trained checkpoints (first: {left[0].name}) but no "
                    f"{self.state_path.name} to go on from. Move them away, or pass --restart to replace them."
                )
            return
        advice = "Pass --restart to begin anew, which deletes it and its checkpoints."
        state = read_weights_file(self.state_path, advice)
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise FergiError(f"{self.state_path} is not a training state of format {STATE_FORMAT}. {advice}")
        for name, value in self.identity().items():
            if state["identity"].get(name) != value:
                raise FergiError(
                    f"{self.state_path} belongs to a training with other {name} "
                    f"({state['identity'].get(name)}, now {value}). Repeat its settings to go on. {advice}"
                )
        self.network.load_state_dict(state["network"])
        for group, own in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            group["fused"] = own["fused"]  # follows from the device, which may be another one now
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epochs_done, self.steps_done, self.log = state["epochs_done"], state["steps_done"], state["log"]
        for name, value in state["sums"].items():  # those of all processes together
            self.tally.sums[name] = value.to(self.process.device) / self.process.world_size

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint_epoch*.pth"))

    def save_state(self) -> None:
        """Write the state to go on from."""
        sums = {name: self.process.add_up(value) for name, value in self.tally.sums.items()}
        if self.process.leads:
            state = {
                "format": STATE_FORMAT,
                "identity": self.identity(),
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "epochs_done": self.epochs_done,
                "steps_done": self.steps_done,
                "sums": sums,
                "log": self.log,
            }
            save_weights(state, self.state_path)

    def step(self, batch: Batch, n: int) -> None:
        """One step of the optimizer.

        Parameters
        ----------
        batch : Batch
            This process's share.
        n : int
            Pictures of the whole batch. The loss is their mean; gradients are averaged over processes, so the share
            counts as many times as there are processes.
        """
        # With half precision a share that is empty would give PyTorch's SyncBatchNorm another type than the others.
        reduced = n >= self.process.world_size
        outputs, parts, labels = self._losses(self.parallel_network, batch, reduced=reduced)
        loss = parts.sum() * (self.process.world_size / n)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.tally.add(parts, outputs, labels)

    def _losses(self, network: torch.nn.Module, batch: Batch, *, reduced: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, losses of each picture, labels, on the device; ``reduced``: in the precision of the settings."""
        if batch.problem:
            raise FergiError(
                f"{batch.problem}. Delete it and make it again with stage 1 or 2, then run this again to go on."
            )
        device, precision = self.process.device, PRECISIONS[self.settings.precision]
        labels = batch.labels.to(device, non_blocking=True)
        pictures = network_input(batch.pictures.to(device, non_blocking=True)).contiguous(memory_format=self.layout)
        if precision is torch.float64:
            pictures = pictures.double()
        half = precision in (torch.bfloat16, torch.float16)
        with torch.autocast(device.type, dtype=precision, enabled=reduced and half):
            outputs = network(pictures)
        return outputs, loss_parts(outputs, labels, self.weights), labels

    def evaluate(self) -> dict[str, Any]:
        """The log's row of the held-out pictures, none of them augmented."""
        tally = Tally(self.process.device)
        self.network.eval()
        with torch.inference_mode():
            for batch in self.held_out_loader:
                outputs, parts, labels = self._losses(self.network, batch)
                tally.add(parts, outputs, labels)
        self.network.train()
        tally.sums = {name: self.process.add_up(value) for name, value in tally.sums.items()}
        return tally.row(self.epochs_done, "held-out", len(self.held_out))

    def steps(self) -> Iterator[int]:
        """Train through the rest of an epoch; gives after each step how many pictures it had."""
        self.order.epoch, self.order.first_step = self.epochs_done, self.steps_done
        self.network.train()
        for batch in self.loader:
            n = self.order.size(self.steps_done)
            self.step(batch, n)
            self.steps_done += 1
            yield n

    def mean_loss(self) -> float:
        """Loss of this epoch's pictures so far (this process's share).

        Raises
        ------
        FergiError
            If it is not finite, before anything is saved.
        """
        seen = min(self.steps_done * self.settings.batch_size, len(self.faces))
        loss = float(self.tally.sums["losses"].sum()) * self.process.world_size / max(seen, 1)
        if not np.isfinite(loss):
            raise FergiError(
                f"The loss is {loss} in epoch {self.epochs_done + 1}, step {self.steps_done}: training has failed. "
                "Lower the learning rates or use --precision float32, and pass --restart."
            )
        return loss

    def run(self) -> None:
        """Train all epochs that are left; with none nothing is written."""
        if self.epochs_done >= self.settings.epochs:
            return
        if self.process.leads:
            write_json(self.description(), self.folder / "training.json")
        while self.epochs_done < self.settings.epochs:
            title = f"epoch {self.epochs_done + 1} of {self.settings.epochs}"
            before, start = self.steps_done * self.settings.batch_size, time.perf_counter()
            hidden = None if self.process.leads else True  # None: shown where somebody can watch it
            with tqdm(
                total=len(self.faces), initial=before, desc=title, unit=" images", disable=hidden, smoothing=0.05
            ) as bar:
                for n in self.steps():
                    bar.update(n)
                    if self.steps_done % STEPS_BETWEEN_LOOKS == 0:
                        bar.set_postfix(loss=f"{self.mean_loss():.4f}")
                    if self.steps_done % self.state_every == 0 and self.steps_done < len(self.order):
                        self.mean_loss()
                        self.save_state()
            self._finish_epoch()
            if self.process.leads:
                speed = (len(self.faces) - before) / (time.perf_counter() - start)
                print(self._report(title, speed), flush=True)
        self.process.wait()

    def _finish_epoch(self) -> None:
        """Evaluate, write checkpoint, log and state, and start the next epoch's sums."""
        self.mean_loss()
        self.epochs_done += 1
        self.steps_done = 0
        self.tally.sums = {name: self.process.add_up(value) for name, value in self.tally.sums.items()}
        rows = [self.tally.row(self.epochs_done, "training", len(self.faces))]
        if len(self.held_out):
            rows.append(self.evaluate())
        self.log += rows
        self.tally = Tally(self.process.device)
        if self.process.leads:
            weights = {
                name: (value.float() if value.is_floating_point() else value).cpu().contiguous()
                for name, value in self.network.state_dict().items()
            }
            save_weights(weights, self.checkpoint_path(self.epochs_done))
            write_table(pd.DataFrame(self.log), self.log_path)
            write_events(rows, self.events_folder, self.epochs_done)
        self.save_state()

    def _report(self, title: str, speed: float) -> str:
        """The last epoch in a few lines, with the whole epoch's images per second."""
        lines = []
        for row in (row for row in self.log if row["epoch"] == self.epochs_done):
            losses = ", ".join(f"{name} {row[f'{name}_loss']:.4f}" for name in LOSS_NAMES)
            lines.append(f"{title}, {row['part']}: {row['frames']} images, loss {row['loss']:.4f} ({losses})")
            for name in LOGGED_METRICS:
                values = {unit: row[f"AU{unit}_{name}"] for unit in ACTION_UNITS}
                shown = "  ".join(f"AU{unit} {value:.3f}" for unit, value in values.items() if np.isfinite(value))
                lines.append(f"  {name}  {shown or 'not defined: no variation, or no labels'}")
        return "\n".join([*lines, f"  {speed:.1f} images per second, evaluation and writing included"])


def event_files(folder: Path, epoch: int | None = None) -> list[Path]:
    """The files that ``write_events`` wrote, of one epoch or of all."""
    return sorted(folder.glob(f"events.*.epoch{'*' if epoch is None else epoch}"))


def write_events(rows: list[dict[str, Any]], folder: Path, epoch: int) -> None:
    """One epoch's rows for TensorBoard, in a file of their own that replaces an earlier one of that epoch.

    Raises
    ------
    FergiError
        If it cannot be written.
    """
    suffix = f".epoch{epoch}"
    try:
        for path in event_files(folder, epoch):
            path.unlink()
        with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
            for row in rows:
                for name, value in row.items():
                    if name not in ("epoch", "part", "frames"):
                        unit, _, metric = name.rpartition("_")
                        tag = f"{metric}/{unit}" if name.startswith("AU") else f"losses/{name}"
                        writer.add_scalar(f"{row['part']}/{tag}", value, epoch)
    except OSError as error:
        raise FergiError(
            f"Cannot write into {folder}: {error.strerror}. Make room or choose another --root."
        ) from error
