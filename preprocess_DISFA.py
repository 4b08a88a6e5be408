"""Aligned faces of DISFA, for training the AU model (Sections 4 and B.1–B.2).

Both cameras by default, as the release does; the paper does not say. Extracted frames are used where there are any,
else the videos as they are delivered.

Reads   ../FER_datasets/DISFA: Images_LeftCamera/, Images_RightCamera/ or Videos_LeftCamera/, Videos_RightCamera/,
        and ActionUnit_Labels/
        pretrained_models/mobilefacenet_model_best.pth.tar, blaze_face_short_range.tflite (see --landmarks)
Writes  preparation/DISFA_faces/: pictures, index.csv, no_face.csv, settings.json
Run     python preprocess_DISFA.py --disfa DIR
        python preprocess_DISFA.py --disfa synthesised --cameras Left --out preparation/synthesised_faces
                                                        (other faces in DISFA's layout, for stage 3's --more)
Takes   about 15 ms a frame and core: half an hour for 261,630 frames on two cores; no GPU.

An interrupted run resumes with the parts that are not finished. A part is done again if one of its frames or its video
was replaced, or an aligned face is gone.
"""

from collections.abc import Sequence
from pathlib import Path

from fergi.action_units.aligned_faces import align_dataset
from fergi.action_units.disfa import CAMERAS, read_disfa
from fergi.script import CHECKOUT, argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the data set as a whole, then align its faces."""
    parser = argument_parser(__doc__)
    default = CHECKOUT.parent / "FER_datasets" / "DISFA"
    parser.add_argument("--disfa", type=Path, default=default, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--cameras", nargs="+", choices=CAMERAS, default=CAMERAS, help="default: both")
    align_dataset("DISFA", parser, lambda chosen: read_disfa(chosen.disfa, chosen.cameras), arguments)


if __name__ == "__main__":
    run(main)
