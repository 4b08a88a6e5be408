"""Per-frame facial features of clips (Section 5, Appendix C).

Each frame: detection confidence, pitch and yaw ratio (eqs. 18–19), estimated intensity of twelve AUs.

Reads   data/<participant>/session_<n>/{baseline,reaction}_clip_<i>.mp4
        AU_models/checkpoint_epoch3.pth (--estimator fergi), or pretrained_models/face_landmarker.task (blendshapes)
        pretrained_models/mobilefacenet_model_best.pth.tar, blaze_face_short_range.tflite (see --landmarks)
Writes  data/<participant>/session_<n>/{baseline,reaction}_clip_<i>_features.csv
        data/settings.json    the settings of these files; with --out, all of it there
        AU_models/converted/  the AU model as OpenVINO takes it, once per checkpoint
        DIR/…/<video>.png     with --preview DIR: six frames of each video, its landmarks, its AUs
Run     python clips_facial_process.py
        python clips_facial_process.py --videos my_recordings --out my_features --preview my_pictures
        torchrun --nproc-per-node 4 clips_facial_process.py        (one GPU a process; or --shard 1/4 on each machine)
Takes   on two cores about 35 ms a frame, so eight hours for 5,760 clips; with a GPU 7 to 11 ms of one core a frame;
        with blendshapes about 20 ms of one core a frame; a picture takes two seconds

Finished clips are skipped, so an interrupted run resumes; a clip whose video is newer than its file is done again.
Videos that cannot be read are listed at the end, and the exit code is 1; the rest is done, also by the other processes
of torchrun. Nothing leaves this machine.
"""

if __name__ == "__main__":  # the workers' imports take as long as this process's, so both begin now
    from fergi.script import prepare_workers

    prepare_workers("fergi.clips")

import argparse
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from tqdm import tqdm

import config
from fergi.action_units.blendshapes import Blendshapes
from fergi.action_units.estimator import AUEstimator, Estimator
from fergi.action_units.network import NETWORKS
from fergi.action_units.runtime import PRECISIONS, RUNTIMES, fastest_runtime
from fergi.clips import ClipJob, process_clips
from fergi.dataset import Folders, find_videos, find_videos_anywhere
from fergi.faces.pipeline import AlignmentSettings, FaceAligner, add_alignment_arguments, alignment_settings
from fergi.features import SETTINGS_FILE, require_known_estimator
from fergi.files import FergiError, check_writable, different_settings, keep_settings
from fergi.processes import choose_device, joined_process
from fergi.script import add_device_argument, add_workers_argument, argument_parser, run
from fergi.weights import AU_MODEL, FACE_LANDMARKER

ESTIMATORS = ("fergi", "blendshapes")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--videos", type=Path, metavar="DIR", help="use all videos below this folder; needs --out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where their features go")
    parser.add_argument("--preview", type=Path, metavar="DIR", help="where a picture of each video and its AUs goes")
    parser.add_argument(
        "--estimator",
        choices=ESTIMATORS,
        help="fergi, the paper's AU model, or blendshapes, MediaPipe's (default: fergi if there is an AU model)",
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the AU model (default: under --root)")
    parser.add_argument("--network", choices=NETWORKS, default="ir50", help="its layout (default: %(default)s)")
    add_alignment_arguments(parser)
    parser.add_argument("--baseline-decimals", type=int, choices=(2, 3), default=3, help="release: 2 (default: 3)")
    add_device_argument(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="default: %(default)s")
    parser.add_argument(
        "--runtime",
        choices=("auto", *RUNTIMES),
        default="auto",
        help="what computes the AU model (default: openvino on a CPU, else torch)",
    )
    add_workers_argument(parser, "processes that decode and align")
    parser.add_argument("--shard", metavar="I/N", help="do the I-th of N parts (default: all, or torchrun's part)")
    parser.add_argument("--redo", action="store_true", help="do finished clips again")
    chosen = parser.parse_args(arguments)
    if (chosen.videos is None) != (chosen.out is None):
        parser.error("--videos and --out go together")
    if chosen.checkpoint and chosen.estimator == "blendshapes":
        parser.error("--checkpoint is of --estimator fergi")
    chosen.shard = parse_shard(parser, chosen.shard)
    return chosen


def parse_shard(parser: argparse.ArgumentParser, text: str | None) -> tuple[int, int]:
    """Which part, from 1, of how many."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if text is None:
        return int(os.environ.get("RANK", "0")) + 1, processes
    if processes > 1:
        parser.error("torchrun divides the clips itself; remove --shard, or start the script without torchrun")
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        parser.error(f"--shard must be like 1/4, the first of four parts, not {text}")
    return int(part), int(parts)


def is_done(job: ClipJob) -> bool:
    """Whether its features exist and are not older than its video, if that is still there."""
    if not (job.output.is_file() and job.video.is_file()):
        return job.output.is_file()
    return job.output.stat().st_mtime >= job.video.stat().st_mtime


def main(arguments: Sequence[str] | None = None) -> None:
    """Process this process's clips; fail only when the other processes are done as well."""
    problem = process(parse(arguments))
    # torchrun ends the others as soon as one fails, and another may have many clips to do.
    with joined_process(torch.device("cpu"), timedelta(days=7)) as joined:
        joined.wait()
    if problem:
        raise problem


def process(chosen: argparse.Namespace) -> FergiError | None:
    """Make what is not done yet, then the pictures; the error about videos that cannot be read."""
    folders = Folders(chosen.root)
    outputs = find_videos_anywhere(chosen.videos, chosen.out) if chosen.videos else find_videos(folders)
    jobs = [
        ClipJob(video, output, chosen.baseline_decimals if output.name.startswith("baseline_clip_") else 3)
        for video, output in outputs.items()
    ][chosen.shard[0] - 1 :: chosen.shard[1]]
    todo = [job for job in jobs if chosen.redo or not is_done(job)]
    print(f"{len(jobs)} clips, {len(jobs) - len(todo)} of them done already.")
    home = chosen.out or folders.data
    alignment = alignment_settings(folders.pretrained_models, chosen.landmarks, chosen.luma)
    problem = None
    if todo or (home / SETTINGS_FILE).is_file():  # no settings, as with the published features: nothing to compare
        problem = make_features(chosen, folders, alignment, outputs, todo)
    if chosen.preview:
        note = "Synthetic data: drawn faces, no real people." if folders.synthetic_truth.is_file() else ""
        make_previews(chosen.preview, home, alignment, jobs, note)
    return problem


def make_features(
    chosen: argparse.Namespace,
    folders: Folders,
    alignment: AlignmentSettings,
    outputs: dict[Path, Path],
    todo: Sequence[ClipJob],
) -> FergiError | None:
    """Check the settings and load the models, process what is to do; see ``process_and_report``."""
    home = chosen.out or folders.data
    settings_file = home / SETTINGS_FILE
    existing = [output for output in outputs.values() if output.is_file()]
    if not settings_file.is_file() and not chosen.redo and existing:
        raise FergiError(
            f"{len(existing)} of {len(outputs)} videos have feature files (first: {existing[0]}), and their "
            f"settings are unknown without {settings_file}. Make all again with --redo, or move them away."
        )
    if not settings_file.is_file():
        require_known_estimator(home, outputs.values())
    estimator, name = choose_estimator(chosen, folders)
    FaceAligner(alignment)  # a missing or damaged file is found here, before any worker starts
    check_writable(home, "--out" if chosen.out else "--root")
    settings = alignment.settings | estimator.settings | {"baseline_decimals": chosen.baseline_decimals}
    if chosen.redo and different_settings(settings, settings_file) != {}:  # other or unknown settings
        for path in (*outputs.values(), settings_file):  # no old file may count as done with the new settings
            path.unlink(missing_ok=True)
    keep_settings(settings, settings_file, "Use the same settings, another folder, or --redo.")
    if not todo:
        return None
    print(f"Landmarks by {alignment.landmarks}; {name}.")
    return process_and_report(todo, alignment, estimator, chosen.workers)


def choose_estimator(chosen: argparse.Namespace, folders: Folders) -> tuple[Estimator, str]:
    """The estimator that was chosen, else the paper's if there is an AU model, else blendshapes; and how to name it.

    Raises
    ------
    FergiError
        If its file is missing or unusable; if there is neither file, with the commands that fetch them.
    """
    checkpoint = chosen.checkpoint or AU_MODEL.under(folders.root)
    task = FACE_LANDMARKER.under(folders.root)
    name = chosen.estimator or ("fergi" if chosen.checkpoint or checkpoint.is_file() else "blendshapes")
    if name == "fergi":
        device = choose_device(chosen.device)
        runtime = fastest_runtime(device, chosen.precision) if chosen.runtime == "auto" else chosen.runtime
        estimator = AUEstimator(
            checkpoint,
            chosen.network,
            device,
            chosen.precision,
            runtime=runtime,
            threads=chosen.workers,
            converted_networks=folders.converted_networks,
        )
        return estimator, f"{chosen.network} from {checkpoint} on {device}, {chosen.precision}, {runtime}"
    if chosen.estimator is None and not task.is_file():
        raise FergiError(
            f"There is nothing to estimate AUs with: neither {checkpoint} nor {task} exists. Fetch MediaPipe's "
            "blendshapes with: python -m fergi.weights fetch face-landmarker, or the paper's AU model with: "
            "python -m fergi.weights fetch own-recordings (with the same --root), or train that one (stages 1 to 3)."
        )
    estimator = Blendshapes(task)
    if chosen.estimator is None:
        print(f"There is no {checkpoint}, so MediaPipe's blendshapes estimate the AUs (docs/estimators.md).")
    return estimator, f"blendshapes from {task}"


def process_and_report(
    jobs: Sequence[ClipJob], alignment: AlignmentSettings, estimator: Estimator, workers: int
) -> FergiError | None:
    """Process clips with a progress bar, and print what became of them."""
    started, n_frames = time.monotonic(), 0
    form = "{l_bar}{bar}| {n:.1f}/{total} [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=len(jobs), desc="clips", bar_format=form, disable=None) as bar:

        def progress(frames: int, clips: float) -> None:
            nonlocal n_frames
            n_frames += frames
            bar.set_postfix_str(f"{n_frames / (time.monotonic() - started):.1f} frames/s", refresh=False)
            bar.update(min(clips, bar.total - bar.n))  # parts may add up to a little more

        report = process_clips(jobs, alignment, estimator, workers=workers, progress=progress)
    seconds = time.monotonic() - started
    print(f"Wrote {report.n_clips} feature files, {report.n_frames} frames, {report.n_frames / seconds:.1f} frames/s.")
    if report.without_face:
        print(f"{len(report.without_face)} of them have no face in any frame (first: {report.without_face[0]}).")
    if not report.failures:
        return None
    print("".join(f"  {failure}\n" for failure in report.failures), end="")
    return FergiError(
        f"{len(report.failures)} of {len(jobs)} videos have no feature file (first: {report.failures[0]}). "
        "Replace or remove them and run again; the others are done."
    )


def make_previews(folder: Path, home: Path, alignment: AlignmentSettings, jobs: Sequence[ClipJob], note: str) -> None:
    """Draw the picture of every clip that has features and none that is newer than they are."""
    from fergi.preview import write_preview  # its imports take a second that the workers need not wait

    pictures = {
        folder / job.output.relative_to(home).with_name(f"{job.output.name.removesuffix('_features.csv')}.png"): job
        for job in jobs
        if job.output.is_file()
    }
    todo = {
        path: job
        for path, job in pictures.items()
        if not path.is_file() or path.stat().st_mtime < job.output.stat().st_mtime
    }
    aligner = FaceAligner(alignment)
    for path, job in tqdm(todo.items(), desc="pictures", disable=None):
        write_preview(path, job.video, job.output, aligner, limits=config.FRAME_LIMITS, note=note)
    print(f"Wrote {len(todo)} pictures into {folder}; {len(pictures) - len(todo)} were there already.")


if __name__ == "__main__":
    run(main)
