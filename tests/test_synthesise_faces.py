"""Synthesis of faces: guidance and inversion by hand, sampling beside diffusers' own, the script and its folder."""

import itertools
import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import snapshot
from diffusers import DDIMScheduler
from drawn import write_faces
from filmed import moving_face, without_workers
from PIL import Image
from safetensors.torch import load_file, save_file
from small_generator import save_small_generator
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import preprocess_DISFA
import synthesise_faces
from fergi.action_units.disfa import read_disfa
from fergi.action_units.faces_dataset import read_faces, read_picture
from fergi.face_generation.classifier import ImageClassifier
from fergi.face_generation.disfa_folder import DisfaFolder
from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.guidance import Guidance
from fergi.face_generation.inversion import invert, round_trip_error
from fergi.face_generation.requests import each_picture
from fergi.face_generation.sampling import Layout, noise, sample
from fergi.features import ACTION_UNITS, NO_FACE, format_clip
from fergi.files import FergiError, write_json

UNITS = [f"AU{unit}" for unit in ACTION_UNITS]
CPU = torch.device("cpu")
STEPS = 4


# ---- by hand


class Linear:
    """A generator of 2 × 2 pixels whose noise is linear in latents and text, and which records what it is asked."""

    name, device, shape = "linear", CPU, (3, 2, 2)

    def __init__(self, slope=lambda signal: 0.0, constant=0.0):
        self.pipeline = SimpleNamespace(scheduler=DDIMScheduler(steps_offset=1, set_alpha_to_one=False))
        self.noising = self.pipeline.scheduler
        self.signal = self.noising.alphas_cumprod.double().numpy()  # ᾱ
        self.slope, self.constant, self.asked = slope, constant, []
        random = torch.Generator().manual_seed(1)
        self.weights = 0.1 * torch.randn(5, 4, 12, generator=random)  # from 5 tokens of width 4 to 12 latents
        self.mixing = torch.linalg.qr(torch.randn(12, 12, generator=random))[0]  # from latents to pixels

    def text(self, prompts):
        return torch.stack([torch.randn(5, 4, generator=torch.Generator().manual_seed(len(each))) for each in prompts])

    def intensities(self, n):
        return torch.full((n, 12), torch.nan)

    def predict(self, latents, timestep, text, intensities):
        self.asked.append((latents, int(timestep), text.detach()))
        of_text = torch.einsum("ntw,twl->nl", text, self.weights).reshape(latents.shape)
        return self.slope(self.signal[int(timestep)]) * latents + self.constant + of_text * (self.constant == 0)

    def decode(self, latents):
        return 0.1 * (latents.flatten(1) @ self.mixing).reshape(latents.shape)

    def encode(self, pixels):
        return (10 * pixels.flatten(1) @ self.mixing.T).reshape(pixels.shape)


class Quadratic:
    """Wants pictures to be grey of one level."""

    def loss(self, pixels):
        return ((pixels - 0.3) ** 2).sum(dim=(1, 2, 3))


def ideal_slope(signal):
    """The best noise predictor for latents of a normal distribution with variance 4."""
    return (1 - signal) ** 0.5 / (4 * signal + 1 - signal)


def test_guidance_follows_the_gradient():
    """At the last step each token moves by λ against the gradient, which finite differences give."""
    generator, step, scale = Linear(slope=lambda signal: 0.3), 0.25, 3.0
    make = partial(sample, generator, ["a", "bb"], generator.intensities(2), [0, 1], steps=STEPS, scale=scale)
    guide = Guidance(Quadratic(), step=step, first=(STEPS - 1) / STEPS)
    make(guide=guide)
    *_, (_, _, empty), (latents, timestep, before), (_, _, after) = generator.asked
    assert len(generator.asked) == 2 * STEPS + 1  # nothing else is guided
    signal, (weights, mixing) = (
        generator.signal[timestep],
        (each.double() for each in (generator.weights, generator.mixing)),
    )

    def loss(text, row):
        noises = [
            0.3 * latents[row].double().flatten() + torch.einsum("tw,twl->l", each.double(), weights)
            for each in (empty[row], text)
        ]
        guided = noises[0] + scale * (noises[1] - noises[0])
        clean = (latents[row].double().flatten() - (1 - signal) ** 0.5 * guided) / signal**0.5
        return float(((0.1 * clean @ mixing - 0.3) ** 2).sum())

    for row in range(2):
        gradient = torch.zeros(5, 4, dtype=torch.float64)
        for place in np.ndindex(5, 4):
            nudge = torch.zeros(5, 4, dtype=torch.float64)
            nudge[place] = 1e-5
            gradient[place] = (loss(before[row] + nudge, row) - loss(before[row] - nudge, row)) / 2e-5
        expected = -step * gradient / gradient.norm(dim=1, keepdim=True)
        torch.testing.assert_close((after - before)[row].double(), expected, rtol=1e-3, atol=1e-4)
        assert loss(after[row], row) < loss(before[row], row)


def test_guidance_lowers_the_loss_with_its_sign_alone():
    """The paper's plus is a negative step here."""
    generator, found = Linear(ideal_slope), {}
    for step in (0.1, 0.0, -0.1):
        guide = Guidance(Quadratic(), step=step, first=0.5)
        made = sample(generator, ["a"] * 3, generator.intensities(3), range(3), steps=10, scale=2, guide=guide)
        found[step] = Quadratic().loss(torch.from_numpy(made / 127.5 - 1).permute(0, 3, 1, 2))
    assert (found[0.1] < found[0.0]).all()
    assert (found[0.0] < found[-0.1]).all()
    generator.asked.clear()  # with a layout of the last 5 of 10 steps, the last 4 are guided all the same
    start = Layout(noise([0], generator.shape), 5)
    guide = Guidance(Quadratic(), first=0.6)
    sample(generator, ["a"], generator.intensities(1), [0], steps=10, scale=1, guide=guide, layout=start)
    assert [timestep for _, timestep, _ in generator.asked] == [401, 301, 301, 201, 201, 101, 101, 1, 1]
    with pytest.raises(FergiError, match="linear makes pictures that are not finite"):
        sample(Linear(constant=torch.inf), ["a"], generator.intensities(1), [0], steps=2, scale=1)
    flat = SimpleNamespace(loss=lambda pixels: 0 * pixels.sum(dim=(1, 2, 3)))
    text = torch.randn(1, 5, 4)
    assert torch.equal(Guidance(flat).moved(text, lambda told: told.reshape(1, 1, 5, 4)), text)
    endless = SimpleNamespace(loss=lambda pixels: torch.inf * pixels.sum(dim=(1, 2, 3)))
    with pytest.raises(FergiError, match="gradient of the guidance is not finite"):
        Guidance(endless).moved(text, lambda told: told.reshape(1, 1, 5, 4))


@pytest.mark.parametrize("share", [1, 0.7])
def test_inversion_by_hand(share):
    """A linear model multiplies latents at each step, by factors that can be written down from DDIM's equation.

    With constant noise forth and back are exact inverses; with the ideal noise of normal latents they are not.
    """
    pixels = 0.8 * torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(3)) - 0.4
    fixed = Linear(constant=0.2)
    assert round_trip_error(fixed, pixels, steps=10, share=share) < 0.5  # grey levels are whole numbers
    errors = []
    for steps in (10, 20, 40):
        generator = Linear(ideal_slope)
        generator.weights *= 0
        levels = np.concatenate([generator.signal[:1], generator.signal[np.arange(steps) * (1000 // steps) + 1]])
        there = back = 1.0
        for less, more in itertools.pairwise(levels[: round(share * steps) + 1]):
            slope = ideal_slope(more)

            def factor(begin, end, slope=slope):
                return (end / begin) ** 0.5 * (1 - (1 - begin) ** 0.5 * slope) + (1 - end) ** 0.5 * slope

            there, back = there * factor(less, more), back * factor(more, less)
        layout = invert(generator, pixels, steps=steps, share=share)
        assert layout.steps == round(share * steps)
        torch.testing.assert_close(layout.latents, there * generator.encode(pixels), rtol=1e-4, atol=1e-5)
        errors.append(abs(there * back - 1))
        expected = errors[-1] * 127.5 * pixels.square().mean().sqrt()
        assert round_trip_error(generator, pixels, steps=steps, share=share) == pytest.approx(expected, abs=0.5)
    assert errors[0] > 1.6 * errors[1] > 2.6 * errors[2]  # about as 1 / steps


# ---- a small pipeline


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pipeline of diffusers with random weights, 32 pixels."""
    return save_small_generator(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture(scope="module")
def generator(base):
    """With a new adapter, whose AUs count."""
    return FaceGenerator(str(base), CPU, seed=3)


@pytest.fixture(scope="module")
def root(base, generator, tmp_path_factory):
    """A root with the generator "faces", of aligned faces, and "scenes", of others."""
    root = tmp_path_factory.mktemp("root")
    for name, more in (("faces", {"aligned": True, "landmarks": "facemesh"}), ("scenes", {"aligned": False})):
        folder = root / "face_generators" / name
        folder.mkdir(parents=True)
        generator.save(folder / "au_adapter.safetensors")
        said = {"pipeline": str(base), "unet": generator.fingerprint(), "resolution": 32}
        write_json(said | more, folder / "settings.json")
    return root


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of three expressions with random weights."""
    folder = tmp_path_factory.mktemp("classifier") / "small"
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "initializer_range": 0.5,
    }
    torch.manual_seed(0)
    names = {0: "happy", 1: "Sad", 2: "angry"}
    ViTForImageClassification(ViTConfig(**sizes, image_size=48, patch_size=16, id2label=names)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


INTENSITIES = torch.tensor([[0.0] * 11 + [5], [3] * 12, [torch.nan] * 12])
PROMPTS, SEEDS = ["a face", "a smile", ""], [1, 2, 2**32 - 1]


def test_sampling_is_that_of_diffusers(generator):
    """One picture by StableDiffusionPipeline, which takes the same AUs for all, with DDIM and the same noise."""
    made = sample(generator, PROMPTS[:2], INTENSITIES[:2], SEEDS[:2], steps=STEPS, scale=3)
    pipeline = generator.pipeline
    options = {"scheduler": DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)}
    pipeline = type(pipeline).from_pipe(pipeline, **options, safety_checker=None)
    for row in range(2):
        told = torch.stack([torch.full((1, 12), torch.nan), INTENSITIES[row : row + 1]])
        start = noise(SEEDS[row : row + 1], generator.shape)
        asked = {"ip_adapter_image_embeds": [told], "num_inference_steps": STEPS, "guidance_scale": 3}
        theirs = pipeline(PROMPTS[row], **asked, latents=start, output_type="np").images[0] * 255
        assert np.abs(made[row] - theirs).max() < 0.55  # ours are whole numbers
        assert theirs.std() > 10


def test_same_seed_same_picture(generator):
    """Whatever the batch; another one may round a level otherwise. Each of text, AUs and seed matters."""
    make = partial(sample, generator, steps=STEPS, scale=3)
    together = make(PROMPTS, INTENSITIES, SEEDS)
    np.testing.assert_array_equal(make(PROMPTS, INTENSITIES, SEEDS), together)
    for row in range(3):
        alone = make(PROMPTS[row : row + 1], INTENSITIES[row : row + 1], SEEDS[row : row + 1])[0]
        difference = np.abs(alone.astype(int) - together[row])
        assert difference.max() <= 1
        assert difference.mean() < 0.02
    others = make(["a wall", *PROMPTS[1:]], INTENSITIES[[0, 2, 2]], [*SEEDS[:2], 5])
    assert (np.abs(others.astype(int) - together).max(axis=(1, 2, 3)) > 1).all()
    with pytest.raises(FergiError, match=r"501 steps are too many for .* at most 500"):
        make(PROMPTS, INTENSITIES, SEEDS, steps=501)


def test_a_classifier_guides(generator, classifier):
    """Its loss of the finished pictures falls with the minus and rises with the plus."""
    guide = ImageClassifier(str(classifier), CPU).guide(["happy", "SAD", "angry"])
    losses = []
    for step in (0.5, 0, -0.5):
        guidance = Guidance(guide, step=step, first=0)
        made = sample(generator, PROMPTS, INTENSITIES, SEEDS, steps=STEPS, scale=3, guide=guidance)
        losses.append(guide.loss(torch.from_numpy(made).permute(0, 3, 1, 2) / 127.5 - 1))
    assert (losses[0] < losses[1]).all()
    assert (losses[1] < losses[2]).all()


def test_classifiers_that_cannot_be_used(classifier, tmp_path):
    def refused(message, change):
        folder = shutil.copytree(classifier, tmp_path / "changed")
        change(folder)
        with pytest.raises(FergiError, match=message) as caught:
            ImageClassifier(str(folder), CPU)
        assert "\n" not in str(caught.value)
        shutil.rmtree(folder)

    def edit(name, **changes):
        return lambda folder: write_json(json.loads((folder / name).read_text()) | changes, folder / name)

    refused("cannot be loaded as an image classifier .*size mismatch", edit("config.json", hidden_size=32))
    refused("16 missing keys in", edit("config.json", num_hidden_layers=2))
    refused("prepares pictures in a way that is not known", edit("preprocessor_config.json", rescale_factor=1.0))
    refused("prepares pictures in a way that is not known", edit("preprocessor_config.json", resample=0))
    refused("prepares pictures in a way", edit("preprocessor_config.json", size={"height": 32, "width": 32}))
    refused("cannot be loaded as an image classifier", lambda folder: (folder / "config.json").unlink())


# ---- the script


def table(path, **columns):
    """A table of requests."""
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def run(root, *options, generator="faces"):
    options = [*options, "--steps", "2", "--device", "cpu"]
    synthesise_faces.main(["--root", str(root), "--generator", str(generator), *map(str, options)])


def test_folder_in_the_layout_of_disfa(root, tmp_path, capsys):
    """Labels are rounded, the asked values kept; what is not told is not labelled; everything is marked."""
    rows = {"prompt": ["a smile", "a face", ""], "AU12": ["2.5", "", ""], "AU4": ["0.4", "5", ""]}
    asked = table(tmp_path / "t.csv", **rows, n=[2, 1, 1], seed=[7, "", ""], person=["b", "a", "b"])
    out = tmp_path / "out"
    run(root, "--table", asked, "--out", out)
    first, second = read_disfa(out, ["Left"])
    assert (first.subject, first.names, second.subject, second.names) == ("SYN0001", ("1", "2", "3"), "SYN0002", ("1",))
    expected = np.zeros((3, 12), int)
    expected[:2, UNITS.index("AU12")], expected[2] = 3, -1
    np.testing.assert_array_equal(first.labels, expected)
    assert (first.n_missing, first.n_out_of_range) == (12, 0)
    assert second.labels.tolist() == [[5 * (name == "AU4") for name in UNITS]]

    said = pd.read_csv(out / "synthesised.csv")
    assert said["image"].tolist()[:2] == [f"Images_LeftCamera/SYN0001/{frame}.png" for frame in (1, 2)]
    assert said["seed"].tolist()[:2] == [7, 8]
    assert said["synthetic"].all()
    assert said["AU12"].tolist()[:3] == [2.5, 2.5, 0]
    assert said.loc[3, UNITS].isna().all()
    settings = json.loads((out / "settings.json").read_text())
    assert settings["synthetic"] is True
    for name in (*said["image"], "aligned/SYN0001/1.png"):
        text = Image.open(out / name).text
        assert "Synthetic" in text["Comment"]
    text = json.loads(Image.open(out / said["image"][1]).text["fergi"])
    assert (text["prompt"], text["seed"], text["AU12"], text["synthetic"]) == ("a smile", 8, 2.5, True)
    assert settings.items() >= {name: text[name] for name in ("steps", "scale", "adapter_sha256")}.items()

    # Stage 3 reads it as it is.
    write_faces(tmp_path, "DISFA", {"SN001": 2})
    faces, how, n_ignored = read_faces(tmp_path, "DISFA", more=[out])
    assert faces.subjects.tolist() == ["SN001"] * 2 + ["SYN0001", "SYN0001", "SYN0002", "SYN0001"]
    assert faces.labels[2:, 11].tolist() == [3, 3, 0, -1]
    assert (n_ignored, how["out landmarks"], how["out synthetic"]) == (0, "facemesh", True)
    assert read_picture(str(out / "aligned/SYN0001/1.png")).std() > 5
    assert f"--more {out}" in capsys.readouterr().out


def test_interrupted_and_resumed(root, tmp_path, monkeypatch):
    """The second picture of the second batch is not there yet; what is there is kept."""
    asked = table(tmp_path / "t.csv", prompt=["a", "b", "c", "d", "e"], AU1=[0, 1, 2, 3, 4])
    options = ["--table", asked, "--batch-size", 3]
    run(root, *options, "--out", tmp_path / "whole")
    written, write = [], DisfaFolder.write_picture

    def stop(folder, row, pixels):
        written.append(row)
        if written.count(4) == 1 and row == 4:
            raise KeyboardInterrupt
        write(folder, row, pixels)

    monkeypatch.setattr(DisfaFolder, "write_picture", stop)
    with pytest.raises(KeyboardInterrupt):
        run(root, *options, "--out", tmp_path / "resumed")
    assert not (tmp_path / "resumed" / "synthesised.csv").exists()
    run(root, *options, "--out", tmp_path / "resumed")
    assert written == [0, 1, 2, 3, 4, 4]
    assert snapshot(tmp_path / "resumed") == snapshot(tmp_path / "whole")
    for other in (["--scale", 2], ["--seed", 1]):
        with pytest.raises(FergiError, match=r"settings.json says that .* Choose another --out\."):
            run(root, *options, *other, "--out", tmp_path / "whole")


def test_scale_of_the_adapter(root, base, tmp_path):
    """At 0 AUs do nothing, and the picture is the base model's; at 1 and 3 they do."""
    asked = table(tmp_path / "t.csv", prompt=["a", "a"], AU12=[0, 5], seed=[3, 3])
    made = {}
    for scale in (0, 1, 3):
        run(root, "--table", asked, "--adapter-scale", scale, "--out", tmp_path / f"{scale}", generator="scenes")
        folder = tmp_path / f"{scale}" / "Images_LeftCamera" / "SYN0001"
        made[scale] = np.stack([np.asarray(Image.open(folder / f"{frame}.png")) for frame in (1, 2)]).astype(int)
        assert not (tmp_path / f"{scale}" / "index.csv").exists()  # these are no aligned faces
    moved = {scale: np.abs(pictures[0] - pictures[1]).mean() for scale, pictures in made.items()}
    assert moved[0] == 0 < moved[1]
    assert np.abs(made[1] - made[3]).mean() > 0.1
    plain = FaceGenerator(str(base), CPU)  # of other AU tokens
    plain.set_scale(0)
    expected = sample(plain, ["a"] * 2, torch.zeros(2, 12), [3, 3], steps=2, scale=7.5)
    np.testing.assert_array_equal(made[0], expected)


def test_layouts(root, classifier, tmp_path, capsys):
    """A folder's pictures are drawn by the seeds; with a classifier, all reaches the settings."""
    folder = tmp_path / "layouts"
    folder.mkdir()
    for number, picture in enumerate(moving_face(2)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    asked = table(tmp_path / "t.csv", prompt=["a"], expression=["sad"], AU1=[1], n=[6])
    options = ["--table", asked, "--layout-share", 1, "--layout", folder, "--guidance", classifier]
    run(root, *options, "--guidance-step", 0, "--out", tmp_path / "out")
    said = pd.read_csv(tmp_path / "out" / "synthesised.csv")
    pictures = np.stack([np.asarray(Image.open(tmp_path / "out" / name)).astype(int) for name in said["image"]])
    made = [pictures[rows] for rows in said.groupby("layout").indices.values()]
    assert len(made) == 2
    assert max(len(same) for same in made) > 1
    assert all(np.ptp(same, axis=0).max() <= 1 for same in made)  # seeds have no effect
    assert np.abs(made[0][0] - made[1][0]).max() > 1
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    run(root, *options, "--guidance-step", 1, "--guidance-first", 0, "--out", tmp_path / "guided")
    guided = np.asarray(Image.open(tmp_path / "guided" / said["image"][0])).astype(int)
    assert np.abs(guided - pictures[0]).max() > 1
    assert settings["layout"] == "layouts"
    assert settings["guidance"] == str(classifier)
    assert "sampling returns to the first layout within" in capsys.readouterr().out


def test_like_other_people(root, tmp_path):
    """Only valid frames of feature files are drawn, brought into 0-5; an AU that the estimator lacks is not told."""
    units = np.tile(np.array([[-0.5, *range(10), np.nan], [1.5] * 11 + [np.nan]]), (3, 1))
    frames = np.c_[np.tile([0.99, 0.7, 0.5], (6, 1)), units]
    frames[4:] = [NO_FACE, [0.99, 0.7, 0.9, *[4.0] * 11, np.nan]]  # no face, and one that looks aside
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "a_features.csv").write_bytes(format_clip(np.arange(6) / 30, frames, 3))
    run(root, "--like", tmp_path / "people", "--number", 12, "--out", tmp_path / "out", generator="scenes")
    said = pd.read_csv(tmp_path / "out" / "synthesised.csv")
    drawn = set(map(tuple, said[UNITS[:-1]].to_numpy().tolist()))
    assert drawn == {(0, 0, 1, 2, 3, 4, 5, 5, 5, 5, 5), (1.5,) * 11}
    assert said["AU26"].isna().all()
    assert said["prompt"].str.contains("slightly raised inner brows").sum() == (said["AU1"] == 1.5).sum()
    # In a study's data, people who do not share theirs are left out.
    data = (tmp_path / "people").rename(tmp_path / "data")
    for person, value in (("b", 0.0), ("c", 3.0)):
        (data / person).mkdir()
        frame = np.array([[0.99, 0.7, 0.5, *[value] * 12]])
        (data / person / "x_features.csv").write_bytes(format_clip([0], frame, 3))
    (data / "a_features.csv").unlink()
    write_json({"sharing": False, "withdrawn": False}, data / "b" / "consent.json")
    run(root, "--like", data, "--number", 9, "--out", tmp_path / "shared", generator="scenes")
    assert set(pd.read_csv(tmp_path / "shared" / "synthesised.csv")["AU4"]) == {3.0}
    # Aligned faces give their labels, and what was synthesised like them is one more such folder.
    aligned = tmp_path / "aligned"
    asked = table(tmp_path / "t.csv", prompt=["x", "y"], expression=["sad", ""], AU2=[2, 4])
    run(root, "--table", asked, "--out", aligned)
    run(root, "--like", aligned, "--number", 4, "--out", tmp_path / "more")
    said = pd.read_csv(tmp_path / "more" / "synthesised.csv", keep_default_na=False)
    assert set(zip(said["prompt"], said["expression"], said["AU2"], strict=True)) == {("x", "sad", 2.0), ("y", "", 4.0)}


def test_stage_1_reads_the_folder(root, tmp_path, monkeypatch):
    """Frames of a filmed face stand in for what a large generator would make."""
    monkeypatch.setattr(synthesise_faces, "sample", lambda *given, **options: np.stack(moving_face(len(given[1]))))
    asked = table(tmp_path / "t.csv", prompt=["a", "b", "c"], AU9=[1, 2.6, 5], person=["p", "q", "q"])
    run(root, "--table", asked, "--out", tmp_path / "out", generator="scenes")
    without_workers(monkeypatch)
    home = tmp_path / "home"
    preprocess_DISFA.main(["--root", str(home), "--disfa", str(tmp_path / "out"), "--cameras", "Left"])
    faces, _, _ = read_faces(home, "DISFA")
    assert faces.subjects.tolist() == ["SYN0001", "SYN0002", "SYN0002"]
    assert faces.labels[:, 8].tolist() == [1, 3, 5]


def test_each_picture():
    """A row's seeds depend on nothing behind it; without people a thousand pictures make a subject."""
    rows = {"prompt": ["a", "b"], "expression": "", "person": "", "n": [999, 3], "seed": [np.nan, 7]}
    requests = pd.DataFrame(rows | dict.fromkeys(UNITS, 1.0))
    pictures = each_picture(requests, 0)
    assert pictures["subject"].tolist() == ["SYN0001"] * 1000 + ["SYN0002"] * 2
    assert pictures["frame"].tolist() == [*range(1, 1001), 1, 2]
    assert pictures["seed"].tolist()[-3:] == [7, 8, 9]
    assert pictures["seed"].nunique() > 998
    assert pictures["seed"].tolist()[:5] == each_picture(requests.head(1).assign(n=5), 0)["seed"].tolist()
    assert not set(pictures["seed"]) & set(each_picture(requests.head(1), 1)["seed"])


@pytest.mark.parametrize(("columns", "message"), [
    ({"prompt": ["a", "b"], "AU4": [1, 5.5]}, "1 of 2 rows .* line 3, column AU4: '5.5' is not a number from 0 to 5"),
    ({"prompt": ["a", "b"], "AU4": ["-1", "nan"]}, "2 of 2 rows .* line 2, column AU4: '-1' is not"),
    ({"prompt": ["a"], "AU1": ["nan"]}, "line 2, column AU1: 'nan' is not a number"),
    ({"prompt": ["a"], "AU3": [1]}, r"1 of 2 columns of .* not known \(first: AU3\)\. Columns are prompt, AU1 to AU26"),
    ({"text": ["a"], "AU4": [1]}, "has no column prompt. Columns are"),
    ({"prompt": []}, "has a header but no rows"),
    ({"prompt": ["a"], "n": [0]}, "column n: '0' is not a whole number from 1"),
    ({"prompt": ["a"], "seed": [1.5]}, "column seed: '1.5' is not a whole number from 0"),
    ({"prompt": ["a", "b"], "person": ["a", ""]}, "line 3: no person, whom other rows have"),
])  # fmt: skip
def test_tables_that_cannot_be_used(root, tmp_path, columns, message):
    refused(root, message, "--table", table(tmp_path / "t.csv", **columns), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def refused(root, message, *options, generator="faces"):
    with pytest.raises(FergiError, match=message) as caught:
        run(root, *options, generator=generator)
    assert "\n" not in str(caught.value)


def test_bad_input(root, classifier, tmp_path):
    """One sentence each, before anything is written."""
    good = ["--out", tmp_path / "out", "--table"]
    one = table(tmp_path / "one.csv", prompt=["a", "b"], n=[1, 2], expression=["happy", "bored"])
    guided = "1 of 2 expressions is not known .*'bored'.* It knows happy, sad, angry"
    refused(root, guided, *good, one, "--guidance", classifier)
    refused(root, "cannot be loaded as an image classifier", *good, one, "--guidance", tmp_path)
    refused(root, "1 of 1 layouts is unusable .* not a picture", *good, one, "--layout", one)
    Image.fromarray(moving_face(1)[0]).save(tmp_path / "face.jpg")
    refused(root, "1 of 2 rows want several pictures", *good, one, "--layout", tmp_path / "face.jpg")
    (tmp_path / "none").mkdir()
    refused(root, "has no pictures", *good, one, "--layout", tmp_path / "none")
    refused(root, "neither index.csv nor feature files", *good[:2], "--like", tmp_path / "none", "--number", 1)
    refused(root, "2 of 2 files of the generator .* are missing .* Train one", *good, one, generator="nobody")

    other = save_small_generator(tmp_path / "other")  # the same seed, so change a value
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    values = load_file(weights)
    save_file({name: value + 0.01 for name, value in values.items()}, weights)
    changed = shutil.copytree(root / "face_generators" / "faces", tmp_path / "changed")
    settings = changed / "settings.json"
    write_json(json.loads(settings.read_text()) | {"pipeline": str(other)}, settings)
    refused(root, "another UNet than .* was trained on", *good, one, generator=changed)
    adapter = load_file(changed / "au_adapter.safetensors")
    adapter["tokens.names"] = adapter["tokens.names"][:, :16].contiguous()
    save_file(adapter, changed / "au_adapter.safetensors")
    refused(root, "1 of another shape .*tokens.names, .12, 16. instead of .12, 32.", *good, one, generator=changed)
    write_json({"pipeline": "x"}, settings)
    refused(root, "does not say unet. Train one", *good, one, generator=changed)
    assert not (tmp_path / "out").exists()
