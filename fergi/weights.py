"""Files of network weights: which there are, loading them safely and whole, and fetching them.

A file is read with the reader for plain weights of PyTorch or safetensors, which runs no code from it. A module takes
a state dict only if every entry has its place and its shape; the caller names what is deliberately not used.
This module never gives random weights; they have to be asked for by name.

Reads   pretrained_models/, AU_models/
Writes  pretrained_models/, only what is asked for
Run     python -m fergi.weights                      what is there, what is missing, how large
        python -m fergi.weights fetch clip hps-v2    resumes interrupted downloads from the model hub
        python -m fergi.weights check                the SHA-256 of what is there
Takes   fetching all the scorers: 13 GB.

Files placed by hand also work, without a network. The table needs no PyTorch: only loading imports it.
"""

import argparse
import http.client
import os
import shutil
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from fergi.files import FergiError, check_writable, replacing, require, sha256
from fergi.script import argument_parser, run

if TYPE_CHECKING:
    from torch import Tensor, nn

FETCH_AGAIN = "Fetch or copy it again."
HUB = "https://huggingface.co"
SAFETENSORS = ".safetensors"


@dataclass(frozen=True)
class WeightFile:
    """One file of weights that a stage needs."""

    name: str  # what ``python -m fergi.weights fetch`` calls it
    path: str  # under the root
    what: str  # is in it
    source: str  # who publishes it
    licence: str
    advice: str  # what to do if it is missing or not usable
    key: str | None = None  # entry of the file that holds the state dict, if that is not the whole file
    repository: str | None = None  # of the model hub, where the file has the same name
    revision: str | None = None  # of the repository
    url: str | None = None  # of a file that is not on the hub
    size: int | None = None  # bytes, about
    sha256: str | None = None  # of the published file, if we know it

    def under(self, root: Path) -> Path:
        """The file under one root."""
        return root / self.path

    def staging(self, root: Path) -> Path:
        """Folder of a download that has not finished."""
        return self.under(root).with_name(f".{Path(self.path).name}.fetching")

    def read(self, root: Path) -> "dict[str, Tensor]":
        """The state dict in it (see ``load_state``)."""
        return load_state(self.under(root), key=self.key, advice=self.advice)


def _on_hub(name: str, repository: str, revision: str, path: str, what: str, licence: str, **known: Any) -> WeightFile:
    """A file of a model hub's repository."""
    advice = f"Fetch it with: python -m fergi.weights fetch {name}"
    source = f"{HUB}/{repository}"
    return WeightFile(name, path, what, source, licence, advice, repository=repository, revision=revision, **known)


GLINT360K_IR50 = WeightFile(
    name="glint360k",
    path="pretrained_models/glint360k_cosface_r50_fp16_0.1.pth",
    what="IR-50 trained to tell people apart (Glint360K, CosFace): where the AU model starts from (Appendix B.3)",
    source="model zoo of arcface_torch, https://github.com/deepinsight/insightface",
    licence="weights for non-commercial research only, as InsightFace states",
    advice="Put the file from the InsightFace arcface_torch model zoo there, "
    "or ask for random weights with --from-scratch.",
)
MOBILEFACENET = WeightFile(
    name="mobilefacenet",
    path="pretrained_models/mobilefacenet_model_best.pth.tar",
    what="MobileFaceNet for 68 facial landmarks (Appendix B.2)",
    source="https://github.com/cunjian/pytorch_face_landmark",
    licence="see its repository",
    advice="Put the file from pytorch_face_landmark there, or use the facemesh landmarks, which need no download.",
    key="state_dict",
)
AU_MODEL = WeightFile(
    name="au-model",
    path="AU_models/checkpoint_epoch3.pth",
    what="the AU model: IR-50 with 64 intensities and 64 x 5 thresholds",
    source="made by DISFAwithPlus_train_model.py",
    licence="that of the data it was trained with",
    advice="Run DISFAwithPlus_train_model.py first.",
)
FACE_LANDMARKER = WeightFile(
    name="face-landmarker",
    path="pretrained_models/face_landmarker.task",
    what="MediaPipe's FaceLandmarker: 478 landmarks and 52 blendshapes",
    source="https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker",
    licence="Apache-2.0",
    advice="Fetch it with: python -m fergi.weights fetch face-landmarker",
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    size=3_758_596,
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
)
CLIP_L = _on_hub(
    "clip",
    "openai/clip-vit-large-patch14",
    "32bd64288804d66eefd0ccbe215aa642df71cc41",
    path="pretrained_models/clip-vit-large-patch14/model.safetensors",
    what="CLIP ViT-L/14: CLIP score, and the embeddings of the Aesthetic score (Section 6.2.3)",
    licence="MIT",
    size=1_710_540_580,
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
)
AESTHETIC_HEAD = WeightFile(
    name="aesthetic",
    path="pretrained_models/sac+logos+ava1-l14-linearMSE.pth",
    what="head of LAION's improved aesthetic predictor (Section 6.2.3)",
    source="https://github.com/christophschuhmann/improved-aesthetic-predictor",
    licence="Apache-2.0",
    advice="Fetch it with: python -m fergi.weights fetch aesthetic",
    url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/"
    "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    size=3_714_759,
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
)
BLIP_LARGE = WeightFile(
    name="blip",
    path="pretrained_models/model_large.pth",
    what="BLIP (large), pretrained: BLIP score (Section 6.2.3)",
    source="https://github.com/salesforce/BLIP",
    licence="BSD-3-Clause",
    advice="Fetch it with: python -m fergi.weights fetch blip",
    key="model",
    url="https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/model_large.pth",
)
IMAGE_REWARD = _on_hub(
    "image-reward",
    "THUDM/ImageReward",
    "5736be03b2652728fb87788c9797b0570450ab72",
    path="pretrained_models/ImageReward.pt",
    what="ImageReward-v1.0 (Section 6.2.3)",
    licence="Apache-2.0",
    size=1_790_000_000,
)
PICK_SCORE = _on_hub(
    "pick-score",
    "yuvalkirstain/PickScore_v1",
    "a4e4367c6dfa7288a00c550414478f865b875800",
    path="pretrained_models/PickScore_v1/model.safetensors",
    what="PickScore, a CLIP ViT-H/14 (Section 6.2.3)",
    licence="see its model card",
    size=3_940_000_000,
)
HPS_V2 = _on_hub(
    "hps-v2",
    "xswu/HPSv2",
    "697403c78157020a1ae59d23f111aa58ced35b0a",
    path="pretrained_models/HPS_v2_compressed.pt",
    what="HPS v2.0, a CLIP ViT-H/14 (Section 6.2.3)",
    licence="Apache-2.0",
    key="state_dict",
    size=1_970_000_000,
)
HPS_V2_1 = _on_hub(
    "hps-v2.1",
    "xswu/HPSv2",
    "697403c78157020a1ae59d23f111aa58ced35b0a",
    path="pretrained_models/HPS_v2.1_compressed.pt",
    what="HPS v2.1, which the paper does not use",
    licence="Apache-2.0",
    key="state_dict",
    size=1_970_000_000,
    sha256="c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
)
BERT_VOCABULARY = _on_hub(
    "bert-vocabulary",
    "google-bert/bert-base-uncased",
    "86b5e0934494bd15c9632b12f734a8a67f723594",
    path="pretrained_models/bert-base-uncased/vocab.txt",
    what="vocabulary of BERT, in which BLIP and ImageReward read prompts",
    licence="Apache-2.0",
    size=231_508,
    sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)
SCORER_FILES = (CLIP_L, AESTHETIC_HEAD, BLIP_LARGE, IMAGE_REWARD, PICK_SCORE, HPS_V2, HPS_V2_1, BERT_VOCABULARY)
WEIGHT_FILES = (GLINT360K_IR50, MOBILEFACENET, AU_MODEL, FACE_LANDMARKER, *SCORER_FILES)


def read_weights_file(path: Path, advice: str = FETCH_AGAIN) -> Any:
    """The content of a file of tensors and plain values, on the CPU.

    Raises
    ------
    FergiError
        If the file is missing, cut off, or holds anything but tensors and plain values.
    """
    require([path], "weight file", advice)
    if path.suffix == SAFETENSORS:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise FergiError(f"{path} cannot be read: it is cut off or not a safetensors file. {advice}") from error
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise FergiError(f"{path} is not a file of plain PyTorch weights. {advice}") from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FergiError(f"{path} cannot be read: it is cut off or not a PyTorch file. {advice}") from error


def load_state(path: Path, *, key: str | None = None, advice: str = FETCH_AGAIN) -> "dict[str, Tensor]":
    """The state dict in a file that ``torch.save`` wrote, or safetensors: name → tensor, on the CPU.

    A ``module.`` in front of every name, which parallel training leaves, is taken off.

    ``key`` names the file's entry that holds the state dict; without it the file is the state dict. ``advice`` says
    what to do if the file is not usable, and ends every error.

    Raises
    ------
    FergiError
        If the file is missing, cut off, not of PyTorch, or not a state dict.
    """
    from torch import Tensor

    content = read_weights_file(path, advice)
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            raise FergiError(f"{path} has no entry {key!r}, where its weights should be. {advice}")
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise FergiError(f"{path} holds a {type(content).__name__}, not a state dict. {advice}")
    wrong = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if wrong:
        raise FergiError(
            f"{path} is not a state dict: {len(wrong)} of its {len(content)} entries are not tensors "
            f"(first: {wrong[0]!r}). {advice}"
        )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)


def load_strictly(
    module: "nn.Module", state: "Mapping[str, Tensor]", *, source: Path | str, except_for: Sequence[str] = ()
) -> None:
    """Put a state dict into a module, all of it or nothing; ``source`` says in errors where it came from.

    ``except_for`` has beginnings of names that are ignored on both sides: such entries of ``state`` are not used, and
    such entries of ``module`` stay as they are.

    Raises
    ------
    FergiError
        Counting the missing, unexpected, wrongly shaped and not finite entries, and those that are whole numbers in
        place of floats or the other way round, and naming the first. (Floats of any precision are floats.)
    ValueError
        If ``except_for`` is given and names nothing on either side.
    """

    def ignored(name: str) -> bool:
        return name.startswith(tuple(except_for))

    own = module.state_dict()
    if except_for and not any(map(ignored, [*own, *state])):
        raise ValueError(f"nothing is named {' or '.join(except_for)} in the module or in {source}")
    wanted = {name: value for name, value in own.items() if not ignored(name)}
    given = {name: value for name, value in state.items() if not ignored(name)}
    pairs = {name: (given[name], wanted[name]) for name in wanted if name in given}
    found = {
        "missing": [name for name in wanted if name not in given],
        "not known": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name}, {tuple(new.shape)} instead of {tuple(old.shape)}"
            for name, (new, old) in pairs.items()
            if new.shape != old.shape
        ],
        "of another kind": [
            f"{name}, {new.dtype} instead of {old.dtype}"
            for name, (new, old) in pairs.items()
            if new.is_floating_point() != old.is_floating_point()
        ],
        "not finite": [name for name, value in given.items() if not value.isfinite().all()],
    }
    problems = [f"{len(names)} {what} (first: {names[0]})" for what, names in found.items() if names]
    if problems:
        raise FergiError(
            f"{source} does not fit {type(module).__name__} with its {len(wanted)} entries: {'; '.join(problems)}. "
            "It was made for another network or is damaged; use the file that belongs to this one."
        )
    module.load_state_dict({**own, **given})


def save_weights(content: Any, path: Path) -> None:
    """Write tensors and plain values with ``torch.save``, all or nothing.

    Raises
    ------
    FergiError
        If it cannot be written or the disk is full; ``path`` is then as it was before.
    """
    import torch

    try:
        with replacing(path) as file:
            torch.save(content, file)
    except RuntimeError as error:  # PyTorch's writer hides the operating system's error in one of its own
        raise FergiError(f"Cannot write {path}: the disk may be full. Make room or choose another --root.") from error


def fetch(file: WeightFile, root: Path, *, hub: str = HUB) -> str:
    """Fetch one file to its place below ``root`` and give its SHA-256.

    From the model hub, whose address is ``hub``, an interrupted download is resumed.

    Raises
    ------
    FergiError
        If there is no address, no connection or no room, or the content is not the published one.
    """
    path, staging = file.under(root), file.staging(root)
    address = f"{hub.rstrip('/')}/{file.repository}" if file.repository else file.url
    if address is None:
        raise FergiError(f"{path.name} cannot be fetched from here. {file.advice}")
    check_writable(staging)
    again = f"Run the same command again, or put the file from {file.source} there by hand."
    fetched = staging / path.name
    try:
        if file.repository:
            os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
            from huggingface_hub import hf_hub_download, logging

            logging.set_verbosity_error()  # what goes wrong is said below
            hf_hub_download(file.repository, path.name, revision=file.revision, local_dir=staging, endpoint=hub)
        else:
            _download(address, fetched)
    except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
        if not any(staging.rglob("*.incomplete")):  # with one of these the hub's library resumes
            shutil.rmtree(staging)
        reason: BaseException = error
        while cause := reason.__cause__ or reason.__context__:  # libraries wrap what happened up to four times
            reason = cause
        raise FergiError(f"{path.name} could not be fetched from {address}: {reason}. {again}") from error
    found = sha256(fetched)
    if file.sha256 in (None, found):
        os.replace(fetched, path)
    shutil.rmtree(staging)
    if file.sha256 not in (None, found):
        raise FergiError(
            f"{path.name} from {address} has the SHA-256 {found}, not {file.sha256}; nothing was kept. {again}"
        )
    return found


def _download(url: str, path: Path) -> None:
    """Fetch a file that is not on the hub; OSError if it is cut off (``torch.hub`` would take it for whole)."""
    from tqdm import tqdm

    with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as output:
        length = int(answer.headers.get("Content-Length") or 0)
        with tqdm.wrapattr(output, "write", total=length, desc=path.name, disable=None) as counted:
            shutil.copyfileobj(answer, counted)
    if path.stat().st_size < length:
        raise OSError(f"cut off at {path.stat().st_size} of {length} bytes")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _inventory(root: Path, *, check: bool) -> str:
    """A table of all files: name, whether it is there, size, licence, path."""
    rows = [("name", "state", "size", "licence", "path")]
    for file in WEIGHT_FILES:
        path = file.under(root)
        size = path.stat().st_size if path.is_file() else file.size
        state = "there" if path.is_file() else "begun" if file.staging(root).is_dir() else "missing"
        if check and path.is_file():
            found = sha256(path)
            state = f"SHA-256 {found}"
            if file.sha256 is not None:
                state += ", as published" if found == file.sha256 else ", not the published file"
        rows.append((file.name, state, _gigabytes(size) if size else "?", file.licence, file.path))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("what", nargs="?", choices=("list", "fetch", "check"), default="list", help="default: list")
    names = [file.name for file in WEIGHT_FILES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"files to fetch: {', '.join(names)}, or all")
    hub = os.environ.get("HF_ENDPOINT") or HUB
    parser.add_argument("--hub", default=hub, metavar="URL", help="the model hub (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in (*names, "all")]
    if unknown:
        parser.error(f"there is no file {unknown[0]}; there are {', '.join(names)}, and all for every scorer's")
    if bool(chosen.names) != (chosen.what == "fetch"):
        parser.error("name files to fetch, with fetch and only there")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """List the files, check them, or fetch some."""
    chosen = _parse(arguments)
    if chosen.what != "fetch":
        print(_inventory(chosen.root, check=chosen.what == "check"))
        return
    wanted = [
        file for file in WEIGHT_FILES if file.name in chosen.names or ("all" in chosen.names and file in SCORER_FILES)
    ]
    for file in wanted:
        if file.under(chosen.root).is_file():
            print(f"{file.path} is there already.")
            continue
        print(f"Fetching {file.path} from {file.source}.", flush=True)
        found = fetch(file, chosen.root, hub=chosen.hub)
        known = "as published" if file.sha256 else "of which we do not know the published one"
        print(f"Wrote {file.path}, SHA-256 {found}, {known}; licence: {file.licence}.")


if __name__ == "__main__":
    run(main)
