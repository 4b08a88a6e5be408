"""Train the AU model on DISFA and DISFA+ (Section 4, Appendix B.3).

IR-50, pre-trained to recognise people, learns twelve AUs by regression and by thresholds at once (eqs. 11–17).

Reads   preparation/DISFA_faces/, preparation/DISFAPlus_faces/
        pretrained_models/glint360k_cosface_r50_fp16_0.1.pth (unless --from-scratch)
Writes  AU_models/checkpoint_epoch<n>.pth      weights after each epoch, under the released names
        AU_models/training.json                settings and data
        AU_models/training_log.csv, tensorboard/   loss, ICC(3,1), MSE and MAE of each AU after each epoch
        AU_models/last_training_state.pth      to go on from after an interruption: just run the same again
Run     python DISFAwithPlus_train_model.py
        python DISFAwithPlus_train_model.py --held-out SN001 SN002 SN003      (an honest evaluation beside it)
        torchrun --nproc-per-node 4 DISFAwithPlus_train_model.py              (four GPUs, the same effective batch)
        python DISFAwithPlus_train_model.py --network ir18-thin --from-scratch --rate 1e-3 --last-layer-rate 1e-3
                                                                              (a first try on a CPU)
Takes   about 13 s a step of 64 pictures with IR-50 on two CPU cores, so days for both data sets: use a GPU.
        benchmarks/training.py measures images per second on yours.

The paper trains on all frames of both data sets, so the log's "training" rows are of frames that the network learns
from, taken while it learns. Subjects named with --held-out are left out of both data sets (DISFA+ films people who are
in DISFA too) and evaluated after each epoch.

With torchrun every process takes its share of each batch of 64. Batch statistics are those of the whole batch and the
order and augmentation of pictures do not depend on the number of processes or workers, so the result is that of one
process but for rounding. Several machines need the same --root, on a disk that they share.
"""

import argparse
import os
from collections.abc import Sequence

import config
from fergi.action_units.faces_dataset import SCRIPTS, Augmentation, joined, read_faces, split_by_subject
from fergi.action_units.network import NETWORKS, PRETRAINED_HEAD, random_network
from fergi.action_units.training import PRECISIONS, Training, TrainingSettings, choose_precision, explained
from fergi.dataset import Folders
from fergi.files import FergiError, check_writable, sha256
from fergi.processes import choose_device, joined_process
from fergi.script import RELEASE_MODES, add_device_argument, argument_parser, run
from fergi.weights import GLINT360K_IR50, load_strictly


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    add_device_argument(parser)
    parser.add_argument(
        "--mode",
        choices=RELEASE_MODES,
        default="paper",
        help="weights of the squared error (eq. 16): as printed, or as released (default: %(default)s)",
    )
    parser.add_argument(
        "--datasets", nargs="+", choices=tuple(SCRIPTS), default=list(SCRIPTS), help="train on these (default: both)"
    )
    parser.add_argument(
        "--held-out", nargs="+", default=[], metavar="SUBJECT", help="do not train on them but evaluate"
    )
    parser.add_argument("--network", choices=tuple(NETWORKS), default="ir50", help="default: %(default)s, the paper's")
    parser.add_argument("--from-scratch", action="store_true", help="start from random weights")
    parser.add_argument("--restart", action="store_true", help="delete an earlier training's files and begin anew")
    numbers = (
        ("--epochs", int, 1, config.AU_EPOCHS, "passes over the data"),
        ("--batch-size", int, 1, config.AU_BATCH_SIZE, "pictures of a step, all processes together"),
        ("--seed", int, 0, config.AU_SEED, "of new weights, order and augmentation"),
        ("--last-layer-rate", float, 0, config.AU_LAST_LAYER_RATE, "learning rate of the last layer"),
        ("--rate", float, 0, config.AU_RATE, "learning rate of all other layers"),
        ("--weight-decay", float, 0, config.AU_WEIGHT_DECAY, "factor of the weights in the gradient"),
        ("--state-every", int, 1, 1000, "steps from one saved state to the next"),
        ("--workers", int, 0, None, "processes that read pictures (default: up to 8 for CUDA, 0 for a CPU)"),
    )
    for name, kind, smallest, default, what in numbers:
        shown = what if default is None else f"{what} (default: %(default)s)"
        parser.add_argument(name, type=_at_least(kind, smallest), default=default, metavar="N", help=shown)
    parser.add_argument("--no-augmentation", action="store_true", help="take every picture as it is")
    parser.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        default="auto",
        help="of the convolutions; auto: bfloat16 or float16 where CUDA is fast with it, else float32, which is exact",
    )
    return parser


def _at_least(kind: type, smallest: float):
    """A converter of argparse that takes numbers from ``smallest`` on."""

    def convert(text: str):
        value = kind(text)
        if not value >= smallest:
            raise argparse.ArgumentTypeError(f"{text} is below {smallest}")
        return value

    convert.__name__ = "number"
    return convert


def main(arguments: Sequence[str] | None = None) -> None:
    """Check everything that is needed, then train."""
    chosen = _parser().parse_args(arguments)
    device = choose_device(chosen.device)
    folder = Folders(chosen.root).au_models
    check_writable(folder)
    pretrained = None
    if not chosen.from_scratch:
        if chosen.network != "ir50":
            raise FergiError(
                f"{GLINT360K_IR50.path} is for ir50, not for {chosen.network}. Pass --from-scratch for random weights."
            )
        pretrained = GLINT360K_IR50.read(chosen.root)
    datasets = list(dict.fromkeys(chosen.datasets))
    parts = [read_faces(chosen.root, dataset) for dataset in datasets]
    faces, held_out = split_by_subject(joined([part for part, _, _ in parts]), chosen.held_out)
    if not (faces.labels >= 0).any():
        raise FergiError(f"None of the {len(faces)} training pictures has a label. Run stages 1 and 2 with the labels.")

    network = random_network(chosen.network, chosen.seed)
    start = "random"
    if pretrained is not None:
        source = GLINT360K_IR50.under(chosen.root)
        load_strictly(network, pretrained, source=source, except_for=PRETRAINED_HEAD)
        start = f"{source.name}, SHA-256 {sha256(source)}"
    settings = TrainingSettings(
        mode=chosen.mode,
        network=chosen.network,
        start=start,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        seed=chosen.seed,
        last_layer_rate=chosen.last_layer_rate,
        rate=chosen.rate,
        weight_decay=chosen.weight_decay,
        augmentation=None if chosen.no_augmentation else Augmentation(config.AU_CROP_SCALE, config.AU_CROP_RATIO),
        precision=choose_precision(chosen.precision, device),
    )
    with joined_process(device) as process, explained():
        workers = chosen.workers
        if workers is None:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            workers = min(8, (os.cpu_count() or 1) // here) if device.type == "cuda" else 0
        training = Training(
            network,
            faces,
            held_out,
            settings,
            face_settings={dataset: made for dataset, (_, made, _) in zip(datasets, parts, strict=True)},
            folder=folder,
            process=process,
            workers=workers,
            state_every=chosen.state_every,
        )
        training.resume(chosen.restart)
        n_before = training.epochs_done
        if process.leads and n_before >= chosen.epochs:
            print(f"Nothing is left to do: {n_before} epochs were done before.")
        elif process.leads:
            for (part, _, n_ignored), dataset in zip(parts, datasets, strict=True):
                note = f", {n_ignored} labels that are no intensity count as missing" if n_ignored else ""
                print(f"{dataset}: {len(part)} pictures of {len(set(part.subjects.tolist()))} subjects{note}.")
            print(
                f"Training {chosen.network} ({start}) on {len(faces)} pictures, {len(held_out)} held out; "
                f"{process.device}, {settings.precision}, processes: {process.world_size}, workers of each: {workers}."
            )
            if training.epochs_done or training.steps_done:
                print(f"Going on after {training.epochs_done} epochs and {training.steps_done} steps.", flush=True)
        training.run()
        if process.leads and training.epochs_done > n_before:
            print(f"Wrote {training.checkpoint_path(training.epochs_done)}.")


if __name__ == "__main__":
    run(main)
