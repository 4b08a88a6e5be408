"""Frames per second of clips → features beside a plain loop and beside the network alone, in one run.

Reads   nothing: clips are made from scikit-image's astronaut in a temporary folder
Run     python -m benchmarks.clips
        python -m benchmarks.clips --network ir18-thin --frames 30        (a first look)
Takes   about three minutes on two cores.

The plain loop does what the original does: one process, one frame at a time from decoding to the network, PyTorch's
default layout and threads. Ours is ``process_clips``; its time runs from the first frames handed over to the last
file written, without the start of the processes, which is reported on its own. The network alone has faces lie
ready and does nothing else, in the batches and layout of ours: once in one process, on as many of PyTorch's threads as
there are workers, and once in the single-threaded processes in which ours runs it on a CPU, which share the cores
better. Weights are random, with outputs scaled to a standard deviation of one, so that the error of the reduced
precision is in units of the outputs' spread.
"""

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import astronaut

from fergi.action_units.network import HEAD, NETWORKS, SIDE, intensities, load_network, network_input, random_network
from fergi.action_units.parallel import choose_device
from fergi.clips import AUEstimator, ClipJob, EstimatorSettings, process_clips
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS, read_clips
from fergi.video import read_frames
from fergi.weights import save_weights


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
    """Seconds of the plain loop, models loaded before."""
    network = load_network(estimator.checkpoint, estimator.network).to(estimator.device)
    aligner = FaceAligner(alignment)
    started = time.perf_counter()
    for video in videos:
        for _, picture in read_frames(video):
            (face,) = aligner.align([picture])
            if face is not None:
                with torch.inference_mode():
                    batch = network_input(torch.from_numpy(face.picture[None]).to(estimator.device)).contiguous()
                    network(batch).cpu()
    return time.perf_counter() - started


def ours(
    videos: list[Path], output: Path, alignment: AlignmentSettings, estimator: EstimatorSettings, workers: int
) -> tuple[float, float]:
    """Seconds from the first frames handed over to the end, and seconds before that."""
    first: list[float] = []
    started = time.perf_counter()
    process_clips(
        [ClipJob(video, output / f"{video.stem}_features.csv", 3) for video in videos],
        alignment,
        estimator,
        workers=workers,
        progress=lambda frames, clips: first.append(time.perf_counter()),
    )
    return time.perf_counter() - first[0], first[0] - started


def _forward(
    estimator: EstimatorSettings, n_batches: int, n_threads: int, gate: "multiprocessing.synchronize.Barrier"
) -> None:
    """The network on faces that lie ready, in one process."""
    torch.set_num_threads(n_threads)
    network = AUEstimator(estimator)
    faces = np.random.default_rng(0).integers(0, 256, (estimator.batch_size, SIDE, SIDE, 3), np.uint8)
    network.estimate(faces)
    gate.wait()
    for _ in range(n_batches):
        network.estimate(faces)
    gate.wait()


def network_alone(estimator: EstimatorSettings, n_frames: int, n_processes: int, n_threads: int) -> float:
    """Seconds of the network for as many frames."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(n_processes + 1)
    n_batches = -(-n_frames // (estimator.batch_size * n_processes))
    processes = [
        context.Process(target=_forward, args=(estimator, n_batches, n_threads, gate)) for _ in range(n_processes)
    ]
    for process in processes:
        process.start()
    gate.wait()
    started = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return seconds * n_frames / (n_batches * estimator.batch_size * n_processes)


def features_of(videos: list[Path], output: Path) -> np.ndarray:
    """All intensities that were written."""
    features, problems = read_clips([output / f"{video.stem}_features.csv" for video in videos])
    assert not problems, problems
    return features.intensities


def main() -> None:
    """Make clips, measure in turn, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="ir50")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=75, help="of each clip")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device")
    chosen = parser.parse_args()
    device = str(choose_device(chosen.device))
    n_frames = chosen.clips * chosen.frames
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        videos = [root / f"clip_{index}.mp4" for index in range(chosen.clips)]
        for index, video in enumerate(videos):
            film(video, chosen.frames, index)
        save_scaled_weights(chosen.network, root / "weights.pth")
        alignment = AlignmentSettings(root, "facemesh")
        exact, reduced = (
            EstimatorSettings(root / "weights.pth", chosen.network, device, precision)
            for precision in ("float32", "bfloat16")
        )
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(chosen.repeats):
            times["plain"].append(plain(videos, alignment, exact))
            times["alone"].append(network_alone(exact, n_frames, 1, chosen.workers))
            if device == "cpu":
                times["processes"].append(network_alone(exact, n_frames, chosen.workers, 1))
            seconds, start = ours(videos, root / "exact", alignment, exact, chosen.workers)
            times["ours"].append(seconds)
            times["start"].append(start)
            times["bfloat16"].append(ours(videos, root / "reduced", alignment, reduced, chosen.workers)[0])
        best = {name: min(each) for name, each in times.items()}
        difference = np.abs(features_of(videos, root / "exact") - features_of(videos, root / "reduced"))

    where = torch.cuda.get_device_name() if device != "cpu" else f"{os.cpu_count()} processors"
    print(
        f"{platform.machine()}, {where}, {chosen.workers} workers; {chosen.network}, {chosen.clips} clips of "
        f"{chosen.frames} frames of 640 x 480; fastest of {chosen.repeats}.\n"
    )
    print("| | frames/s | of plain |\n|---|--:|--:|")
    titles = {
        "plain": "plain loop: one frame at a time",
        "ours": "ours",
        "bfloat16": "ours, bfloat16",
        "alone": "the network alone, batched, one process",
        "processes": "the network alone, batched, single-threaded processes",
    }
    for name in [each for each in titles if each in best]:
        print(f"| {titles[name]} | {n_frames / best[name]:.1f} | {best['plain'] / best[name]:.2f} |")
    beside = [
        f"{best['ours'] / best[name]:.2f} times as long as {titles[name]}"
        for name in ("alone", "processes")
        if name in best
    ]
    print(
        f"\nOurs takes {' and '.join(beside)}; its processes take {best['start']:.0f} s to start. bfloat16 changes "
        f"intensities by {difference.mean():.3f} on average and {difference.max():.3f} at most, where their standard "
        "deviation over unlike pictures is 1."
    )


if __name__ == "__main__":
    main()
