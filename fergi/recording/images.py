"""Where a session's images come from: drawn, a folder, a server, or a diffusion model on this machine.

All images of a prompt are made before the recording starts, by one thread, one prompt after another.
"""

import base64
import importlib
import io
import json
import os
import secrets
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from fergi.files import FergiError, read_json, replacing, summarise, write_json
from fergi.pictures import is_black, open_picture
from fergi.recording.storage import Refused, Session
from fergi.recording.study import Study

DEFAULT_MODEL = "CompVis/stable-diffusion-v1-4"  # the paper's (Section 3.2.3)
LOAD_ADVICE = "Name a folder of diffusers' form or a model of the hub, after diffusers:."
OWN_PARTS = "fergi.face_generation.small_base"  # a network of a pipeline may be of this module
SOURCES = "drawn, folder:DIR, server:URL or diffusers:DIR_OR_HUB_NAME"
Draw = Callable[[str, int], Image.Image]  # a picture for a prompt and a seed
Made = tuple[Image.Image, dict[str, Any]]  # a picture, and what it was made with


class Stopped(Exception):
    """The server ends, so no more images are made."""


class ImageSource(ABC):
    """Makes the images of a prompt, RGB."""

    note: str | None = None  # what a participant should know of where the prompt goes
    prompts: Sequence[str] | None = None  # of a fixed study, by session

    @abstractmethod
    def make(self, prompt: str, number: int, check: Callable[[], None]) -> Iterator[Made]:
        """So many images of a prompt, one after another; ``check`` raises ``Stopped`` if the work is to end.

        Raises
        ------
        ValueError
            With the reason if there are no images.
        """


@dataclass
class Drawn(ImageSource):
    """Pictures that a function draws, so that everything can be tried without a model."""

    draw: Draw

    def make(self, prompt: str, number: int, check: Callable[[], None]) -> Iterator[Made]:
        for _ in range(number):
            check()
            seed = secrets.randbelow(1 << 32)
            yield self.draw(prompt, seed), {"source": "drawn", "model": "drawn pictures", "seed": seed}


class Folder(ImageSource):
    """Pictures that are there already, of a study with fixed prompts.

    ``prompts.json`` in the folder is a list in the order of the sessions: ``{"prompt": text, "images": [file, …]}``,
    with as many files, named relative to the folder, as the study has images for each prompt.
    """

    def __init__(self, folder: Path, study: Study):
        """Read the list and look at every picture, so that none fails during the study."""
        self.folder, path, number = folder, folder / "prompts.json", study.images_per_prompt
        advice = "See docs/sessions.md for its form."
        content = read_json(path, advice)
        if not isinstance(content, list) or not content:
            raise FergiError(f"{path} must be a list of prompts with their images. {advice}")
        problems = [problem for each in content if (problem := self._problem(each, number))]
        if problems:
            raise summarise(problems, len(content), f"entries of {path}", advice)
        self.prompts = [each["prompt"] for each in content]
        self._files = {each["prompt"]: each["images"] for each in content}
        if len(self._files) < len(content):
            raise FergiError(f"{path} has a prompt twice. {advice}")
        if len(content) < sum(study.sessions.values()):
            raise FergiError(f"{path} has {len(content)} prompts for {sum(study.sessions.values())} sessions. {advice}")

    def _problem(self, entry: Any, number: int) -> str | None:
        if not isinstance(entry, dict) or set(entry) != {"prompt", "images"} or not isinstance(entry["images"], list):
            return f"{entry!r} does not have exactly prompt and images"
        prompt, names = entry["prompt"], entry["images"]
        if not isinstance(prompt, str) or not prompt.strip():
            return f"{prompt!r} is no prompt"
        if len(names) != number:
            return f"“{prompt}” has {len(names)} images, not {number}"
        for name in names:
            try:
                if not (self.folder / name).resolve().is_relative_to(self.folder.resolve()):
                    return f"{name} is outside the folder"
                open_picture(self.folder / name)
            except (TypeError, ValueError) as error:
                return str(error)
        return None

    def make(self, prompt: str, number: int, check: Callable[[], None]) -> Iterator[Made]:
        if prompt not in self._files:
            raise ValueError("this study has no images for this prompt")
        for name in self._files[prompt]:
            check()
            yield open_picture(self.folder / name), {"source": "folder", "model": None, "seed": None, "file": name}


@dataclass
class Server(ImageSource):
    """A server with the image interface of OpenAI's form (``<url>/images/generations``)."""

    url: str
    model: str | None
    size: int
    key: str | None = field(default=None, repr=False)
    seconds: float = 300.0

    def __post_init__(self) -> None:
        self.note = f"Your prompt is sent to {httpx.URL(self.url).host}, where the images are made."

    def make(self, prompt: str, number: int, check: Callable[[], None]) -> Iterator[Made]:
        left = number
        while left > 0:  # some servers make fewer at a time than they are asked for
            check()
            pictures = self._ask(prompt, left)[:left]
            left -= len(pictures)
            for picture in pictures:
                yield picture, {"source": "server", "model": self.model, "seed": None, "size": self.size}

    def _ask(self, prompt: str, number: int) -> list[Image.Image]:
        content = {"prompt": prompt, "n": number, "size": f"{self.size}x{self.size}", "response_format": "b64_json"}
        content |= {"model": self.model} if self.model else {}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        address = f"{self.url.rstrip('/')}/images/generations"
        try:
            answer = httpx.post(address, json=content, headers=headers, timeout=self.seconds)
            answer.raise_for_status()
            encoded = [base64.b64decode(each["b64_json"], validate=True) for each in answer.json()["data"]]
            pictures = [open_picture(Image.open(io.BytesIO(each))) for each in encoded]
        except httpx.TimeoutException:
            raise ValueError(f"the image server did not answer within {self.seconds:g} seconds") from None
        except httpx.HTTPStatusError as error:
            raise ValueError(f"the image server answered with status {error.response.status_code}") from None
        except httpx.HTTPError:
            raise ValueError("the image server cannot be reached") from None
        except (ValueError, LookupError, TypeError, OSError) as error:
            raise ValueError(f"the image server gave no pictures ({type(error).__name__})") from None
        if not pictures:
            raise ValueError("the image server gave no pictures")
        return pictures


class Diffusers(ImageSource):
    """A text-to-image pipeline of diffusers, by default Stable Diffusion v1.4; one for all sessions."""

    def __init__(self, name: str, study: Study, device: str):
        """Load it, from a folder or the model hub.

        Raises
        ------
        FergiError
            If it cannot be loaded, or its weights do not fit its networks.
        """
        import torch

        self.name, self.study, self.device = name or DEFAULT_MODEL, study, device
        self._pipeline = load_pipeline(self.name, torch.float16 if device.startswith("cuda") else torch.float32)
        self._pipeline.to(device)
        self._pipeline.set_progress_bar_config(disable=True)

    def make(self, prompt: str, number: int, check: Callable[[], None]) -> Iterator[Made]:
        import torch

        def step(pipeline: Any, number: int, time: Any, kept: dict) -> dict:
            check()
            return kept

        settings = {"steps": self.study.image_steps, "guidance": self.study.image_guidance}
        for _ in range(number):
            seed, size = secrets.randbelow(1 << 32), self.study.image_size
            made = self._pipeline(
                prompt,
                num_inference_steps=settings["steps"],
                guidance_scale=settings["guidance"],
                height=size,
                width=size,
                generator=torch.Generator("cpu").manual_seed(seed),
                callback_on_step_end=step,
            )
            flags = getattr(made, "nsfw_content_detected", None)
            record = {"source": "diffusers", "model": self.name, "seed": seed, "size": size} | settings
            yield made.images[0].convert("RGB"), record | {"safety_flag": bool(flags[0]) if flags else None}


def load_pipeline(name: str, dtype: Any, advice: str = LOAD_ADVICE) -> Any:
    """A pipeline of diffusers, each of whose networks gets exactly its own weights.

    Raises
    ------
    FergiError
        If it is not there, or entries are missing or do not fit.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    try:
        folder = Path(name) if Path(name).is_dir() else Path(diffusers.DiffusionPipeline.download(name))
        index = json.loads((folder / "model_index.json").read_text())
        parts = {}
        for part, entry in index.items():
            library, kind = entry if isinstance(entry, list) else (None, None)
            module = {"diffusers": diffusers, "transformers": transformers}.get(library)
            if library == OWN_PARTS:
                module = importlib.import_module(OWN_PARTS)
            network = getattr(module, kind or "", None) if module else None
            if part == "safety_checker" and kind:
                from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker as network
            if not hasattr(network, "save_pretrained") or not hasattr(network, "state_dict"):
                continue
            parts[part], found = network.from_pretrained(
                folder / part, torch_dtype=dtype, output_loading_info=True, local_files_only=True
            )
            for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                if wrong := sorted(map(str, found.get(what) or ())):
                    raise FergiError(
                        f"{len(wrong)} {what.replace('_', ' ')} in {folder / part} (first: {wrong[0]}), so its weights "
                        "do not fit its network. Get the model again."
                    )
        return diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, local_files_only=True, **parts)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError, ImportError) as error:
        cause: BaseException = error
        while deeper := cause.__cause__ or cause.__context__:  # libraries wrap what happened
            cause = deeper
        reason = " ".join(str(cause).split())[:200]
        raise FergiError(f"{name} cannot be loaded as an image generator ({reason}). {advice}") from error


def open_source(name: str, study: Study, *, draw: Draw, key: str | None, device: Callable[[], str]) -> ImageSource:
    """The source that ``--images`` names; ``key`` is an image server's, ``device`` is asked where one is needed.

    Raises
    ------
    FergiError
        If there is no such source, or it cannot be used.
    """
    kind, _, rest = name.partition(":")
    if name == "drawn":
        return Drawn(draw)
    if kind == "folder" and rest:
        return Folder(Path(rest), study)
    if kind == "server" and rest.startswith(("http://", "https://")):
        return Server(rest, study.image_model, study.image_size, key)
    if kind == "diffusers":
        return Diffusers(rest, study, device())
    raise FergiError(f"There is no image source {name!r}; there are {SOURCES}.")


@dataclass
class Order:
    """The images of one session, asked for."""

    prompt: str
    total: int
    done: int = 0
    failed: str | None = None
    future: Future | None = None


class ImageMaker:
    """Makes the images of sessions, one prompt after another in a thread of its own."""

    def __init__(self, source: ImageSource):
        self.source = source
        self._thread = ThreadPoolExecutor(1, "images")
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._orders: dict[Path, tuple[str, Order]] = {}  # by folder, with the session's token

    def close(self) -> None:
        """Make no more images."""
        self._end.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ask(self, session: Session, prompt: str, form: Any) -> None:
        """Begin to make a session's images, unless that has begun; another prompt is refused then, 409."""
        with session.held(), self._lock:
            order = self._order(session)
            asked = order.prompt if order and not order.failed else None
            if (session.folder / "images.json").is_file():
                asked = session.read()["prompt"]
            if asked is not None:
                if asked != prompt:
                    raise Refused(409, "The images of this session are made from another prompt.")
                return
            session.update(prompt=prompt, form=form)
            order = Order(prompt, session.read()["n_images"])
            self._orders[session.folder] = (session.token, order)
            order.future = self._thread.submit(self._make, session, order)

    def state(self, session: Session) -> dict[str, Any]:
        """How far a session's images are."""
        total = session.read()["n_images"]
        if (session.folder / "images.json").is_file():
            return {"state": "ready", "done": total, "total": total, "note": None}
        with self._lock:
            order = self._order(session)
        if order is None:
            asked = session.read()["prompt"] is not None
            note = "The server was started again; ask for the images once more." if asked else None
            return {"state": "failed" if asked else "waiting", "done": 0, "total": total, "note": note}
        if order.failed:
            return {"state": "failed", "done": order.done, "total": total, "note": order.failed}
        begun = order.future is not None and order.future.running()
        return {"state": "making" if begun else "waiting", "done": order.done, "total": total, "note": None}

    def _order(self, session: Session) -> Order | None:
        token, order = self._orders.get(session.folder, ("", None))
        return order if token == session.token else None

    def _check(self) -> None:
        if self._end.is_set():
            raise Stopped

    def _make(self, session: Session, order: Order) -> None:
        """Make the images into a hidden folder, then put them into the session's."""
        try:
            made = []
            for picture, record in self.source.make(order.prompt, order.total, self._check):
                made.append((picture, record | {"black": is_black(picture)}))
                order.done = len(made)
            with session.held():
                save_images(session.folder, made)
            with self._lock:
                self._orders.pop(session.folder, None)
        except Refused:  # begun again, or deleted
            order.failed = "The session has ended."
        except Stopped:
            order.failed = "The server ends."
        except ValueError as error:
            order.failed = f"The images could not be made: {error}."
        except (FergiError, OSError) as error:
            order.failed = f"The images could not be stored: {error}"
        except Exception as error:  # noqa: BLE001 - a model's library may raise anything; the participant must be told
            print(f"The images could not be made: {type(error).__name__}: {error}", flush=True)
            order.failed = f"The images could not be made ({type(error).__name__})."


def save_images(folder: Path, made: Sequence[Made]) -> None:
    """``images/image<i>.png`` and ``images.json``, which comes last and says that all are there."""
    images = folder / "images"
    shutil.rmtree(images, ignore_errors=True)
    for number, (picture, _) in enumerate(made, 1):
        with replacing(images / f"image{number}.png") as file:
            picture.save(file, "PNG")
    write_json([{"image": number} | record for number, (_, record) in enumerate(made, 1)], folder / "images.json")
