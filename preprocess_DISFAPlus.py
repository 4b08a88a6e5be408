"""Aligned faces of DISFA+, for training the AU model (Sections 4 and B.1–B.2).

Reads   ../FER_datasets/DISFAPlus: Images/ and Labels/
        pretrained_models/mobilefacenet_model_best.pth.tar, blaze_face_short_range.tflite (see --landmarks)
Writes  preparation/DISFAPlus_faces/: pictures, index.csv, no_face.csv, settings.json
Run     python preprocess_DISFAPlus.py --disfa-plus DIR
Takes   about 15 ms a frame and core; no GPU.

An interrupted run goes on with the trials that are not finished; trials of which a frame was replaced, or an aligned
face is gone, are done again.
"""

from collections.abc import Sequence
from pathlib import Path

from fergi.action_units.aligned_faces import align_dataset
from fergi.action_units.disfa import read_disfa_plus
from fergi.dataset import Folders
from fergi.faces.pipeline import add_alignment_arguments, alignment_settings
from fergi.script import CHECKOUT, add_workers_argument, argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the data set as a whole, then align its faces."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--disfa-plus",
        type=Path,
        default=CHECKOUT.parent / "FER_datasets" / "DISFAPlus",
        metavar="DIR",
        help="default: %(default)s",
    )
    add_workers_argument(parser, "processes")
    add_alignment_arguments(parser)
    chosen = parser.parse_args(arguments)
    parts = read_disfa_plus(chosen.disfa_plus)
    folders = Folders(chosen.root)
    alignment = alignment_settings(folders.pretrained_models, chosen.landmarks, chosen.luma)
    output = folders.aligned_faces("DISFAPlus")
    print(f"{sum(len(part.names) for part in parts)} frames of {len({part.subject for part in parts})} subjects.")
    print(f"Landmarks by {alignment.landmarks}.")
    print(align_dataset("DISFAPlus", parts, output, alignment, workers=chosen.workers).text())
    print(f"Wrote {output / 'index.csv'}.")


if __name__ == "__main__":
    run(main)
