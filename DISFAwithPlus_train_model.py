"""Train the AU model on DISFA and DISFA+ (Section 4, Appendix B.3).

IR-50, pre-trained to recognise people, learns twelve AUs by regression and by thresholds at once (eqs. 11–17).

Reads   preparation/DISFA_faces/, preparation/DISFAPlus_faces/, and the folders named with --more
        pretrained_models/glint360k_cosface_r50_fp16_0.1.pth (unless --from-scratch)
Writes  AU_models/checkpoint_epoch<n>.pth      weights after each epoch, under the released names
        AU_models/settings.json                settings and data
        AU_models/training_log.csv, tensorboard/   loss, ICC(3,1), MSE and MAE of each AU after each epoch
        AU_models/last_training_state.pth      to resume an interrupted training: run the same command again
Run     python DISFAwithPlus_train_model.py
        python DISFAwithPlus_train_model.py --held-out SN001 SN002 SN003      (an honest evaluation beside it)
        torchrun --nproc-per-node 4 DISFAwithPlus_train_model.py              (four GPUs, the same effective batch)
        python DISFAwithPlus_train_model.py --network ir18-thin --from-scratch --rate 1e-3 --last-layer-rate 1e-3
                                                                              (a first try on a CPU)
        python DISFAwithPlus_train_model.py --held-out SN001 SN002 SN003 --more synthesised/
                                                                              (on synthesised faces as well)
Takes   about 13 s a step of 64 pictures with IR-50 on two CPU cores, so days for both data sets: use a GPU.
        benchmarks/training.py measures pictures per second on yours.

The paper trains on all frames of both data sets, so the log's "training" rows are of frames that the network learns
from, taken while it learns. Subjects named with --held-out are held out of both data sets (DISFA+ films people who are
in DISFA too) and evaluated after each epoch.

--more FOLDER... trains on further folders of aligned faces as well, such as synthesise_faces.py writes. Their subjects
may not be those of DISFA and DISFA+, and synthesised people cannot be held out. settings.json says which folders.

With torchrun every process takes its share of each batch of 64, on a GPU of its own. Batch statistics are those of the
whole batch, and order and augmentation do not depend on the number of processes or workers, so the result is that of
one process but for rounding. Several machines need the same --root, on a disk that they share.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import config
from fergi.action_units.faces_dataset import SCRIPTS, alignment_difference, read_faces, split_by_subject
from fergi.action_units.network import NETWORKS, PRETRAINED_HEAD, IResNet, random_network
from fergi.action_units.training import TRAINING_PRECISIONS, Training, TrainingSettings, choose_precision, explained
from fergi.dataset import Folders
from fergi.files import FergiError, check_writable, sha256
from fergi.processes import choose_device, joined_process
from fergi.script import RELEASE_MODES, add_device_argument, argument_parser, run
from fergi.weights import GLINT360K_IR50, load_strictly


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    add_device_argument(parser)
    shown = "weights of the squared error (eq. 16): as printed, or as released (default: %(default)s)"
    parser.add_argument("--mode", choices=RELEASE_MODES, default="paper", help=shown)
    shown = "train on these (default: both)"
    parser.add_argument("--datasets", nargs="+", choices=tuple(SCRIPTS), default=list(SCRIPTS), help=shown)
    shown = "train on these folders of aligned faces (index.csv, settings.json, pictures) as well"
    parser.add_argument("--more", nargs="+", type=Path, default=[], metavar="FOLDER", help=shown)
    shown = "do not train on them but evaluate"
    parser.add_argument("--held-out", nargs="+", default=[], metavar="SUBJECT", help=shown)
    parser.add_argument("--network", choices=tuple(NETWORKS), default="ir50", help="default: %(default)s, the paper's")
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument("--restart", action="store_true", help="delete an earlier training's files and begin anew")
    for each in fields(TrainingSettings):
        if each.metadata:
            option, default = f"--{each.name.replace('_', '-')}", config.AU_TRAINING[each.name]
            number = _at_least(each.metadata["smallest"], each.type)
            shown = f"{each.metadata['what']} (default: %(default)s)"
            parser.add_argument(option, type=number, default=default, metavar="N", help=shown)
    shown = "steps from one saved state to the next (default: %(default)s)"
    parser.add_argument("--state-every", type=_at_least(1), default=1000, metavar="N", help=shown)
    shown = "processes that read pictures (default: up to 8 for CUDA, 0 for a CPU)"
    parser.add_argument("--workers", type=_at_least(0), metavar="N", help=shown)
    parser.add_argument("--no-augmentation", action="store_true", help="take every picture as it is")
    shown = "of the convolutions; auto: bfloat16 or float16 where CUDA is fast with it, else float32, which is exact"
    parser.add_argument("--precision", choices=("auto", *TRAINING_PRECISIONS), default="auto", help=shown)
    return parser


def _at_least(smallest: float, kind: type = int) -> Callable[[str], float]:
    """A converter of argparse that takes numbers from ``smallest`` on."""

    def number(text: str) -> float:
        value = kind(text)
        if not value >= smallest:
            raise argparse.ArgumentTypeError(f"{text} is below {smallest}")
        return value

    return number


def _first_weights(chosen: argparse.Namespace) -> tuple[IResNet, str]:
    """The network before training, and where its weights come from."""
    network = random_network(chosen.network, chosen.seed)
    if chosen.from_scratch:
        return network, "random"
    if chosen.network != "ir50":
        raise FergiError(
            f"{GLINT360K_IR50.path} is for ir50, not for {chosen.network}. Pass --from-scratch for random weights."
        )
    source = GLINT360K_IR50.under(chosen.root)
    load_strictly(network, GLINT360K_IR50.read(chosen.root), source=source, except_for=PRETRAINED_HEAD)
    return network, f"{source.name}, SHA-256 {sha256(source)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything that is needed, then train."""
    chosen = _parser().parse_args(arguments)
    device = choose_device(chosen.device)
    if device.type == "cpu" and os.environ.get("WORLD_SIZE", "1") != "1":
        raise FergiError("Several processes train on CUDA only. Start one without torchrun; it uses all cores.")
    folder = Folders(chosen.root).au_models
    check_writable(folder)
    network, start = _first_weights(chosen)
    everybody, face_settings, n_ignored = read_faces(chosen.root, *dict.fromkeys(chosen.datasets), more=chosen.more)
    faces, held_out = split_by_subject(everybody, chosen.held_out)
    if not (faces.labels >= 0).any():
        raise FergiError(f"None of the {len(faces)} training pictures has a label. Run stages 1 and 2 with the labels.")
    workers = chosen.workers
    if workers is None:
        cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        workers = min(8, cores) if device.type == "cuda" else 0
    options = TrainingSettings(
        mode=chosen.mode,
        network=chosen.network,
        start=start,
        crop=None if chosen.no_augmentation else config.AU_CROP,
        precision=choose_precision(chosen.precision, device),
        **{name: getattr(chosen, name) for name in config.AU_TRAINING},
    )
    with joined_process(device) as process, explained():
        more = {"folder": folder, "process": process, "workers": workers, "state_every": chosen.state_every}
        training = Training(network, faces, held_out, options, face_settings=face_settings, **more)
        training.resume(chosen.restart)
        n_before = training.epochs_done
        if process.leads and n_before >= chosen.epochs:
            print(f"Nothing is left to do: {n_before} epochs were done before.")
        elif process.leads:
            note = f", {n_ignored} labels that are no intensity count as missing" if n_ignored else ""
            print(f"{len(everybody)} pictures of {len(set(everybody.subjects.tolist()))} subjects{note}.")
            if chosen.more and (difference := alignment_difference(face_settings, everybody.datasets.tolist())):
                print(difference)
            print(
                f"Training {chosen.network} ({start}) on {len(faces)} pictures, {len(held_out)} held out; "
                f"{process.device}, {options.precision}, processes: {process.world_size}, workers of each: {workers}."
            )
            if training.epochs_done or training.steps_done:
                print(f"Resuming after {training.epochs_done} epochs and {training.steps_done} steps.", flush=True)
        training.run()
        if process.leads and training.epochs_done > n_before:
            print(f"Wrote {training.checkpoint_path(training.epochs_done)}.")


if __name__ == "__main__":
    run(main)
