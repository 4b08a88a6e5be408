"""Aligned faces of DISFA, for training the AU model (Sections 4 and B.1–B.2).

Both cameras by default, as the release does; the paper does not say. Extracted frames are used where there are any,
else the videos as they are delivered.

Reads   ../FER_datasets/DISFA: Images_LeftCamera/, Images_RightCamera/ or Videos_LeftCamera/, Videos_RightCamera/,
        and ActionUnit_Labels/
        pretrained_models/mobilefacenet_model_best.pth.tar, blaze_face_short_range.tflite (see --landmarks)
Writes  preparation/DISFA_faces/: pictures, index.csv, no_face.csv, settings.json
Run     python preprocess_DISFA.py --disfa DIR
Takes   about 15 ms a frame and core: half an hour for 261,630 frames on two cores; no GPU.

An interrupted run goes on with the parts that are not finished; parts of which a frame or the video was replaced, or an
aligned face is gone, are done again.
"""

from collections.abc import Sequence
from pathlib import Path

from fergi.action_units.aligned_faces import align_dataset
from fergi.action_units.disfa import CAMERAS, read_disfa
from fergi.dataset import Folders
from fergi.faces.pipeline import add_alignment_arguments, alignment_settings
from fergi.script import CHECKOUT, add_workers_argument, argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the data set as a whole, then align its faces."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--disfa",
        type=Path,
        default=CHECKOUT.parent / "FER_datasets" / "DISFA",
        metavar="DIR",
        help="default: %(default)s",
    )
    parser.add_argument("--cameras", nargs="+", choices=CAMERAS, default=CAMERAS, help="default: both")
    add_workers_argument(parser, "processes")
    add_alignment_arguments(parser)
    chosen = parser.parse_args(arguments)
    parts = read_disfa(chosen.disfa, chosen.cameras)
    folders = Folders(chosen.root)
    alignment = alignment_settings(folders.pretrained_models, chosen.landmarks, chosen.luma)
    output = folders.aligned_faces("DISFA")
    print(f"{sum(len(part.names) for part in parts)} frames of {len({part.subject for part in parts})} subjects.")
    print(f"Landmarks by {alignment.landmarks}.")
    print(align_dataset("DISFA", parts, output, alignment, workers=chosen.workers).text())
    print(f"Wrote {output / 'index.csv'}.")


if __name__ == "__main__":
    run(main)
