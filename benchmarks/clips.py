"""Frames per second of clips → features beside a plain loop and beside the network alone, in one run.

Reads   pretrained_models/face_landmarker.task, if it is there: a row for blendshapes, which need no AU network;
        clips are made from scikit-image's astronaut in a temporary folder
Run     python -m benchmarks.clips
        python -m benchmarks.clips --network ir18-thin --frames 30        (a first look)
Takes   about seven minutes on two cores.

The plain loop does what the original does: one process, one frame at a time from decoding to the network, PyTorch's
default layout, threads and float32 (which on CUDA is tf32). Ours is ``process_clips``, timed from the first frames that
arrive, which do not count, to the last file written; the start of the workers is reported on its own. The network alone
has faces ready and does nothing else, in the batches, layout and threads of ours. Weights are random, with outputs
scaled to a standard deviation of one, so that the error of the reduced precision is in units of the outputs' spread.
A frame's processor time is that of one process on one thread, which other programs on the machine change little.
"""

import argparse
import os
import platform
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import astronaut

from fergi.action_units.blendshapes import Blendshapes
from fergi.action_units.estimator import AUEstimator, Estimator
from fergi.action_units.network import HEAD, NETWORKS, SIDE, intensities, load_network, network_input, random_network
from fergi.action_units.runtime import PRECISIONS
from fergi.clips import ClipJob, process_clips
from fergi.faces.pipeline import AlignmentSettings, FaceAligner
from fergi.features import ACTION_UNITS, read_clips
from fergi.processes import choose_device
from fergi.script import add_device_argument, default_root
from fergi.video import read_frames
from fergi.weights import FACE_LANDMARKER, save_weights

TITLES = {
    "plain": "plain loop: one frame at a time",
    "float32": "ours",
    "tf32": "ours, tf32",
    "bfloat16": "ours, bfloat16",
    "blendshapes": "ours, blendshapes in place of the AU network",
    "network": "the network alone, batched",
}


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
    scaled = {f"{HEAD}{entry}": network.state_dict()[f"{HEAD}{entry}"] / spread for entry in ("weight", "bias")}
    save_weights(network.state_dict() | scaled, path)


def plain(videos: list[Path], alignment: AlignmentSettings, weights: Path, name: str, device: torch.device) -> float:
    """Frames per second of the plain loop, models loaded before."""
    torch.backends.cudnn.conv.fp32_precision = "tf32"  # PyTorch's default, which ours changes
    network = load_network(weights, name).to(device)
    aligner = FaceAligner(alignment)
    started, n_frames = time.perf_counter(), 0
    for video in videos:
        for _, picture in read_frames(video):
            n_frames += 1
            (face,) = aligner.align([picture])
            if face is not None:
                with torch.inference_mode():
                    network(network_input(torch.from_numpy(face.picture[None]).to(device)).contiguous()).cpu()
    return n_frames / (time.perf_counter() - started)


def ours(
    videos: list[Path], output: Path, alignment: AlignmentSettings, estimator: Estimator, workers: int
) -> tuple[float, float]:
    """Frames per second after the first ones arrive, and the seconds before."""
    news: list[tuple[float, int]] = []
    started = time.perf_counter()
    process_clips(
        [ClipJob(video, output / f"{video.stem}_features.csv", 3) for video in videos],
        alignment,
        estimator,
        workers=workers,
        progress=lambda frames, clips: news.append((time.perf_counter(), frames)),
    )
    first, seconds = news[0][0], time.perf_counter() - news[0][0]
    return sum(frames for _, frames in news[1:]) / seconds, first - started


def network_alone(estimator: AUEstimator, n_frames: int, n_threads: int) -> float:
    """Frames per second of the network, for about as many frames."""
    size = estimator.batch_size
    batches = [np.random.default_rng(0).integers(0, 256, (size, SIDE, SIDE, 3), np.uint8)] * -(-n_frames // size)
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        list(threads.map(estimator.estimate, batches[:n_threads]))
        started = time.perf_counter()
        list(threads.map(estimator.estimate, batches))
        return len(batches) * size / (time.perf_counter() - started)


def processor_time(video: Path, alignment: AlignmentSettings, estimator: Estimator) -> float:
    """Milliseconds of one core a frame, from the decoded picture to its intensities."""
    aligner, pictures = FaceAligner(alignment), [picture for _, picture in read_frames(video)]
    torch.set_num_threads(1)
    estimator.frame_values(aligner, pictures[:8])
    started = time.process_time()
    estimator.frame_values(aligner, pictures)
    return 1000 * (time.process_time() - started) / len(pictures)


def main() -> None:
    """Make clips, measure in turn, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="ir50")
    parser.add_argument("--clips", type=int, help="default: 12; on a GPU at least 4 for each worker")
    parser.add_argument("--frames", type=int, default=75, help="of each clip")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--task", type=Path, default=FACE_LANDMARKER.under(default_root()), metavar="FILE")
    add_device_argument(parser)
    chosen = parser.parse_args()
    device, workers = choose_device(chosen.device), chosen.workers
    on_cuda = device.type == "cuda"
    n_clips = chosen.clips or (max(12, 4 * workers) if on_cuda else 12)
    speeds: dict[str, list[float]] = defaultdict(list)
    starts: list[float] = []
    costs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root, weights = Path(folder), Path(folder) / "weights.pth"
        videos = [root / f"clip_{index}.mp4" for index in range(n_clips)]
        for index, video in enumerate(videos):
            film(video, chosen.frames, index)
        save_scaled_weights(chosen.network, weights)
        alignment = AlignmentSettings(root, "facemesh")
        landmarker = Blendshapes(chosen.task) if chosen.task.is_file() else None
        for _ in range(chosen.repeats):
            speeds["plain"].append(plain(videos[:3], alignment, weights, chosen.network, device))
            for precision in (each for each in PRECISIONS if on_cuda or each != "tf32"):
                estimator = AUEstimator(weights, chosen.network, device, precision)
                if precision == "float32":
                    n_threads = 1 if on_cuda else workers
                    speeds["network"].append(network_alone(estimator, n_clips * chosen.frames // 2, n_threads))
                speed, start = ours(videos, root / precision, alignment, estimator, workers)
                speeds[precision].append(speed)
                starts.append(start)
            if landmarker:
                speeds["blendshapes"].append(ours(videos, root / "blendshapes", alignment, landmarker, workers)[0])
        costs[chosen.network] = processor_time(videos[0], alignment, AUEstimator(weights, chosen.network, "cpu"))
        if landmarker:
            costs["blendshapes"] = processor_time(videos[0], alignment, landmarker)
        files = (sorted((root / precision).iterdir()) for precision in ("float32", "bfloat16"))
        difference = np.abs(np.subtract(*(read_clips(each)[0].intensities for each in files)))

    best = {name: max(speeds[name]) for name in TITLES if name in speeds}
    where = torch.cuda.get_device_name(device) if on_cuda else f"{os.cpu_count()} processors"
    print(
        f"{platform.machine()}, {where}, {workers} workers; {chosen.network}, {n_clips} clips of {chosen.frames} frames"
    )
    print(f"of 640 x 480; fastest of {chosen.repeats}.\n\n| | frames/s | of plain |\n|---|--:|--:|")
    for name, speed in best.items():
        print(f"| {TITLES[name]} | {speed:.1f} | {speed / best['plain']:.2f} |")
    print(
        f"\nOurs takes {best['network'] / best['float32']:.2f} times as long as the network alone; its workers take "
        f"{min(starts):.0f} s to start. bfloat16 changes intensities by {difference.mean():.3f} on average and "
        f"{difference.max():.3f} at most, where their standard deviation over unlike pictures is 1. A frame takes "
        f"{' and '.join(f'{cost:.0f} ms of one core with {name}' for name, cost in costs.items())}."
    )


if __name__ == "__main__":
    main()
