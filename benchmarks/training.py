"""Pictures per second of the AU model's training beside a plain loop, on the same device in one run.

Reads   nothing: pictures are made in a temporary folder
Run     python -m benchmarks.training                                   (IR-50 on a GPU, a thin network on a CPU)
        python -m benchmarks.training --network ir50 --batch-size 8 --steps 3     (IR-50 on a CPU)
Takes   about two minutes.

The plain loop does what the original does: one process that reads each picture when it is needed, torchvision's
transforms, PyTorch's default float32 (on CUDA its convolutions are tf32, and their algorithms are not searched for) and
layout, and the loss is read after every step. Ours is the script's training: workers, and the fast precision and layout
of the device. Both have the same network, batch, augmentation and loss, and Adam. They run in turn, and the fastest
turn of each counts. The third row repeats one batch that is on the device already: the speed without reading pictures.
On CUDA, PyTorch's profiler measures the share of the time in which the GPU is busy.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, supported_activities
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import config
from fergi.action_units.faces_dataset import Batch, Faces
from fergi.action_units.losses import loss_parts, loss_weights
from fergi.action_units.network import NETWORKS, SIDE, random_network
from fergi.action_units.training import TRAINING_PRECISIONS, Training, TrainingSettings, choose_precision, explained
from fergi.features import ACTION_UNITS
from fergi.processes import Process, choose_device
from fergi.script import add_device_argument, run

PLAIN, OURS, REPEATED = "plain loop", "ours", "ours, one batch again and again"
MUCH = 0.9  # of the time or speed: what takes that much bounds the training


def made_faces(folder: Path, n: int) -> Faces:
    """Smooth random pictures with a little noise, which compress about as faces do, and random labels."""
    random = np.random.default_rng(0)
    paths = np.array([os.fsencode(folder / "faces" / f"{index}.png") for index in range(n)])
    (folder / "faces").mkdir()
    for path in paths:
        coarse = random.integers(0, 256, (8, 8, 3)).astype(np.float32)
        picture = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) + random.normal(0, 3, (SIDE, SIDE, 3))
        cv2.imwrite(os.fsdecode(path), picture.clip(0, 255).astype(np.uint8))
    labels = np.full((n, 64), -1, np.int8)
    labels[:, [unit - 1 for unit in ACTION_UNITS]] = random.integers(0, 6, (n, len(ACTION_UNITS)))
    return Faces(paths, np.full(n, "SN001"), np.full(n, "DISFA"), labels, paths)


def plain_steps(faces: Faces, options: TrainingSettings, device: torch.device, folder: Path) -> Iterator[int]:
    """Train plainly without end; gives after each step how many pictures it had. Every batch has the same labels."""
    network = random_network(options.network, options.seed).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=options.rate, weight_decay=options.weight_decay)
    weights = loss_weights(torch.from_numpy(faces.labels).to(device), options.mode)
    crop = transforms.RandomResizedCrop(SIDE, **config.AU_CROP)
    pictures = ImageFolder(folder, transforms.Compose([transforms.RandomHorizontalFlip(), crop, transforms.ToTensor()]))
    loader = DataLoader(pictures, batch_size=options.batch_size, shuffle=True, drop_last=True)
    labels = torch.from_numpy(faces.labels[: options.batch_size])
    while True:
        for batch, _ in loader:
            loss = loss_parts(network(batch.to(device)), labels.to(device), weights).mean(0).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            yield len(batch)


def our_training(faces: Faces, options: TrainingSettings, device: torch.device, workers: int, folder: Path) -> Training:
    """The script's training of the same job."""
    more = {"face_settings": {}, "folder": folder, "process": Process(0, 1, device), "workers": workers}
    network, nobody = random_network(options.network, options.seed), faces.where(slice(0))
    return Training(network, faces, nobody, options, state_every=10**9, **more)


def our_steps(training: Training) -> Iterator[int]:
    """The training's steps, epoch after epoch, as its own loop takes them but without writing anything."""
    while True:
        yield from training.steps()
        training.epochs_done, training.steps_done = training.epochs_done + 1, 0


def repeated_batch(training: Training) -> Iterator[int]:
    """Steps of a training on one batch that is on its device already."""
    pictures, labels, _ = next(iter(training.loader))
    device = training.process.device
    batch = Batch(pictures.to(device), labels.to(device), "")
    while True:
        training.step(batch, len(pictures))
        yield len(pictures)


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """PyTorch's defaults, which our training changes for the whole process."""
    cudnn = torch.backends.cudnn
    ours = cudnn.benchmark, cudnn.conv.fp32_precision
    cudnn.benchmark, cudnn.conv.fp32_precision = False, "tf32"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision = ours


def timed(steps: Iterator[int], n_steps: int, device: torch.device) -> tuple[int, float]:
    """Pictures of the next steps, and their seconds."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else torch.cpu.synchronize
    wait()
    start = time.perf_counter()
    n = sum(islice(steps, n_steps))
    wait()
    return n, time.perf_counter() - start


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much time spans of (start, end) cover, of which some may overlap."""
    total, until = 0.0, -np.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def gpu_share(steps: Iterator[int], n_steps: int, device: torch.device) -> float | None:
    """Part of the time of the next steps in which the GPU computes or copies; None if the profiler sees no GPU."""
    if ProfilerActivity.CUDA not in supported_activities():
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        _, seconds = timed(steps, n_steps, device)
    events = [event for event in profiler.events() or () if event.device_type is DeviceType.CUDA]
    spans = [(event.time_range.start, event.time_range.end) for event in events if not event.is_user_annotation]
    return covered(spans) / 1e6 / seconds if spans else None


def verdict(best: dict[str, float], share: float | None, *, on_cuda: bool) -> str:
    """What bounds our training, in one sentence or two."""
    of_repeated = best[OURS] / best[REPEATED]
    if of_repeated < MUCH:
        end = "Reading pictures bounds it; try more --workers."
    elif share is not None and share < MUCH:
        end = "Starting the GPU's work bounds it; a larger --batch-size would use more."
    else:
        end = "The network bounds it."
    if on_cuda:
        end = f"GPU share: {'not measured' if share is None else f'{share:.0%} of the time'}. {end}"
    return f"Reading pictures leaves {min(of_repeated, 1):.0%} of the speed of one batch again and again. {end}"


def fastest(sides: dict[str, Iterator[int]], n_steps: int, repeats: int, device: torch.device) -> dict[str, float]:
    """Pictures per second of each side in its fastest turn, after one that chooses algorithms and starts workers."""
    best = dict.fromkeys(sides, 0.0)
    for turn in range(1 + repeats):
        for side, steps in sides.items():
            with plain_arithmetic() if side == PLAIN else nullcontext():
                n, seconds = timed(steps, n_steps, device)
            best[side] = max(best[side], n / seconds) if turn else 0.0
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the three in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_device_argument(parser)
    parser.add_argument("--network", choices=tuple(NETWORKS), help="default: ir50 on CUDA, ir18-thin on a CPU")
    parser.add_argument("--batch-size", type=int, default=config.AU_TRAINING["batch_size"], help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="steps of a turn (default: 60 on CUDA, 3 on a CPU)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="processes that read for ours (default: up to 8; 0 on a CPU)")
    parser.add_argument("--precision", choices=("auto", *TRAINING_PRECISIONS), default="auto", help="default: auto")
    chosen = parser.parse_args(arguments)
    device = choose_device(chosen.device)
    on_cuda = device.type == "cuda"
    n_steps = chosen.steps or (60 if on_cuda else 3)
    workers = chosen.workers if chosen.workers is not None else min(8, os.cpu_count() or 1) if on_cuda else 0
    precision = choose_precision(chosen.precision, device)
    numbers = config.AU_TRAINING | {"batch_size": chosen.batch_size}
    name = chosen.network or ("ir50" if on_cuda else "ir18-thin")
    options = TrainingSettings("paper", name, "random", config.AU_CROP, precision, **numbers)

    with tempfile.TemporaryDirectory() as temporary, explained():
        faces = made_faces(Path(temporary), chosen.batch_size * max(8, n_steps))
        job = faces, options, device, workers, Path(temporary)
        sides = {
            PLAIN: plain_steps(faces, options, device, Path(temporary)),
            OURS: our_steps(our_training(*job)),
            REPEATED: repeated_batch(our_training(*job)),
        }
        best = fastest(sides, n_steps, chosen.repeats, device)
        share = gpu_share(sides[OURS], n_steps, device) if on_cuda else None
    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(
        f"{name}, batch {chosen.batch_size}, on {torch.cuda.get_device_name(device) if on_cuda else cpu}; ours with\n"
        f"{precision} and {workers} workers; torch {torch.__version__}; fastest of {chosen.repeats} turns of "
        f"{n_steps} steps.\n\n| loop | pictures per second | ratio to plain |\n|---|--:|--:|"
    )
    for side, speed in best.items():
        print(f"| {side} | {speed:.1f} | {speed / best[PLAIN]:.2f} |")
    print(f"\n{verdict(best, share, on_cuda=on_cuda)}")
    if on_cuda:
        print(f"Largest GPU memory of all three together: {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB.")


if __name__ == "__main__":
    run(main)
