"""Drawn portraits, and the small base model that is trained on such pictures."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from fergi.action_units.faces_dataset import read_picture
from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.pictures import read_pictures
from fergi.face_generation.small_base import PATCH, PatchAutoencoder, make_small_base
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from fergi.recording.images import load_pipeline
from synthetic.cohort import LABELLED_OPPONENTS
from synthetic.expressions import UNIT, Actor, Format, expression
from synthetic.portraits import MOODS, draw_portraits, person, portraits, random_expression

CAPTIONS = ["a dark square", "a bright square"]
QUARTERS = np.array([[40, 100], [160, 220]])


# Portraits ---------------------------------------------------------------------------------------------------------


def test_portraits_are_a_folder_of_labelled_faces(tmp_path: Path) -> None:
    """As training scripts read it: labels, captions and expressions are those of the pictures."""
    draw_portraits(tmp_path / "faces", (0, 3), 2, seed=1, stored_side=112)
    found, settings = read_pictures([tmp_path / "faces"])
    drawn = list(portraits((0, 3), 2, seed=1))
    assert np.array_equal(found.intensities, [each.intensities for each in drawn])
    assert found.captions.tolist() == [each.caption for each in drawn]
    assert found.expressions.tolist() == [each.mood for each in drawn]
    assert found.people.tolist() == ["DRAWN0000"] * 2 + ["DRAWN0003"] * 2
    assert settings["seed"] == 1 and "no real people" in settings["dataset"]
    for row, each in zip(pd.read_csv(tmp_path / "faces/index.csv")["image"], drawn, strict=True):
        stored = cv2.resize(read_picture(tmp_path / "faces" / row), (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(stored.astype(int) - each.picture).mean() < 4
    with pytest.raises(FergiError, match="is there already and is no empty folder"):
        draw_portraits(tmp_path / "faces", (0,), 1, seed=1)


def test_a_seed_decides_expressions_and_not_people() -> None:
    first, again, other = (list(portraits((0, 1), 3, seed)) for seed in (1, 1, 2))
    for one, same in zip(first, again, strict=True):
        assert np.array_equal(one.picture, same.picture)
    assert not np.array_equal([each.intensities for each in first], [each.intensities for each in other])
    assert [each.caption.split("with")[1] for each in first] == [each.caption.split("with")[1] for each in other]
    assert len({person(number).style for number in range(4)}) == 4


def test_expressions_show_their_mood_and_no_opponents() -> None:
    random = np.random.default_rng(0)
    drawn = [random_expression(random) for _ in range(400)]
    assert {mood for mood, _ in drawn} == set(MOODS)
    for mood, intensities in drawn:
        shown = {unit for unit, value in zip(ACTION_UNITS, intensities, strict=True) if value}
        of_mood = intensities[np.isin(ACTION_UNITS, MOODS[mood])]
        assert of_mood.min() >= 2 and intensities.max() <= 5 and np.array_equal(intensities, intensities.round())
        assert not [pair for pair in LABELLED_OPPONENTS if set(pair) <= shown - set(MOODS[mood])]
        assert not [pair for pair in LABELLED_OPPONENTS if set(pair) <= shown and not set(pair) <= set(MOODS[mood])]


def test_a_small_format_shows_the_same_face() -> None:
    """A square of the large frame around the face, brought to 64 pixels, is the small frame but for interpolation."""
    who, face = person(0), expression(AU1=4, AU26=5)
    small = Actor(who, Format(64, 64, 64 / 3, 0.31)).frame(face)
    large = Actor(who, Format(320, 240, UNIT, 0.52)).frame(face)
    assert np.array_equal(large, Actor(who).frame(face))
    side, scale = 3 * UNIT, 64 / (3 * UNIT)
    matrix = np.array([[scale, 0, -scale * (160 - side / 2)], [0, scale, -scale * (0.52 * 240 - 0.31 * side)]])
    cut = cv2.warpAffine(cv2.GaussianBlur(large, (0, 0), 0.6), matrix, (64, 64))
    inside = np.s_[16:60, 16:48]  # the face; backgrounds are drawn for each format
    assert np.abs(cut[inside].astype(int) - small[inside]).mean() < 10


# The small base model ----------------------------------------------------------------------------------------------


def test_patches_are_projected_as_principal_components_are() -> None:
    """With all components nothing is lost; with some, the mean square of what the others hold (NumPy's eigenvalues)."""
    random = np.random.default_rng(0)
    flat = random.normal(size=(40, 6)) @ random.normal(size=(6, 3 * PATCH**2)) + random.normal(0, 0.1, (40, 192))
    pixels = torch.from_numpy(flat.reshape(40, 3, PATCH, PATCH)).float()
    values = np.sort(np.linalg.eigvalsh(np.cov(flat.T, bias=True)))
    for components, lost in ((192, 0.0), (4, values[:-4].sum() / 192)):
        coder = PatchAutoencoder.fit(pixels, components)
        found = coder.encode(pixels).latent_dist
        assert found.mode().shape == (40, components, 1, 1) and found.std.abs().max() < 1e-6
        assert torch.equal(found.sample(), found.mode())
        assert (coder.decode(found.mode()).sample - pixels).square().mean() == pytest.approx(lost, abs=1e-4, rel=1e-3)
    assert found.mode().square().mean() == pytest.approx(1, rel=0.05)
    assert torch.allclose(coder.encode(coder.decode(found.mode()).sample).latent_dist.mode(), found.mode(), atol=1e-3)
    latents = found.mode().requires_grad_()
    coder.decode(latents).sample[0].sum().backward()
    assert latents.grad[0].abs().max() > 0 and not latents.grad[1:].any()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of squares of 16 pixels whose quarters have the grey levels ``QUARTERS``, with a little noise."""
    folder, random = tmp_path_factory.mktemp("small") / "base", np.random.default_rng(0)
    pictures = np.kron(QUARTERS, np.ones((8, 8)))[..., None] + random.normal(0, 5, (64, 16, 16, 3))
    make_small_base(folder, pictures.astype(np.uint8), [CAPTIONS[n % 2] for n in range(64)], 0, steps=60, batch=32)
    return folder


def test_training_teaches_the_base_model(base: Path) -> None:
    """Through the generator that the scripts use: of new noise it finds a part. Who predicts none has an error of 1."""
    generator = FaceGenerator(str(base), "cpu")
    generator.set_scale(0.0)
    assert isinstance(generator.pipeline.vae, PatchAutoencoder) and generator.resolution == 16
    random = torch.Generator().manual_seed(9)
    pixels = torch.from_numpy(np.kron(QUARTERS, np.ones((8, 8)))).float().expand(128, 3, 16, 16) / 127.5 - 1
    noise = torch.randn(128, *generator.shape, generator=random)
    timestep = torch.linspace(0, 999, 128).long()
    noised = generator.noising.add_noise(generator.encode(pixels), noise, timestep)
    with torch.no_grad():
        found = generator.predict(noised, timestep, generator.text(CAPTIONS * 64), generator.intensities(n=128))
    error = (found - noise).square().mean().item()
    assert error < 0.85, error


def test_every_word_of_the_captions_is_a_token(base: Path) -> None:
    tokenizer = load_pipeline(str(base), torch.float32).tokenizer
    assert tokenizer.tokenize("A Bright square") == ["a</w>", "bright</w>", "square</w>"]
    spelt = tokenizer.tokenize("dark Zürich, 7")
    assert spelt[0] == "dark</w>" and len(spelt) > 4 and tokenizer.unk_token not in spelt


def test_weights_of_the_autoencoder_are_loaded_strictly(base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in base.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(base)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(base)).write_bytes(path.read_bytes())
    weights = copy / "vae/diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["other"] = state.pop("scales")
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(FergiError, match=r"1 missing keys in .*vae \(first: scales\)"):
        load_pipeline(str(copy), torch.float32)
    index = json.loads((copy / "model_index.json").read_text())
    assert index["vae"] == ["fergi.face_generation.small_base", "PatchAutoencoder"]


@pytest.mark.parametrize(
    ("shape", "captions"), [((3, 16, 16, 3), 2), ((2, 24, 24, 3), 2), ((2, 16, 32, 3), 2), ((0, 16, 16, 3), 0)]
)
def test_pictures_that_do_not_fit_are_refused(tmp_path: Path, shape: tuple[int, ...], captions: int) -> None:
    with pytest.raises(FergiError, match=r"do not make a small base model\. Give one caption a picture"):
        make_small_base(tmp_path / "base", np.zeros(shape, np.uint8), CAPTIONS[:captions], 0)
    assert not list(tmp_path.iterdir())
