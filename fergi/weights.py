"""Files of network weights: which there are, loading them safely and whole, and fetching them.

A file is read with the reader for plain weights of PyTorch or safetensors, which runs no code from it. A module takes
a state dict only if every entry has its place and its shape; the caller names what is deliberately not used.
This module never gives random weights; they have to be asked for by name.

Reads   pretrained_models/, AU_models/
Writes  pretrained_models/, only what is asked for
Run     python -m fergi.weights                         what is there, what is missing, how large
        python -m fergi.weights fetch own-recordings    what stage 4 takes for videos of one's own: 0.2 GB
        python -m fergi.weights fetch clip hps-v2       interrupted downloads are resumed
        python -m fergi.weights check                   the SHA-256 of what is there
Takes   fetching all the scorers: 13 GB.

A file whose SHA-256 was not published gets a record beside it, <file>.fetched.json: ``check`` notices when the file
changes. Files placed by hand also work, without a network. The table needs no PyTorch: only loading imports it.
"""

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from fergi.files import FergiError, check_writable, read_json, replacing, require, sha256, summarise, write_json
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
    url: str | None = None  # of a file that is not on the hub; on Google Drive, of its page
    size: int | None = None  # bytes, about
    sha256: str | None = None  # of the published file, if we know it
    git_blob: str | None = None  # likewise: git's id of its content, where that is what we know
    network: str | None = None  # the layout that must fit (see ``fergi.action_units.network.NETWORKS``)
    cite: str | None = None  # what its users cite

    def under(self, root: Path) -> Path:
        """The file under one root."""
        return root / self.path

    def staging(self, root: Path) -> Path:
        """Folder of a download that has not finished."""
        return self.under(root).with_name(f".{Path(self.path).name}.fetching")

    def record(self, root: Path) -> Path:
        """What was fetched when and from where (JSON), if no sum of the file was published."""
        return self.under(root).with_name(f"{Path(self.path).name}.fetched.json")

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
    advice="With a browser, open https://1drv.ms/u/s!AswpsDO2toNKq0lWY69vN58GR6mw?e=p9Ov5d (the model zoo of "
    "InsightFace's arcface_torch), download backbone.pth from its folder glint360k_cosface_r50_fp16_0.1, and save it "
    "as pretrained_models/glint360k_cosface_r50_fp16_0.1.pth; or train from random weights with --from-scratch.",
)
MOBILEFACENET = WeightFile(
    name="mobilefacenet",
    path="pretrained_models/mobilefacenet_model_best.pth.tar",
    what="MobileFaceNet for 68 facial landmarks (Appendix B.2)",
    source="https://github.com/cunjian/pytorch_face_landmark",
    licence="its repository states none",
    advice="Fetch it with: python -m fergi.weights fetch mobilefacenet (and the same --root); "
    "or choose --landmarks facemesh, which needs no file.",
    key="state_dict",
    url="https://drive.google.com/file/d/1T8J73UTcB25BEJ_ObAJczCkyGKW5VaeY/view",
    git_blob="3f7d78be085b0dc33ec914bc1d70fc991ba04bfa",
)
AU_MODEL = WeightFile(
    name="au-model",
    path="AU_models/checkpoint_epoch3.pth",
    what="the authors' AU model: IR-50 with 64 intensities and 64 x 5 thresholds (Section 4)",
    source="https://github.com/ShuangquanFeng/FERGI",
    licence="research only: trained on DISFA and DISFA+",
    advice="Fetch the authors' model with: python -m fergi.weights fetch au-model (and the same --root); "
    "or train one with DISFAwithPlus_train_model.py.",
    url="https://drive.google.com/file/d/14Y5h-l6FurSdYBhhH4MaJo7VXsbIEhyC/view",
    size=161_700_000,
    network="ir50",
    cite="DISFA (Mavadati et al. 2013), DISFA+ (Mavadati et al. 2016) and FERGI (Feng et al. 2023)",
)
FACE_LANDMARKER = WeightFile(
    name="face-landmarker",
    path="pretrained_models/face_landmarker.task",
    what="MediaPipe's FaceLandmarker: 478 landmarks and 52 blendshapes",
    source="https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker",
    licence="Apache-2.0",
    advice="Fetch it with: python -m fergi.weights fetch face-landmarker (and the same --root).",
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
CYCLE_REWARD = WeightFile(
    name="cycle-reward",
    path="pretrained_models/CycleReward-Combo.pth",
    what="CycleReward (Combo), which the paper does not use",
    source="https://github.com/hjbahng/cyclereward",
    licence="MIT",
    advice="Fetch it with: python -m fergi.weights fetch cycle-reward",
    url="https://github.com/hjbahng/cyclereward/releases/download/v1.0.0/CycleReward-Combo.pth",
)
SOCIAL_REWARD = WeightFile(
    name="social-reward",
    path="pretrained_models/SocialReward.safetensors",
    what="Social Reward, a CLIP ViT-L/14, which the paper does not use",
    source="nobody: its authors published no weights",
    licence="no weights were published",
    advice="No weights were published: train them with finetune_scorer.py --scorer SocialReward, or put weights that "
    "you have there with python -m fergi.scorers.social_reward FILE.",
)
SCORER_FILES = (CLIP_L, AESTHETIC_HEAD, BLIP_LARGE, IMAGE_REWARD, PICK_SCORE, HPS_V2, HPS_V2_1, BERT_VOCABULARY)
# For videos of one's own: the estimator that is free for every use, and the paper's two networks.
OWN_RECORDINGS = (FACE_LANDMARKER, MOBILEFACENET, AU_MODEL)
WEIGHT_FILES = (GLINT360K_IR50, *OWN_RECORDINGS, *SCORER_FILES, CYCLE_REWARD, SOCIAL_REWARD)
GROUPS = {"own-recordings": OWN_RECORDINGS, "all": SCORER_FILES}


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
        if _is_web_page(path):
            raise FergiError(f"{path} is a web page, not a file of plain PyTorch weights. {advice}") from error
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
    """Fetch one file to its place below ``root`` and give its SHA-256; an interrupted download is resumed.

    ``hub`` is the address of the model hub.

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
    except (OSError, RuntimeError, ValueError) as error:
        if not any(part.suffix in (".incomplete", ".part") for part in staging.rglob("*")):  # nothing to resume
            shutil.rmtree(staging)
        reason: BaseException = error
        while cause := reason.__cause__ or (None if reason.__suppress_context__ else reason.__context__):
            reason = cause  # libraries wrap what happened up to four times
        raise FergiError(f"{path.name} could not be fetched from {address}: {reason}. {again}") from error
    found = sha256(fetched)
    problem = _not_published(file, fetched, found)
    if problem is None:
        if file.sha256 is None and file.git_blob is None:
            fetched_on = datetime.now(UTC).isoformat(timespec="seconds")
            size = fetched.stat().st_size
            write_json({"sha256": found, "size": size, "from": address, "time": fetched_on}, file.record(root))
        os.replace(fetched, path)
    shutil.rmtree(staging)
    if problem is not None:
        raise FergiError(f"{path.name} from {address} {problem}; nothing was kept. {again}")
    return found


def _not_published(file: WeightFile, fetched: Path, found: str) -> str | None:
    """Why a fetched file with the SHA-256 ``found`` is not the published one; None if nothing speaks against it."""
    if file.sha256 is not None and found != file.sha256:
        return f"has the SHA-256 {found}, not {file.sha256}"
    if file.git_blob is not None and (blob := _git_blob(fetched)) != file.git_blob:
        return f"has the git blob id {blob}, not {file.git_blob}"
    if _is_web_page(fetched):
        return "is a web page"
    if file.network is not None:
        from fergi.action_units.network import load_network  # above this module, and only checks here

        try:
            load_network(fetched, file.network)
        except FergiError as error:
            return f"cannot be used: {str(error).partition('. ')[0].replace(str(fetched), 'it')}"
    return None


def _git_blob(path: Path) -> str:
    """Git's id of a file's content: SHA-1 of a header with the size, and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _is_web_page(path: Path) -> bool:
    """Whether it is HTML, as servers send it in place of a file that they do not give."""
    with path.open("rb") as file:
        return file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _download(address: str, path: Path) -> None:
    """Fetch a file that is not on the hub, and resume if a part of it is there; OSError says why not.

    ``gdown`` knows the pages that Google Drive puts before large files, and also fetches any other address.
    """
    from gdown import download
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    def parts() -> dict[Path, int]:
        return {part: part.stat().st_size for part in path.parent.glob(f"{path.name}*.part")}

    before = parts()
    try:
        terminal = sys.stderr.isatty()
        download(address, str(path), resume=True, use_cookies=False, timeout=60, quiet=not terminal)
        return
    except FileURLRetrievalError as error:
        page = str(error)
    except DownloadError as error:
        if before and parts() == before:  # the server does not resume, or has another file now: begin anew next time
            for part in before:
                part.unlink()
        raise OSError(str(error).partition("\n")[0].rstrip(".:")) from None
    finally:
        for part, size in parts().items():
            if size == 0:
                part.unlink()
    often = any(word in page.lower() for word in ("too many users", "quota", "many accesses recently"))
    raise OSError(
        "Google Drive gave a web page in place of the file, "
        + (
            "because too many people have fetched it lately; try again in a day"
            if often
            else "because it is no longer shared, has another address, or was fetched too often lately"
        )
        + "; a browser may still get it"
    )


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
            state = _checked(file, root)
        rows.append((file.name, state, _gigabytes(size) if size else "?", file.licence, file.path))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _checked(file: WeightFile, root: Path) -> str:
    """The SHA-256 of a file that is there, and whether it is the published one, or the one that was fetched."""
    path, record = file.under(root), file.record(root)
    found = sha256(path)
    if file.sha256 is not None or file.git_blob is not None:
        verdict = "not the published file" if _not_published(file, path, found) else "as published"
    elif record.is_file():
        fetched = read_json(record, "Remove it, and fetch the file again.")
        same = "as" if fetched.get("sha256") == found else "not the file that was"
        verdict = f"{same} fetched on {str(fetched.get('time'))[:10]}"
    else:
        return f"SHA-256 {found}"
    return f"SHA-256 {found}, {verdict}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("what", nargs="?", choices=("list", "fetch", "check"), default="list", help="default: list")
    names = [file.name for file in WEIGHT_FILES]
    groups = "own-recordings (what stage 4 takes), or all (of the scorers)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"files to fetch: {', '.join(names)}; {groups}")
    hub = os.environ.get("HF_ENDPOINT") or HUB
    parser.add_argument("--hub", default=hub, metavar="URL", help="the model hub (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in (*names, *GROUPS)]
    if unknown:
        parser.error(f"there is no file {unknown[0]}; there are {', '.join(names)}; {groups}")
    if bool(chosen.names) != (chosen.what == "fetch"):
        parser.error("name files to fetch, with fetch and only there")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """List the files, check them, or fetch some."""
    chosen = _parse(arguments)
    if chosen.what != "fetch":
        print(_inventory(chosen.root, check=chosen.what == "check"))
        return
    wanted = {*chosen.names, *(file.name for name in chosen.names for file in GROUPS.get(name, ()))}
    files, problems = [file for file in WEIGHT_FILES if file.name in wanted], []
    for file in files:
        if file.under(chosen.root).is_file():
            print(f"{file.path} is there already.")
            continue
        print(f"Fetching {file.path}: {file.what}, from {file.source}.")
        print(f"Terms of use: {file.licence}." + (f" Its users cite {file.cite}." if file.cite else ""), flush=True)
        try:
            found = fetch(file, chosen.root, hub=chosen.hub)
        except FergiError as error:
            problems.append(error)
            if len(files) > 1:
                print(f"Not fetched: {error}")
            continue
        known = "as published" if file.sha256 or file.git_blob else "which is recorded, since none was published"
        print(f"Wrote {file.path}, SHA-256 {found}, {known}.")
    if len(problems) > 1:
        first = [str(problem).partition(". ")[0] for problem in problems]
        raise summarise(first, len(files), "files", "See above what to do for each.", "are not fetched")
    if problems:
        raise problems[0]


if __name__ == "__main__":
    run(main)
