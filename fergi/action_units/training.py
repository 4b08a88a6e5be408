"""Training of the AU model (Appendix B.3): steps, epochs, evaluation, log, and resuming.

Adam with its own learning rate for the last layer, weight decay added to the gradient (coupled L2), no schedule.
Order and augmentation follow from seed, epoch and picture alone (``faces_dataset``), and there is no dropout, so the
saved state needs no random numbers: weights, the optimizer's state, and the number of steps done. A resumed training
gives what an uninterrupted one gives, on a CPU to the last bit.

With several processes (torchrun, CUDA) each takes its share of every batch. DistributedDataParallel averages the
gradients, and SyncBatchNorm takes the statistics of the whole batch, so that the result is that of one process but
for the rounding of sums in another order.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fergi.action_units.faces_dataset import SHARED_MEMORY, Batch, BatchOrder, FaceBatches, Faces, batch_loader
from fergi.action_units.losses import LOSS_NAMES, intensity_counts, loss_parts, loss_weights
from fergi.action_units.metrics import METRICS, N_SUMS, agreement, agreement_sums
from fergi.action_units.network import HEAD, IResNet, intensities, network_input
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, check_writable, keep_settings, write_json, write_table
from fergi.processes import Process
from fergi.weights import read_weights_file, save_weights

HALF_PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
TRAINING_PRECISIONS = ("float32", "tf32", *HALF_PRECISIONS)
STEPS_BETWEEN_LOOKS = 50  # reading the loss makes the processor wait for the device
RESTART = "Pass --restart to begin anew, which deletes the earlier training's state, checkpoints and logs."


def _hyperparameter(smallest: float, what: str) -> Any:
    """A field that is also an option of the script."""
    return field(metadata={"smallest": smallest, "what": what})


@dataclass(frozen=True)
class TrainingSettings:
    """What the trained weights depend on, besides the data.

    The other fields, with what they mean, are also the script's options; their values stand in ``config.AU_TRAINING``.

    Attributes
    ----------
    mode : {"paper", "released"}
        Weights of the squared error (eq. 16).
    network : str
        Name of the network.
    start : str
        Where its weights come from: "random", or name and SHA-256 of a file.
    crop : dict or None
        Augmentation of the pictures (``FaceBatches``).
    precision : {"float32", "tf32", "bfloat16", "float16", "float64"}
        Of the convolutions; weights, last layer and losses are float32. tf32 is float32 of which CUDA multiplies ten
        binary digits only. In float64, which tests use, everything is computed.
    """

    mode: str
    network: str
    start: str
    crop: dict[str, tuple[float, float]] | None
    precision: str
    epochs: int = _hyperparameter(1, "passes over the data; a finished training can be prolonged")
    batch_size: int = _hyperparameter(1, "pictures of a step, all processes together")
    seed: int = _hyperparameter(0, "of new weights, order and augmentation")
    last_layer_rate: float = _hyperparameter(0, "learning rate of the last layer")
    rate: float = _hyperparameter(0, "learning rate of all other layers")
    weight_decay: float = _hyperparameter(0, "factor of the weights in the gradient")

    @property
    def settings(self) -> dict[str, Any]:
        """For ``keep_settings``: all but ``epochs``, on which no earlier epoch depends."""
        return {name: value for name, value in asdict(self).items() if name != "epochs"} | {"crop": str(self.crop)}


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
    generation = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
    return "bfloat16" if generation >= 8 else "float16" if generation == 7 else "float32"


def set_cuda_arithmetic(precision: str) -> None:
    """Let CUDA compute float32 exactly, or convolutions with tf32 if that is asked for (which is PyTorch's default)."""
    torch.backends.cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = "ieee"


@contextmanager
def explained() -> Iterator[None]:
    """PyTorch's errors as one sentence each, where a person can do something about them.

    Raises
    ------
    FergiError
        If CUDA has no memory left, or a worker died or hands over nothing.
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
            f"of room in {SHARED_MEMORY}. Choose fewer --workers and run this again to resume."
        ) from error


def make_optimizer(network: IResNet, settings: TrainingSettings) -> torch.optim.Adam:
    """Adam with two groups of parameters: the last layer, and the rest."""
    rest = [parameter for name, parameter in network.named_parameters() if not name.startswith(HEAD)]
    return torch.optim.Adam(
        [
            {"params": list(network.fc.parameters()), "lr": settings.last_layer_rate},
            {"params": rest, "lr": settings.rate},
        ],
        weight_decay=settings.weight_decay,
        fused=rest[0].device.type == "cuda",
    )


def epoch_sums(parts: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
    """What a batch adds to the sums of its epoch: the losses (n, 3), and what the metrics need; float64, flat."""
    estimates, truth = (intensities(values.detach(), ACTION_UNITS) for values in (outputs, labels))
    return torch.cat([parts.detach().double().sum(0), agreement_sums(estimates, truth).flatten()])


def log_row(sums: Tensor, epoch: int, part: str, n: int) -> dict[str, Any]:
    """The log's row of one epoch and one part of the data, from the sums of all processes over its n pictures."""
    n_losses = len(LOSS_NAMES)
    losses = (sums[:n_losses] / n).tolist()
    metrics = agreement(sums[n_losses:].unflatten(0, (N_SUMS, len(ACTION_UNITS))))
    row = {"epoch": epoch, "part": part, "frames": n, "loss": sum(losses)}
    row |= {f"{name}_loss": loss for name, loss in zip(LOSS_NAMES, losses, strict=True)}
    for position, unit in enumerate(ACTION_UNITS):
        row |= {f"AU{unit}_{name}": float(metrics[name][position]) for name in METRICS}
    return row


class Training:
    """One training: network, optimizer, data, and how many steps are done.

    Parameters
    ----------
    network : IResNet
        With the weights to start from.
    faces, held_out : Faces
        To train on, and to evaluate on after every epoch (may be empty).
    face_settings : dict
        The settings of the pictures (``read_faces``).
    folder : Path
        For checkpoints, settings, state and log (``AU_models``).
    process : Process
        This process among all.
    workers : int
        Processes that read pictures, for each training process.
    state_every : int
        Steps from one saved state to the next; one is saved after every epoch anyway.
    """

    def __init__(
        self,
        network: IResNet,
        faces: Faces,
        held_out: Faces,
        options: TrainingSettings,
        *,
        face_settings: dict[str, Any],
        folder: Path,
        process: Process,
        workers: int,
        state_every: int,
    ) -> None:
        self.options, self.folder, self.process, self.state_every = options, folder, process, state_every
        self.faces, self.held_out, self.face_settings = faces, held_out, face_settings
        on_cuda = process.device.type == "cuda"
        if on_cuda:
            torch.backends.cudnn.benchmark = True
            set_cuda_arithmetic(options.precision)
        # Faster on CPUs too, but there PyTorch's backward pass aborts in this layout with 8 or 12 channels.
        channels_last = on_cuda or network.conv1.out_channels % 16 == 0
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.dtype = torch.float64 if options.precision == "float64" else torch.float32
        if process.world_size > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = network.to(process.device, self.dtype, memory_format=self.layout)
        self.parallel_network = process.spread(self.network)
        self.optimizer = make_optimizer(self.network, options)
        # It begins where the first gradients do not overflow, as they do at PyTorch's 65536.
        reduced = options.precision == "float16"
        self.scaler = torch.amp.GradScaler(process.device.type, init_scale=1024.0, enabled=reduced)
        self.weights = loss_weights(torch.from_numpy(faces.labels).to(process.device), options.mode)
        ranks = process.rank, process.world_size
        self.order = BatchOrder(len(faces), options.batch_size, options.seed, *ranks)
        self.loader = batch_loader(FaceBatches(faces, options.crop, options.seed), self.order, workers, pinned=on_cuda)
        order = BatchOrder(len(held_out), options.batch_size, None, *ranks)
        self.held_out_loader = batch_loader(FaceBatches(held_out, None, 0), order, workers, pinned=on_cuda)
        self.epochs_done = self.steps_done = 0
        self.sums = self._no_sums()  # of this epoch's batches so far, and of this process alone
        self.log: list[dict[str, Any]] = []
        self.state_path = folder / "last_training_state.pth"
        self.settings_path = folder / "settings.json"
        self.log_path = folder / "training_log.csv"
        self.events_folder = folder / "tensorboard"

    def checkpoint_path(self, epoch: int) -> Path:
        """The trained weights after an epoch, numbered from 1."""
        return self.folder / f"checkpoint_epoch{epoch}.pth"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """For ``keep_settings``: what the weights depend on, and who was trained on."""
        settings = self.options.settings | self.face_settings
        for part, faces in (("training", self.faces), ("held-out", self.held_out)):
            settings |= {f"{part} faces": faces.fingerprint(), f"{part} subjects": sorted(set(faces.subjects.tolist()))}
            frames = sorted(Counter(faces.datasets.tolist()).items())
            settings |= {f"{part} frames of {dataset}": n for dataset, n in frames}
        counts = intensity_counts(torch.from_numpy(self.faces.labels)).tolist()
        return settings | {f"training labels of AU{unit} by intensity": counts[unit - 1] for unit in ACTION_UNITS}

    def resume(self, restart: bool) -> None:
        """Load the saved state, if there is one.

        Every process reads it from its own folder, so that processes on several machines need a shared one.

        Parameters
        ----------
        restart : bool
            Begin anew: state, checkpoints and logs of an earlier training are deleted.

        Raises
        ------
        FergiError
            If the state is of other settings or data, there are checkpoints without a state, or the processes found
            different states.
        """
        check_writable(self.folder)
        saved = self.state_path, *sorted(self.folder.glob("checkpoint_epoch*.pth"))
        if restart:
            self.process.wait()
            if self.process.leads:
                events = self.events_folder.glob("events.out.tfevents.*")
                for path in (*saved, self.log_path, *events):
                    path.unlink(missing_ok=True)
            self.process.wait()
        left = [path for path in saved if path.exists()]
        if left and not (self.state_path.exists() and self.settings_path.exists()):
            raise FergiError(
                f"{self.folder} has {left[0].name}, but {self.settings_path.name} and {self.state_path.name} are not "
                "both there, so that its training cannot be resumed. Move it away, or pass --restart to replace it."
            )
        if left:
            self._load_state()
        if not self.process.all_agree(repr((self.epochs_done, self.steps_done, self.settings))):
            raise FergiError(
                f"The {self.process.world_size} processes found different data or states to resume from (this one: "
                f"after {self.epochs_done} epochs and {self.steps_done} steps). Every machine needs the same --root, "
                "on a disk that they share."
            )

    def _load_state(self) -> None:
        keep_settings(self.settings, self.settings_path, f"Repeat its settings to resume. {RESTART}")
        state = read_weights_file(self.state_path, RESTART)
        self.network.load_state_dict(state["network"])
        for group, own in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            group["fused"] = own["fused"]  # follows from the device, which may be another one now
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epochs_done, self.steps_done, self.log = state["epochs_done"], state["steps_done"], state["log"]
        self.sums = state["sums"].to(self.process.device) / self.process.world_size

    def save_state(self) -> None:
        """Write the state to resume from."""
        sums = self.process.add_up(self.sums)
        if self.process.leads:
            state = {name: getattr(self, name).state_dict() for name in ("network", "optimizer", "scaler")}
            state |= {"epochs_done": self.epochs_done, "steps_done": self.steps_done, "sums": sums, "log": self.log}
            save_weights(state, self.state_path)

    def _no_sums(self) -> Tensor:
        n_sums = len(LOSS_NAMES) + N_SUMS * len(ACTION_UNITS)
        return torch.zeros(n_sums, dtype=torch.float64, device=self.process.device)

    def step(self, batch: Batch, n: int) -> None:
        """One step of the optimizer.

        Parameters
        ----------
        batch : Batch
            This process's share.
        n : int
            Pictures of the whole batch. The loss is their mean; DistributedDataParallel averages gradients over
            processes, so the share counts as many times as there are processes.
        """
        # With half precision a share that is empty would give PyTorch's SyncBatchNorm another type than the others.
        reduced = n >= self.process.world_size
        outputs, parts, labels = self._losses(self.parallel_network, batch, reduced=reduced)
        loss = parts.sum() * (self.process.world_size / n)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.sums += epoch_sums(parts, outputs, labels)

    def _losses(self, network: nn.Module, batch: Batch, *, reduced: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, losses of each picture, labels, on the device; ``reduced``: in half precision, if chosen."""
        if batch.problem:
            raise FergiError(
                f"{batch.problem}. Delete it and make it again with stage 1 or 2, then run this again to resume."
            )
        device, half = self.process.device, HALF_PRECISIONS.get(self.options.precision)
        labels = batch.labels.to(device, non_blocking=True)
        pictures = network_input(batch.pictures.to(device, non_blocking=True))
        pictures = pictures.to(self.dtype).contiguous(memory_format=self.layout)
        with torch.autocast(device.type, dtype=half, enabled=reduced and half is not None):
            outputs = network(pictures)
        return outputs, loss_parts(outputs, labels, self.weights), labels

    def evaluate(self) -> dict[str, Any]:
        """The log's row of the held-out pictures, none of them augmented."""
        sums = self._no_sums()
        self.network.eval()
        with torch.inference_mode():
            for batch in self.held_out_loader:
                outputs, parts, labels = self._losses(self.network, batch)
                sums += epoch_sums(parts, outputs, labels)
        self.network.train()
        return log_row(self.process.add_up(sums), self.epochs_done, "held-out", len(self.held_out))

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
        seen = min(self.steps_done * self.options.batch_size, len(self.faces))
        loss = float(self.sums[: len(LOSS_NAMES)].sum()) * self.process.world_size / max(seen, 1)
        if not np.isfinite(loss):
            raise FergiError(
                f"The loss is {loss} in epoch {self.epochs_done + 1}, step {self.steps_done}: training has failed. "
                "Lower the learning rates or use --precision float32, and pass --restart."
            )
        return loss

    def run(self) -> None:
        """Train the epochs that remain; with none nothing is written."""
        if self.process.leads and self.epochs_done < self.options.epochs:
            more = {"epochs": self.options.epochs, "torch": torch.__version__}  # may change when it is resumed
            write_json(self.settings | more, self.settings_path)
        while self.epochs_done < self.options.epochs:
            title = f"epoch {self.epochs_done + 1} of {self.options.epochs}"
            start, n_before = time.perf_counter(), self.steps_done * self.options.batch_size
            self._train_epoch(title, n_before)
            rows = self._finish_epoch()
            if self.process.leads:
                speed = (len(self.faces) - n_before) / (time.perf_counter() - start)
                report = [f"{title}: {speed:.1f} pictures per second, all included", *map(_report, rows)]
                print("\n".join(report), flush=True)
        self.process.wait()

    def _train_epoch(self, title: str, n_before: int) -> None:
        """The steps that remain of an epoch, with a bar and the states between them."""
        more = {"smoothing": 0.05, "disable": None if self.process.leads else True}  # None: shown on a terminal
        with tqdm(total=len(self.faces), initial=n_before, desc=title, unit=" pictures", **more) as bar:
            for n in self.steps():
                bar.update(n)
                if self.steps_done % STEPS_BETWEEN_LOOKS == 0:
                    bar.set_postfix(loss=f"{self.mean_loss():.4f}")
                if self.steps_done % self.state_every == 0 and self.steps_done < len(self.order):
                    self.mean_loss()
                    self.save_state()

    def _finish_epoch(self) -> list[dict[str, Any]]:
        """Evaluate, write checkpoint, log and state, and start the next epoch's sums; gives the new rows of the log."""
        self.mean_loss()
        self.epochs_done, self.steps_done = self.epochs_done + 1, 0
        rows = [log_row(self.process.add_up(self.sums), self.epochs_done, "training", len(self.faces))]
        if len(self.held_out):
            rows.append(self.evaluate())
        self.log += rows
        self.sums = self._no_sums()
        if self.process.leads:
            weights = {
                name: (value.float() if value.is_floating_point() else value).cpu().contiguous()
                for name, value in self.network.state_dict().items()
            }
            save_weights(weights, self.checkpoint_path(self.epochs_done))
            write_table(pd.DataFrame(self.log), self.log_path)
            write_events(rows, self.events_folder)
        self.save_state()
        return rows


def _report(row: dict[str, Any]) -> str:
    """A row of the log for the terminal: the losses, and a table of the metrics by AU."""
    losses = ", ".join(f"{name} {row[f'{name}_loss']:.4f}" for name in LOSS_NAMES)
    table = pd.DataFrame({f"AU{unit}": [row[f"AU{unit}_{name}"] for name in METRICS] for unit in ACTION_UNITS}, METRICS)
    shown = table.to_string(float_format="{:.3f}".format, na_rep="-")
    return f"{row['part']}: {row['frames']} pictures, loss {row['loss']:.4f} ({losses})\n{shown}"


def write_events(rows: list[dict[str, Any]], folder: Path) -> None:
    """One epoch's rows for TensorBoard, which then hides what earlier files say about this epoch and later ones.

    Raises
    ------
    FergiError
        If it cannot be written.
    """
    try:
        with SummaryWriter(str(folder), purge_step=rows[0]["epoch"]) as writer:
            for row in rows:
                for name in [name for name in row if name not in ("epoch", "part", "frames")]:
                    unit, _, metric = name.rpartition("_")
                    tag = f"{metric}/{unit}" if name.startswith("AU") else f"losses/{name}"
                    writer.add_scalar(f"{row['part']}/{tag}", row[name], row["epoch"])
    except OSError as error:
        raise FergiError(
            f"Cannot write into {folder}: {error.strerror}. Make room or choose another --root."
        ) from error
