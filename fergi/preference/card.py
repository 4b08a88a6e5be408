"""The data card of exported pairs: how they were annotated, how sure they are, their limits, consent."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

HEADER = """---
pretty_name: Preferences between generated images, read in faces
task_categories:
- text-to-image
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train.parquet
---
"""


def data_card(
    settings: Mapping[str, Any],
    fitted: Mapping[str, Any],
    counts: Mapping[str, int],
    expected: str,
    measured: pd.DataFrame | None,
) -> str:
    """A card in Markdown with the header that ``datasets`` reads.

    Parameters
    ----------
    settings : mapping
        Those of the annotation.
    fitted : mapping
        Those of the preference model.
    counts : mapping
        ``pairs``, ``people``, ``people_withheld``.
    expected : str
        The share of verdicts that is expected to be right, with its interval.
    measured : pandas.DataFrame or None
        ``held_out.calibration_table`` of the same valence model, where it was measured.
    """
    matched = settings["match_distribution"]
    joined = ", joined with scores of ImageReward, PickScore and HPS v2" if settings["with_scorers"] else ""
    versions = f"{settings['estimator']} ({str(settings['estimator_version'])[:12]})"
    parts = [
        HEADER,
        "# Preferences between generated images, read in faces\n",
        "Pairs of images that people looked at, and which of the two they probably preferred. Nobody was asked: the "
        "preference was read in their faces, by the method of FERGI (arXiv 2312.03187). Pairs: "
        f"{counts['pairs']}. Participants: {counts['people']}.\n",
        "## How it was annotated\n",
        f"- Action units: {versions}, from a webcam, in the seconds after an image appeared."
        + (
            " Their activation values were mapped by rank to the distribution that the model knows.\n"
            if matched
            else ""
        ),
        f"- Valence: the model `{settings['valence_model']}`{joined} (`{settings['model']}`, SHA-256 "
        f"{settings['model_sha256'][:12]}…).",
        f"- A pair is here if the probability of one of its images is at least {settings['minimum_probability']:.3f}; "
        "on all others the method abstained.",
        "- `preferred` is 0 or 1, `probability_0` the probability that the first image is preferred.\n",
        "## How sure it is\n",
        f"Expected to be right: {expected}. Probabilities were calibrated on {fitted['n_participants']} people who "
        f"ranked their images ({fitted['n_pairs']} pairs), each with a model fitted on the others.\n",
    ]
    if measured is not None:
        parts += ["Measured on such people, with probabilities that never saw them:\n", _calibration(measured)]
    parts += _limits(published=fitted["estimator_version"] == "published", matched=matched)
    parts += [
        "## Consent\n",
        "Only people who agreed to sharing are in it, or who were not asked, as in published data. Participants of "
        f"whom nothing is in it: {counts['people_withheld']}. There are no "
        "faces, videos, names or activation values in it; participants are numbered anew in every export. Who "
        "withdraws later must be taken out: export again, and replace this folder everywhere.",
    ]
    return "\n".join(parts) + "\n"


def _limits(*, published: bool, matched: bool) -> list[str]:
    """What users must know, as list items."""
    of_published = (
        "- The rankings of the calibration favour images that were shown earlier (59.8 % of pairs), most likely "
        "because of the ranking page. The models do not see the order."
    )
    of_matched = (
        "- The map by rank assumes that these people and images are about as moving as those of the calibration."
    )
    return [
        "\n## Known limits\n",
        "- Faces alone told about 60 % of all pairs of the published data, whatever the model was; only the surest "
        "pairs are better.",
        "- A few expressive people carry much of such data. Split by `participant`, never by row.",
        "- The probabilities hold for people, cameras and situations like those of the calibration.",
        *([of_published] if published else []),
        *([of_matched] if matched else []),
        "- A reaction can come from something other than the image. One label is a hint and not a judgement.\n",
    ]


def _calibration(measured: pd.DataFrame) -> str:
    """The table in Markdown."""
    lines = ["| probability | pairs | said, % | right, % |", "|---|---|---|---|"]
    for row in measured.itertuples():
        found = f"{row.found:.1f} [{row.lower:.1f}, {row.upper:.1f}]"
        lines.append(f"| {row.low:.2f}–{row.high:.2f} | {row.n_pairs} | {row.said:.1f} | {found} |")
    return "\n".join(lines)
