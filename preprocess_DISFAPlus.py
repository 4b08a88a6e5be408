"""Aligned faces of DISFA+, for training the AU model (Sections 4 and B.1–B.2).

Reads   ../FER_datasets/DISFAPlus: Images/ and Labels/
        pretrained_models/mobilefacenet_model_best.pth.tar, blaze_face_short_range.tflite (see --landmarks)
Writes  preparation/DISFAPlus_faces/: pictures, index.csv, no_face.csv, settings.json
Run     python preprocess_DISFAPlus.py --disfa-plus DIR
Takes   about 15 ms a frame and core; no GPU.

An interrupted run resumes with the trials that are not finished. A trial is done again if one of its frames was
replaced, or an aligned face is gone.
"""

from collections.abc import Sequence
from pathlib import Path

from fergi.action_units.aligned_faces import align_dataset
from fergi.action_units.disfa import read_disfa_plus
from fergi.script import CHECKOUT, argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the data set as a whole, then align its faces."""
    parser = argument_parser(__doc__)
    default = CHECKOUT.parent / "FER_datasets" / "DISFAPlus"
    parser.add_argument("--disfa-plus", type=Path, default=default, metavar="DIR", help="default: %(default)s")
    align_dataset("DISFAPlus", parser, lambda chosen: read_disfa_plus(chosen.disfa_plus), arguments)


if __name__ == "__main__":
    run(main)
