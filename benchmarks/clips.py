"""Frames per second of clips → features beside a plain loop and beside the network alone, in one run.

Reads   nothing: clips are made from scikit-image's astronaut in a temporary folder
Run     python -m benchmarks.clips
        python -m benchmarks.clips --network ir18-thin --frames 30        (a first look)
Takes   about seven minutes on two cores.

The plain loop does what the original does: one process, one frame at a time from decoding to the network, PyTorch's
default layout, threads and float32 (which on CUDA is tf32). Ours is ``process_clips``; its time runs from the first
frames handed over, which do not count, to the last file written, without the start of the aligning processes, which is
reported on its own; the estimating ones start a second or two later, which counts. On a GPU it is also said what part
of that time the network took, and so what bounds the whole. The network alone has faces lie ready and does nothing
else, in the batches and layout of ours: once in one process, on as many of PyTorch's threads as there are workers, and
once in the single-threaded processes in which ours runs it on a CPU, which share the cores better. Weights are random,
with outputs scaled to a standard deviation of one, so that the error of the reduced precision is in units of the
outputs' spread.
"""

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import astronaut

from fergi.action_units.estimator import PRECISIONS, AUEstimator, EstimatorSettings
from fergi.action_units.network import HEAD, NETWORKS, SIDE, intensities, load_network, network_input, random_network
from fergi.clips import ClipJob, process_clips
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS, read_clips
from fergi.processes import choose_device
from fergi.script import add_device_argument
from fergi.video import read_frames
from fergi.weights import save_weights

PATIENCE = 600  # seconds in which a process of the network alone must have started, and must be ready
MUCH = 0.9  # of the time: what takes that much of it bounds the whole


def film(path: Path, n_frames: int, phase: float) -> None:
    """A clip of 640 × 480 at 30 FPS in which a face moves a little."""
    picture = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, (640, 480))
    for frame in range(n_frames):
        motion = cv2.getRotationMatrix2D((256, 140), 6 * np.sin(frame / 15 + phase), 1 + 0.05 * np.sin(frame / 9))
        motion[:, 2] += (70 + 10 * np.sin(frame / 20), 60)
        writer.write(cv2.warpAffine(picture, motion, (640, 480)))
    writer.release()


def save_scaled_weights(name: str, path: Path) -> None:
    """Random weights whose intensities have a standard deviation of about one."""
    network = random_network(name, seed=0).eval()
    faces = torch.randint(0, 256, (16, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        spread = intensities(network(network_input(faces)), ACTION_UNITS).std()
    state = network.state_dict()
    for entry in (f"{HEAD}weight", f"{HEAD}bias"):
        state[entry] = state[entry] / spread
    save_weights(state, path)


def plain(videos: list[Path], alignment: AlignmentSettings, estimator: EstimatorSettings) -> float:
    """Frames per second of the plain loop, models loaded before."""
    if estimator.device_type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # PyTorch's default, which ours changes
    network = load_network(estimator.checkpoint, estimator.network).to(estimator.device)
    aligner = FaceAligner(alignment)
    started, n_frames = time.perf_counter(), 0
    for video in videos:
        for _, picture in read_frames(video):
            n_frames += 1
            (face,) = aligner.align([picture])
            if face is not None:
                with torch.inference_mode():
                    batch = network_input(torch.from_numpy(face.picture[None]).to(estimator.device)).contiguous()
                    network(batch).cpu()
    return n_frames / (time.perf_counter() - started)


@contextmanager
def watched_network() -> Iterator[list[tuple[float, float]]]:
    """Beginning and end of each batch in this process, where the network runs if there is a GPU."""
    spans: list[tuple[float, float]] = []
    estimate = AUEstimator.estimate

    def watched(estimator: AUEstimator, faces: np.ndarray) -> np.ndarray:
        started = time.perf_counter()
        values = estimate(estimator, faces)  # on the CPU again, hence finished
        spans.append((started, time.perf_counter()))
        return values

    AUEstimator.estimate = watched
    try:
        yield spans
    finally:
        AUEstimator.estimate = estimate


def ours(
    videos: list[Path], output: Path, alignment: AlignmentSettings, estimator: EstimatorSettings, workers: int
) -> tuple[float, float, float]:
    """Frames per second after the first ones are handed over, the network's part of that time, seconds before it."""
    told: list[tuple[float, int]] = []
    started = time.perf_counter()
    with watched_network() as spans:
        process_clips(
            [ClipJob(video, output / f"{video.stem}_features.csv", 3) for video in videos],
            alignment,
            estimator,
            workers=workers,
            progress=lambda frames, clips: told.append((time.perf_counter(), frames)),
        )
    first, seconds = told[0][0], time.perf_counter() - told[0][0]
    in_network = sum(end - begin for begin, end in spans if begin > first)
    return sum(frames for _, frames in told[1:]) / seconds, in_network / seconds, first - started


def _forward(
    estimator: EstimatorSettings, n_batches: int, n_threads: int, gate: "multiprocessing.synchronize.Barrier"
) -> None:
    """The network on faces that lie ready, in one process."""
    torch.set_num_threads(n_threads)
    network = AUEstimator(estimator)
    faces = np.random.default_rng(0).integers(0, 256, (estimator.batch_size, SIDE, SIDE, 3), np.uint8)
    network.estimate(faces)
    gate.wait(PATIENCE)
    for _ in range(n_batches):
        network.estimate(faces)
    gate.wait(PATIENCE)


def network_alone(estimator: EstimatorSettings, n_frames: int, n_processes: int, n_threads: int) -> float:
    """Frames per second of the network, for about as many frames."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(n_processes + 1)
    n_batches = -(-n_frames // (estimator.batch_size * n_processes))
    processes = [
        context.Process(target=_forward, args=(estimator, n_batches, n_threads, gate), daemon=True)
        for _ in range(n_processes)
    ]
    for process in processes:
        process.start()
    gate.wait(PATIENCE)
    started = time.perf_counter()
    gate.wait(PATIENCE)
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return n_batches * estimator.batch_size * n_processes / seconds


def features_of(videos: list[Path], output: Path) -> np.ndarray:
    """All intensities that were written."""
    features, problems = read_clips([output / f"{video.stem}_features.csv" for video in videos])
    assert not problems, problems
    return features.intensities


def main() -> None:
    """Make clips, measure in turn, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="ir50")
    parser.add_argument("--clips", type=int, help="default: 12; on a GPU at least 4 for each worker")
    parser.add_argument("--frames", type=int, default=75, help="of each clip")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=2)
    add_device_argument(parser)
    chosen = parser.parse_args()
    device = choose_device(chosen.device)
    on_cuda = device.type == "cuda"
    n_clips = chosen.clips or (max(12, 4 * chosen.workers) if on_cuda else 12)
    n_frames = n_clips * chosen.frames // 2  # as many as the network alone needs to be timed
    precisions = [each for each in PRECISIONS if on_cuda or each != "tf32"]
    speeds: dict[str, list[float]] = defaultdict(list)
    starts: list[float] = []
    shares: list[tuple[float, float]] = []  # frames per second, and the network's part of the time
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        videos = [root / f"clip_{index}.mp4" for index in range(n_clips)]
        for index, video in enumerate(videos):
            film(video, chosen.frames, index)
        save_scaled_weights(chosen.network, root / "weights.pth")
        alignment = AlignmentSettings(root, "facemesh")
        settings = {
            each: EstimatorSettings(root / "weights.pth", chosen.network, str(device), each) for each in precisions
        }
        exact = settings["float32"]
        for _ in range(chosen.repeats):
            speeds["plain"].append(plain(videos[:3], alignment, exact))
            speeds["alone"].append(network_alone(exact, n_frames, 1, chosen.workers))
            if not on_cuda:
                speeds["processes"].append(network_alone(exact, n_frames, chosen.workers, 1))
            for name, each in settings.items():
                speed, share, start = ours(videos, root / name, alignment, each, chosen.workers)
                speeds[name].append(speed)
                starts.append(start)
                if name == "float32":
                    shares.append((speed, share))
        best = {name: max(each) for name, each in speeds.items()}
        difference = np.abs(features_of(videos, root / "float32") - features_of(videos, root / "bfloat16"))

    where = torch.cuda.get_device_name(device) if on_cuda else f"{os.cpu_count()} processors"
    print(
        f"{platform.machine()}, {where}, {chosen.workers} workers; {chosen.network}, {n_clips} clips of "
        f"{chosen.frames} frames of 640 x 480; fastest of {chosen.repeats}.\n"
    )
    print("| | frames/s | of plain |\n|---|--:|--:|")
    titles = {
        "plain": "plain loop: one frame at a time",
        "float32": "ours",
        "tf32": "ours, tf32",
        "bfloat16": "ours, bfloat16",
        "alone": "the network alone, batched, one process",
        "processes": "the network alone, batched, single-threaded processes",
    }
    for name in [each for each in titles if each in best]:
        print(f"| {titles[name]} | {best[name]:.1f} | {best[name] / best['plain']:.2f} |")
    beside = [
        f"{best[name] / best['float32']:.2f} times as long as {titles[name]}"
        for name in ("alone", "processes")
        if name in best
    ]
    print(
        f"\nOurs takes {' and '.join(beside)}; its processes take {min(starts):.0f} s to start. bfloat16 changes "
        f"intensities by {difference.mean():.3f} on average and {difference.max():.3f} at most, where their standard "
        "deviation over unlike pictures is 1."
    )
    if on_cuda:
        share = max(shares)[1]
        bound = "the network" if share >= MUCH else f"decoding and aligning in {chosen.workers} processes"
        print(f"The network takes {share:.0%} of the time of ours, in float32: {bound} bounds it.")


if __name__ == "__main__":
    main()
