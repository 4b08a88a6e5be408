"""What the tests share: the published files where they are, and a small data set of the same form."""

import importlib
import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from fergi.features import COLUMNS
from fergi.files import FergiError

CHECKOUT = Path(__file__).resolve().parent.parent
STAGES = (
    "preprocess_baseline_data",
    "preprocess_reaction_data",
    "filter_participants_based_on_AU4",
    "image_preference_binary_classification_based_on_ranking",
)
SCORES = ("CLIP_score", "Aesthetic_score", "BLIP_score", "ImageReward_score", "PickScore", "HPS_V2_score")

# The same examples every time, so that a red test is red for everybody.
settings.register_profile("fergi", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("fergi")


@pytest.fixture(scope="module")
def one_thread():
    """Tests share the machine; threads that wait for each other would make them many times slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tmp_path(tmp_path, request) -> Path:
    """Pytest's, removed unless the test fails: the tests write 13 GB of weights in all."""
    n_failed = request.session.testsfailed
    yield tmp_path
    if request.session.testsfailed == n_failed:
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _remove_shared_folders(tmp_path_factory, request):
    """Likewise the folders that several tests read."""
    yield
    if not request.session.testsfailed:
        shutil.rmtree(tmp_path_factory.getbasetemp(), ignore_errors=True)


def shared_folder(name: str) -> Path:
    """A folder of published files or reference values, which are outside the checkout; without it tests are skipped."""
    folder = Path(os.environ.get("FERGI_SHARED") or CHECKOUT.parent / "shared") / name
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist, so there is nothing to compare with; set FERGI_SHARED")
    return folder


@pytest.fixture(scope="session")
def published() -> Path:
    """Folder with the published files: data/, preparation/ and expected/."""
    return shared_folder("fergi")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder with inputs of the original functions and what they gave for them."""
    return shared_folder("vectors")


@pytest.fixture(scope="session")
def published_root(published, tmp_path_factory) -> Path:
    """A root with the published inputs on which stages 6 to 8 and both modes of stage 9 have run."""
    root = tmp_path_factory.mktemp("published")
    (root / "data").symlink_to(published / "data")
    (root / "preparation").mkdir()
    for name in ("valid_sessions.json", "invalid_images.json"):
        shutil.copy(published / "preparation" / name, root / "preparation")
    shutil.copytree(published / "preparation" / "preprocessed_image_data", root / "preparation/preprocessed_image_data")
    for stage in STAGES:
        importlib.import_module(stage).main(["--root", str(root)])
    for options in (["--mode", "released"], ["--strict-lopo"]):
        importlib.import_module(STAGES[-1]).main(["--root", str(root), *options])
    return root


def snapshot(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Every file below a folder (that fits one of the patterns, if there are any) and its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (not patterns or any(path.match(pattern) for pattern in patterns))
    }


def clip_text(intensities: np.ndarray, frames_per_second: float = 30.0, **columns) -> str:
    """A feature CSV.

    ``intensities`` has shape (n_frames, 12), or (n_frames,) for one column that stands for all twelve; timestamps are
    rounded to milliseconds; ``columns`` are others by name, where they are not those of a valid frame.
    """
    intensities = np.asarray(intensities, float)
    n = len(intensities)
    table = pd.DataFrame(index=range(n), columns=list(COLUMNS), dtype=float)
    table["frame"] = np.arange(1, n + 1)
    table["timestamp"] = np.round(np.arange(n) / frames_per_second, 3)
    table["face_detection_confidence_score"] = 0.95
    table["pitch_indicative_ratio"] = 0.7
    table["yaw_indicative_ratio"] = 0.5
    table.iloc[:, COLUMNS.index("AU1") :] = np.broadcast_to(intensities.reshape(n, -1), (n, 12))
    for name, values in columns.items():
        table[name] = values
    return table.to_csv(index=False, lineterminator="\n")


@dataclass
class Tiny:
    """A small data set on disk and the scripts on it.

    Four participants; images per session as in ``IMAGES``. The image 2 of session 1 of 101 is black. The brows of
    104 move at rest, so that stage 8 excludes 104. 103 has a session of one image.
    """

    root: Path

    IMAGES = {  # noqa: RUF012
        "101": {1: 4, 2: 3},
        "102": {1: 3, 3: 2},
        "103": {2: 5, 4: 1},
        "104": {1: 2},
    }

    def path(self, name: str) -> Path:
        """A file below the root."""
        return self.root / name

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the first ``old`` in a file, which must have it."""
        text = self.path(name).read_text()
        assert old in text, f"{name} has no {old!r}"
        self.path(name).write_text(text.replace(old, new, 1))

    def edit_json(self, name: str, change: Callable[[dict], None]) -> None:
        """Change the content of a JSON file in place."""
        content = json.loads(self.path(name).read_text())
        change(content)
        self.path(name).write_text(json.dumps(content))

    def edit_table(self, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Change a CSV table."""
        change(pd.read_csv(self.path(name))).to_csv(self.path(name), index=False)

    def run(self, stage: str, *options: str) -> None:
        """Run one script in this process."""
        importlib.import_module(stage).main(["--root", str(self.root), *options])

    def snapshot(self) -> dict[str, bytes]:
        """Every file below the root and its content."""
        return snapshot(self.root)

    def refuses(self, stage: str, *fragments: str, options: tuple[str, ...] = ()) -> str:
        """Assert that a script stops with a message that has all fragments, and leaves every file as it was."""
        before = self.snapshot()
        with pytest.raises(FergiError) as caught:
            self.run(stage, *options)
        message = str(caught.value)
        for fragment in fragments:
            assert fragment in message
        assert "\n" not in message
        assert self.snapshot() == before
        return message


def _write_tiny(root: Path) -> None:
    rng, number = np.random.default_rng(31), itertools.count()
    preparation = root / "preparation"
    (preparation / "preprocessed_image_data").mkdir(parents=True)
    black: dict[str, dict[str, list[int]]] = {}
    for participant, sessions in Tiny.IMAGES.items():
        black[participant] = {str(session): [] for session in sessions}
        rows = []
        for session, n_images in sessions.items():
            folder = root / "data" / participant / f"session_{session}"
            folder.mkdir(parents=True)
            ranks = 5 - rng.permutation(n_images)
            for image in range(1, n_images + 1):
                at_rest = np.zeros(30)
                at_rest[10:20] = 3.0 if participant == "104" else 0.1
                (folder / f"baseline_clip_{image}_features.csv").write_text(
                    clip_text(at_rest, pitch_indicative_ratio=0.6 + 0.001 * next(number))  # no two clips are the same
                )
                reaction = rng.uniform(0, 0.2, (30, 12)) + np.linspace(0, 1, 30)[:, None] * rng.uniform(0, 2, 12)
                (folder / f"reaction_clip_{image}_features.csv").write_text(clip_text(reaction.round(3)))
                row = {"session_index": session, "image_index": image, "overall_rating": int(rng.integers(0, 8))}
                row |= {"rank_score": int(ranks[image - 1])}
                row |= {name: round(float(rng.normal()), 4) for name in SCORES}
                rows.append(row)
        table = pd.DataFrame(rows)
        if participant == "101":
            black["101"]["1"] = [2]
            table = table.drop(index=1)
        table.to_csv(preparation / "preprocessed_image_data" / f"{participant}.csv", index=False)
    listed = {participant: list(sessions) for participant, sessions in Tiny.IMAGES.items()}
    (preparation / "valid_sessions.json").write_text(json.dumps(listed))
    (preparation / "invalid_images.json").write_text(json.dumps(black))


@pytest.fixture(scope="session")
def _tiny_inputs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tiny") / "root"
    _write_tiny(root)
    return root


@pytest.fixture(scope="session")
def _tiny_finished(_tiny_inputs, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tiny_finished") / "root"
    shutil.copytree(_tiny_inputs, root)
    for stage in STAGES:
        Tiny(root).run(stage)
    return root


@pytest.fixture
def tiny_inputs(_tiny_inputs, tmp_path) -> Tiny:
    """The small data set before any stage has run."""
    return Tiny(shutil.copytree(_tiny_inputs, tmp_path / "root"))


@pytest.fixture
def tiny(_tiny_finished, tmp_path) -> Tiny:
    """The small data set after stages 6 to 9, a copy for each test."""
    return Tiny(shutil.copytree(_tiny_finished, tmp_path / "root"))
