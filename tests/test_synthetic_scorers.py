"""Drawn pictures show their quality, and tiny scorers see part of it, through files that stage 5 reads."""

import importlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_scorers import CPU, write_sessions

from fergi.files import FergiError
from fergi.pictures import is_black
from fergi.scorers.origin import untrained_columns
from fergi.scorers.registry import PAPER_SCORERS, SCORERS, read_layouts, scorer_class
from fergi.weights import CLIP_L, HPS_V2, SCORER_FILES
from synthetic import scorers as synthetic
from synthetic.__main__ import main
from synthetic.claim import claim
from synthetic.pictures import Scene, Things, draw_picture, random_scene

STAGE = importlib.import_module("preprocess_image_data")
RED = Scene(Things(2, "red", "house"), Things(1, "orange", "butterfly"), "a snowy field", "at noon")


def drawing(quality, seed=0, scene=RED, side=64):
    """A picture of the scene."""
    return draw_picture(scene, quality, np.random.default_rng(seed), side)


# ---- pictures


def test_prompts():
    """Plain English, and hardly any twice."""
    assert RED.prompt == "two red houses on a snowy field and an orange butterfly in the sky, at noon"
    random = np.random.default_rng(1)
    assert len({random_scene(random).prompt for _ in range(400)}) > 390
    assert str(Things(3, "blue", "butterfly")) == "three blue butterflies"


@given(quality=st.floats(0, 1), seed=st.integers(0, 1000))
def test_quality_is_the_mean_of_its_cues(quality, seed):
    """Whatever the quality; nothing is black."""
    made = drawing(quality, seed, side=32)
    assert made.match + made.fidelity == pytest.approx(2 * quality, abs=1e-9)
    assert 0 <= made.match <= 1 and 0 <= made.fidelity <= 1
    assert -1 <= made.warmth <= 1 and -1 <= made.brightness <= 1
    assert made.picture.mode == "RGB" and made.picture.size == (32, 32) and not is_black(made.picture)


def test_the_parts_of_quality_vary():
    """Match and fidelity go together only in part: pictures of a quality differ in both."""
    made = [drawing(0.5, seed, side=16) for seed in range(60)]
    assert np.std([each.match for each in made]) > 0.2


def test_same_seed_same_picture():
    """To the last level; and another seed another picture."""
    assert drawing(0.4).picture.tobytes() == drawing(0.4).picture.tobytes()
    assert drawing(0.4).picture.tobytes() != drawing(0.4, seed=1).picture.tobytes()


def red_share(picture):
    """Share of clearly red pixels; nothing else in the scene is."""
    red, green, blue = np.asarray(picture, float).transpose(2, 0, 1)
    return np.mean((red > 1.8 * green) & (red > 1.8 * blue))


def roughness(picture):
    """How much neighbours differ where there should be plain sky: in the first rows."""
    return np.abs(np.diff(np.asarray(picture, float)[:6], axis=1)).mean()


def test_a_good_picture_shows_what_was_asked_for_and_a_bad_one_does_not():
    """Red houses are red at quality 1; at 0 they are not, and the sky is stained."""
    scene = Scene(Things(3, "red", "house"), Things(1, "blue", "star"), "a snowy field", "in the morning")
    good, bad = ([drawing(quality, seed, scene).picture for seed in range(12)] for quality in (1, 0))
    assert min(map(red_share, good)) > 0.04 and np.mean([red_share(each) for each in bad]) < 0.01
    assert max(map(roughness, good)) < np.median([roughness(each) for each in bad]) / 4


# ---- scorers


@pytest.fixture(scope="session")
def hurried(tmp_path_factory):
    """All six, which have learned next to nothing."""
    root = tmp_path_factory.mktemp("hurried") / "root"
    claim(root)
    write_sessions(root)
    synthetic.make_scorers(root, seed=1, n_scenes=32)
    return root


def load(root, name):
    """As the script does it."""
    return scorer_class(name)(root, CPU, read_layouts(root / synthetic.LAYOUT_FILE)[name])


def test_files_are_those_of_the_official_scorers(hurried):
    """Under their names, small, HPS in half precision; nothing else."""
    wanted = {file.path for file in SCORER_FILES if "2.1" not in file.path}
    found = {str(path.relative_to(hurried)) for path in (hurried / "pretrained_models").rglob("*") if path.is_file()}
    assert found == wanted | {synthetic.LAYOUT_FILE}
    assert sum((hurried / name).stat().st_size for name in found) < 20e6
    assert str(next(iter(HPS_V2.read(hurried).values())).dtype) == "torch.float16"


def test_same_seed_same_bytes(hurried, tmp_path):
    """Whichever are made beside it, and whatever PyTorch drew before; PyTorch is left as it was."""
    torch.rand(3)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    synthetic.make_scorers(tmp_path / "same", 1, ["HPSv2"], n_scenes=32)
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_num_threads() == threads
    assert not CLIP_L.under(tmp_path / "same").exists()
    assert HPS_V2.under(tmp_path / "same").read_bytes() == HPS_V2.under(hurried).read_bytes()
    synthetic.make_scorers(tmp_path / "other", 2, ["HPSv2"], n_scenes=32)
    assert HPS_V2.under(tmp_path / "other").read_bytes() != HPS_V2.under(hurried).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "seed must be 0 or more, not -1"),
        (["--scenes", "0"], "scenes must be a multiple of 16, not 0"),
        (["--scenes", "40"], "scenes must be a multiple of 16, not 40"),
    ],
)
def test_impossible_scorers_are_refused(tmp_path, options, message):
    """In one sentence, and nothing is written."""
    with pytest.raises(FergiError, match=rf"^Such scorers cannot be made: {message}\.$"):
        main(["scorers", "--root", str(tmp_path), *options])
    assert not list(tmp_path.iterdir())


def test_the_script_scores_with_them(hurried, capsys):
    """Through the command line; every score is the scorer's own, and the settings say which sizes."""
    options = ["--root", str(hurried), "--device", "cpu", "--workers", "1"]
    layouts = str(hurried / synthetic.LAYOUT_FILE)
    STAGE.main([*options, "--scorer-layouts", layouts])
    table = pd.read_csv(hurried / "preparation/preprocessed_image_data/009.csv")
    pictures = [Image.open(hurried / f"data/009/session_2/image{image}.png") for image in (1, 2, 4)]
    for name in PAPER_SCORERS:
        scorer = load(hurried, name)
        expected = scorer.score(["a red cat on the moon 2"] * 3, pictures)
        np.testing.assert_allclose(table[SCORERS[name].column], expected, atol=1e-4)
    settings = json.loads((hurried / "preparation/preprocessed_image_data/settings.json").read_text())
    for name in PAPER_SCORERS:
        sizes = json.loads(settings[f"{SCORERS[name].column}: layout"])
        assert sizes == json.loads((hurried / synthetic.LAYOUT_FILE).read_text())[name]
    # Without the sizes, finished scores would pass for the official networks'.
    with pytest.raises(FergiError, match=r"CLIP/settings\.json says that layout was .*same files, sizes, libraries"):
        STAGE.main(options)


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """Two that have learned all that they can: takes some ten seconds."""
    root = tmp_path_factory.mktemp("taught")
    synthetic.make_scorers(root, 3, ["BLIP", "PickScore"])
    return root


@pytest.fixture(scope="session")
def unseen():
    """Prompts, pictures and qualities: sixty prompts, five pictures of each."""
    random = np.random.default_rng(77)
    scenes = [random_scene(random) for _ in range(60)]
    qualities = random.random((len(scenes), 5))
    shown = [scene for scene in scenes for _ in range(5)]
    made = [draw_picture(*each, random, 128).picture for each in zip(shown, qualities.flat, strict=True)]
    return [scene.prompt for scene in shown], made, qualities


@pytest.mark.parametrize("name", ["BLIP", "PickScore"])
def test_scores_tell_part_of_the_quality(taught, unseen, name):
    """Better than chance, far from perfect, of other prompts lower, and in the range of trained networks."""
    prompts, pictures, qualities = unseen
    scorer = load(taught, name)
    scores = scorer.score(prompts, pictures)
    pairs = np.triu_indices(5, 1)
    one, other = (scores.reshape(-1, 5)[:, places] for places in pairs)
    better, worse = (qualities[:, places] for places in pairs)
    assert 0.56 < np.mean((one > other) == (better > worse)) < 0.78
    foreign = scorer.score(prompts[5:] + prompts[:5], pictures)
    assert np.mean(scores > foreign) > 0.55
    column = SCORERS[name].column
    assert untrained_columns(pd.DataFrame({column: scores})) == []
