"""Clips to features beside the original's way of working, whole processes in turn, in one run.

Reads   pretrained_models/mobilefacenet_model_best.pth.tar, if it is there, else landmarks are FaceMesh's;
        pretrained_models/face_landmarker.task, if it is there: a row for blendshapes, which need no AU network;
        clips are made from scikit-image's astronaut in a temporary folder, or --videos FILE…
Run     python -m benchmarks.clips
        python -m benchmarks.clips --size 1920x1080
        python -m benchmarks.clips --videos film.mp4 film_again.mp4
        python -m benchmarks.clips --network ir18-thin --clips 2 --frames 30        (a first look)
Takes   about six minutes on two cores; with --repeats 1 about four, with --runtimes openvino fewer.

The original's way: one process, one frame at a time from decoding to the networks, which compute on all cores, in
PyTorch's default layout and float32 (on CUDA tf32). Ours is clips_facial_process.py. Every figure is of a whole
process, start and imports included, and the rows take turns. The network alone has faces ready. Weights are random,
with outputs scaled to a standard deviation of one, so that differences are in units of the outputs' spread.
A frame's processor time is that of one process on one thread, which other programs on the machine change little.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut

from fergi.action_units.blendshapes import Blendshapes
from fergi.action_units.estimator import AUEstimator, Estimator
from fergi.action_units.network import HEAD, NETWORKS, SIDE, intensities, load_network, network_input, random_network
from fergi.action_units.runtime import RUNTIMES, has_bfloat16
from fergi.faces.alignment import FACE_SIZE
from fergi.faces.landmarks import BACK_ENDS, MOBILEFACENET_FILE
from fergi.faces.mobilefacenet import MobileFaceNet
from fergi.faces.pipeline import AlignmentSettings, FaceAligner, alignment_settings
from fergi.features import ACTION_UNITS, read_clips
from fergi.processes import choose_device
from fergi.script import CHECKOUT, add_device_argument, default_root
from fergi.video import read_frames
from fergi.weights import FACE_LANDMARKER, MOBILEFACENET, load_state, load_strictly, save_weights

ORIGINAL, SINGLE, NETWORK = "the original's way", "one clip of 150 frames, ", "the network alone, "


def film(path: Path, n_frames: int, phase: float, size: tuple[int, int] = (640, 480)) -> None:
    """A clip at 30 FPS in which a face moves a little; the face grows with the width."""
    picture, scale = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR), size[0] / 640
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, size)
    for frame in range(n_frames):
        zoom = scale * (1 + 0.05 * np.sin(frame / 9))
        motion = cv2.getRotationMatrix2D((256, 140), 6 * np.sin(frame / 15 + phase), zoom)
        motion[:, 2] += (size[0] / 2 - 250 + 10 * np.sin(frame / 20), 200 * scale - 140)
        writer.write(cv2.warpAffine(picture, motion, size))
    writer.release()


def save_scaled_weights(name: str, path: Path) -> None:
    """Random weights whose intensities have a standard deviation of about one."""
    network = random_network(name, seed=0).eval()
    faces = torch.randint(0, 256, (16, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        spread = intensities(network(network_input(faces)), ACTION_UNITS).std()
    scaled = {f"{HEAD}{entry}": network.state_dict()[f"{HEAD}{entry}"] / spread for entry in ("weight", "bias")}
    save_weights(network.state_dict() | scaled, path)


class OriginalLandmarks:
    """MobileFaceNet in PyTorch, one face at a time."""

    def __init__(self, pretrained_models: Path) -> None:
        self.network, weights = MobileFaceNet().eval(), pretrained_models / MOBILEFACENET_FILE
        load_strictly(self.network, load_state(weights, key=MOBILEFACENET.key, advice=""), source=weights)

    def locate(self, pictures, faces, crops) -> list[np.ndarray]:
        """See ``FaceMesh.locate``."""
        found = []
        for crop in crops:
            small = Image.fromarray(crop.picture).resize((FACE_SIZE, FACE_SIZE), Image.Resampling.BILINEAR)
            with torch.inference_mode():
                face = network_input(torch.from_numpy(np.array(small)[None])).contiguous()
                unit = self.network(face).reshape(68, 2).double().numpy()
            found.append(unit * crop.picture.shape[1::-1])
        return found


def original(videos: list[Path], weights: Path, name: str, device: torch.device) -> None:
    """The original's way, of all videos; its features are not written."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.backends.cudnn.conv.fp32_precision = "tf32"  # PyTorch's default, which ours changes
    network = load_network(weights, name).to(device)
    settings = alignment_settings(weights.with_name("pretrained_models"), None)
    if settings.landmarks == "mobilefacenet":
        BACK_ENDS["original"] = OriginalLandmarks
        settings = AlignmentSettings(settings.pretrained_models, "original")
    aligner = FaceAligner(settings)
    for video in videos:
        for _, picture in read_frames(video):
            (face,) = aligner.align([picture])
            if face is not None:
                with torch.inference_mode():
                    network(network_input(torch.from_numpy(face.picture[None]).to(device)).contiguous()).cpu()


def seconds(command: list[str | Path]) -> float:
    """Of a whole process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], cwd=CHECKOUT, check=True, capture_output=True)
    return time.perf_counter() - started


def network_alone(estimator: AUEstimator, n_threads: int) -> float:
    """Faces per second of the network, of about 256."""
    size = estimator.batch_size
    batches = [np.random.default_rng(0).integers(0, 256, (size, SIDE, SIDE, 3), np.uint8)] * (256 // size)
    with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        list(threads.map(estimator.estimate, batches[:n_threads]))
        started = time.perf_counter()
        list(threads.map(estimator.estimate, batches))
        return len(batches) * size / (time.perf_counter() - started)


def processor_time(video: Path, alignment: AlignmentSettings, estimator: Estimator) -> float:
    """Milliseconds of one core a frame, from the decoded picture to its intensities."""
    aligner, pictures = FaceAligner(alignment), [picture for _, picture in read_frames(video)][:75]
    torch.set_num_threads(1)
    estimator.frame_values(aligner, pictures[:8])
    started = time.process_time()
    estimator.frame_values(aligner, pictures)
    return 1000 * (time.process_time() - started) / len(pictures)


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="ir50")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=150, help="of each clip")
    parser.add_argument("--size", type=_size, default=(640, 480), metavar="WxH")
    parser.add_argument("--videos", type=Path, nargs="+", metavar="FILE", help="in place of drawn clips")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--runtimes", choices=RUNTIMES, nargs="+", default=RUNTIMES, help="rows (default: all)")
    where = FACE_LANDMARKER.under(default_root()).parent
    parser.add_argument("--weights", type=Path, default=where, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--original", type=Path, metavar="WEIGHTS", help=argparse.SUPPRESS)  # the process of that row
    add_device_argument(parser)
    return parser


def commands(root: Path, chosen: argparse.Namespace, device: torch.device) -> dict[str, list[str | Path]]:
    """Each row's command, without the videos."""
    script = ["clips_facial_process.py", "--root", root, "--workers", chosen.workers]
    network = ["--estimator", "fergi", "--network", chosen.network, "--device", device, "--checkpoint", root / "w.pth"]
    rows = {ORIGINAL: ["-m", "benchmarks.clips", "--network", chosen.network, "--device", device]}
    precisions = ["float32", "tf32", "bfloat16"] if device.type == "cuda" else ["float32", "bfloat16"]
    for precision in precisions:
        for runtime in RUNTIMES[:1] if device.type == "cuda" else chosen.runtimes:
            if precision == "float32" or runtime == "torch" or has_bfloat16():
                options = ["--runtime", runtime, "--precision", precision]
                rows[f"ours, {runtime}, {precision}"] = [*script, *network, *options]
    if FACE_LANDMARKER.under(root).is_file():
        rows["ours, blendshapes in place of the AU network"] = [*script, "--estimator", "blendshapes"]
    return rows


def main() -> None:
    """Make clips, measure in turn, print Markdown."""
    chosen = _parser().parse_args()
    device = choose_device(chosen.device)
    if chosen.original:
        original(chosen.videos, chosen.original, chosen.network, device)
        return
    taken: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("job", "single", "pretrained_models"):
            (root / name).mkdir()
        for index, video in enumerate(chosen.videos or range(chosen.clips)):
            if chosen.videos:
                (root / "job" / f"{index}_{video.name}").symlink_to(video.resolve())
            else:
                film(root / "job" / f"clip_{index}.mp4", chosen.frames, index, chosen.size)
        film(root / "single" / "clip.mp4", 150, 0, chosen.size)
        for name in (MOBILEFACENET_FILE, FACE_LANDMARKER.under(root).name):
            if (chosen.weights / name).is_file():
                (root / "pretrained_models" / name).symlink_to((chosen.weights / name).resolve())
        save_scaled_weights(chosen.network, root / "w.pth")
        jobs = {name: sorted((root / name).iterdir()) for name in ("job", "single")}
        n_frames = sum(1 for video in jobs["job"] for _ in read_frames(video))
        rows = commands(root, chosen, device)
        for repeat in range(-1, chosen.repeats):  # the first turn converts the network and warms the disk's cache
            for name, command in rows.items():
                for job, videos in jobs.items():
                    if job == "single" and "float32" not in name and name != ORIGINAL:
                        continue
                    if repeat < 0 and (job == "job" or name == ORIGINAL):
                        continue
                    where = ["--videos", root / job, "--out", root / "out" / job / name.replace(" ", "_"), "--redo"]
                    if name == ORIGINAL:
                        where = ["--videos", *videos, "--original", root / "w.pth"]
                    took = seconds([*command, *where])
                    if repeat >= 0:
                        taken[f"{SINGLE if job == 'single' else ''}{name}"].append(took)
        report(root, chosen, device, jobs["job"][0], n_frames, {name: min(each) for name, each in taken.items()})


def report(
    root: Path, chosen: argparse.Namespace, device: torch.device, video: Path, n_frames: int, best: dict[str, float]
) -> None:
    """Print the fastest of each row, and what is measured in this process."""
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    size = "x".join(map(str, chosen.size))
    films = f"{len(chosen.videos)} videos" if chosen.videos else f"{chosen.clips} clips of {size}"
    print(f"{processor}, {os.cpu_count()} cores, {chosen.workers} workers; {chosen.network}.")
    alignment, costs = alignment_settings(root / "pretrained_models", None), {}
    print(f"{n_frames} frames in {films}; landmarks by {alignment.landmarks}; fastest of {chosen.repeats}.\n")
    print("| | seconds | frames/s | of the original's way |\n|---|--:|--:|--:|")
    for name, each in best.items():
        single = name.startswith(SINGLE)
        beside = best[f"{SINGLE}{ORIGINAL}" if single else ORIGINAL]
        print(f"| {name} | {each:.1f} | {(150 if single else n_frames) / each:.1f} | {beside / each:.2f} |")
    for runtime in chosen.runtimes if device.type == "cpu" else RUNTIMES[:1]:
        threads = chosen.workers if device.type == "cpu" else 1
        estimator = AUEstimator(root / "w.pth", chosen.network, device, runtime=runtime, threads=threads)
        print(f"| {NETWORK}{runtime}, float32 | | {network_alone(estimator, threads):.1f} | |")
        costs[f"{chosen.network}, {runtime}"] = processor_time(video, alignment, estimator)
    if FACE_LANDMARKER.under(root).is_file():
        costs["blendshapes"] = processor_time(video, alignment, Blendshapes(FACE_LANDMARKER.under(root)))
    print(f"\nA frame takes {', '.join(f'{cost:.0f} ms of one core with {name}' for name, cost in costs.items())}.")
    features = {
        path.name: read_clips(sorted(path.glob("*.csv")))[0].intensities
        for path in sorted((root / "out" / "job").iterdir())
        if "blendshapes" not in path.name
    }
    reference = features.pop(f"ours,_{chosen.runtimes[0]},_float32")
    for name, values in features.items():
        error = np.abs(values - reference)
        how = f"{error.mean():.4f} on average, {error.max():.4f} at most"
        print(f"{name.replace('_', ' ')}: differs from {chosen.runtimes[0]}'s float32 by {how}.")


def _processor() -> str:
    """Its name, and the widest instructions that it has."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in text]
    return f"{names[0] if names else platform.machine()} ({', '.join(wide)})"


if __name__ == "__main__":
    main()
