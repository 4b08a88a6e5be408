"""Faces with chosen AUs: the adapter in the UNet, its training, its pictures, bad input."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import clip_text
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from filmed import GREY, film, moving_face
from PIL import Image
from safetensors.torch import load_file, save_file
from small_generator import save_small_generator
from transformers import CLIPTextModelWithProjection

import train_face_generator
from fergi.face_generation.adapter import ADAPTER_FILE as ADAPTER
from fergi.face_generation.adapter import ActionUnitAdapter
from fergi.face_generation.captions import caption
from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.pictures import read_pictures
from fergi.face_generation.small_base import make_small_base
from fergi.face_generation.training import FaceGeneratorTraining
from fergi.features import ACTION_UNITS
from fergi.files import FergiError, read_json, write_json
from fergi.recording.images import load_pipeline
from fergi.script import CHECKOUT


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Stable Diffusion with random weights, 32 pixels."""
    return str(save_small_generator(tmp_path_factory.mktemp("base") / "pipeline"))


@pytest.fixture(scope="module")
def generator(base):
    """With a new adapter; a test may not change it."""
    return FaceGenerator(base, "cpu")


def inputs(generator, n=2):
    """Latents, timesteps, text and intensities of n pictures."""
    random = torch.Generator().manual_seed(3)
    latents = torch.randn(n, *generator.shape, generator=random)
    intensities = torch.randint(0, 6, (n, 12), generator=random).float()
    return latents, torch.tensor([500, 40][:n]), generator.text(["a smiling face", ""][:n]), intensities


# ---- the adapter


@pytest.mark.parametrize("n_units", [1, 12])
def test_tokens_and_gradients(base, n_units):
    """A softmax over one token is 1, so that the keys get no gradient; over twelve they get one."""
    unet = load_pipeline(base, torch.float32).unet.requires_grad_(False)
    adapter = ActionUnitAdapter(unet, 0, "base", units=range(n_units))
    random = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 16, 16, generator=random), torch.randn(2, 7, 32, generator=random)
    told = {"image_embeds": [torch.full((2, 1, n_units), 3.0)]}
    unet(latents, 300, text, added_cond_kwargs=told).sample.square().sum().backward()
    size = {
        part: max(value.grad.abs().max().item() for name, value in adapter.named_parameters() if part in name)
        for part in ("to_k_ip", "to_v_ip", "vectors", "names")
    }
    assert len(adapter.layers) == 4 and size["to_v_ip"] > 1e-3
    if n_units == 1:
        assert size["to_k_ip"] < 1e-6 * size["to_v_ip"]
    else:
        assert all(value > 1e-4 * size["to_v_ip"] for value in size.values())


def test_values_are_graded(generator):
    """Doubling a value doubles the token's way from the name; null tokens are not those of zeros."""
    tokens = generator.adapter.tokens
    with torch.no_grad():
        zero, one, two = (tokens(torch.full((1, 12), value)) for value in (0.0, 1.5, 3.0))
        null = tokens(torch.full((1, 12), torch.nan))
        partly = tokens(torch.tensor([[3.0] * 5 + [torch.nan] * 7]))
    torch.testing.assert_close(two - zero, 2 * (one - zero), rtol=0, atol=1e-6)
    assert (two - zero).norm() > 1 and (null - zero).norm() > 1
    assert torch.equal(partly, torch.cat([two[:, :5], null[:, 5:]], dim=1))


def test_pipeline_computes_the_same(base, generator):
    """λ = 0 is the base model's picture to the bit; the pipeline's own step is that of ``predict``."""
    latents, _, _, intensities = inputs(generator)
    given = {"num_inference_steps": 1, "latents": latents, "output_type": "latent", "height": 32, "width": 32}
    prompts = ["a smiling face", "a face"]
    told = [torch.cat([generator.intensities(), intensities[:1]])[:, None]]
    plain = load_pipeline(base, torch.float32)
    plain.set_progress_bar_config(disable=True)
    made = {scale: None for scale in (0, 1)}
    for scale in made:
        generator.set_scale(scale)
        made[scale] = generator.pipeline(prompts, ip_adapter_image_embeds=told, **given).images
    assert torch.equal(made[0], plain(prompts, **given).images)
    assert (made[1] - made[0]).abs().max() > 1e-3
    pipeline, guidance = generator.pipeline, 7.5
    pipeline.scheduler.set_timesteps(1)
    time = pipeline.scheduler.timesteps[0]
    with torch.no_grad():
        with_text = generator.predict(latents, time, generator.text(prompts), intensities[[0, 0]])
        without = generator.predict(latents, time, generator.text(["", ""]), generator.intensities(n=2))
        noise = without + guidance * (with_text - without)
        expected = pipeline.scheduler.step(noise, time, latents).prev_sample
    assert (made[1] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_adapter_file(base, generator, tmp_path):
    """It comes back to the bit; a file that does not fit is refused in one sentence, and nothing is taken of it."""
    path = tmp_path / "au_adapter.safetensors"
    generator.save(path)
    again = FaceGenerator(base, "cpu", adapter=path, seed=1)
    given = inputs(generator)
    with torch.no_grad():
        assert torch.equal(again.predict(*given), generator.predict(*given))
    assert not torch.equal(FaceGenerator(base, "cpu", seed=1).adapter.tokens.names, again.adapter.tokens.names)
    values, other = load_file(path), tmp_path / "other.safetensors"
    bad = {
        r"1 missing \(first: tokens\.null\)": {name: value for name, value in values.items() if "null" not in name},
        r"1 not known \(first: more\)": values | {"more": torch.ones(1)},
        r"1 of another shape \(first: tokens\.null, \(3, 32\) instead of \(12, 32\)\)": values
        | {"tokens.null": torch.ones(3, 32)},
    }
    for message, content in bad.items():
        save_file(content, other)
        with pytest.raises(FergiError, match=message):
            again.load(other)
    with pytest.raises(FergiError, match=r"1 of 1 weight file is missing .* Train it with train_face_generator.py"):
        again.load(tmp_path / "nothing.safetensors")
    with torch.no_grad():
        assert torch.equal(again.predict(*given), generator.predict(*given))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_models_that_predict_velocity(base, tmp_path, precision):
    """The predicted noise and diffusers' clean picture of the same velocity make up what went in."""
    pipeline = load_pipeline(base, torch.float32)
    options = {"prediction_type": "v_prediction", "clip_sample": False}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **options)
    pipeline.save_pretrained(tmp_path)
    generator = FaceGenerator(str(tmp_path), "cpu", precision=precision)
    latents, time, text, intensities = inputs(generator)
    pipeline.scheduler.set_timesteps(1000)
    told = {"image_embeds": [intensities[:, None]]}
    with torch.no_grad():
        noise = generator.predict(latents, time, text, intensities)
        with generator.autocast():
            velocity = generator.unet(latents.to(generator.dtype), time, text, added_cond_kwargs=told).sample.float()
    for each in range(2):
        given = latents[[each]]
        clean = pipeline.scheduler.step(velocity[[each]], time[each], given).pred_original_sample
        signal = pipeline.scheduler.alphas_cumprod[time[each]]
        again = signal.sqrt() * clean + (1 - signal).sqrt() * noise[[each]]
        torch.testing.assert_close(again, given, rtol=0, atol=1e-4 if precision == "float32" else 0.05)


def test_gradients_through_encode_and_decode(generator):
    """Of pictures, both ways; the mean of the VAE's distribution where no sampling is given."""
    pixels = torch.zeros(1, 3, 32, 32, requires_grad=True)
    latents = generator.encode(pixels)
    assert latents.shape == (1, *generator.shape)
    generator.decode(latents).square().sum().backward()
    assert pixels.grad.abs().sum() > 0
    random = torch.randn(1, *generator.shape)
    assert not torch.equal(generator.encode(pixels, random), latents)
    assert torch.equal(generator.encode(pixels, torch.zeros_like(random)), latents)


# ---- pictures and captions


def write_faces(folder, n=24, side=32, people=6, margin=8, **columns):
    """Write pictures whose square is as bright as AU4 is high; AU12 has no effect. Gives the index."""
    folder.mkdir(parents=True)
    random, rows = np.random.default_rng(len(folder.name)), []
    for number in range(n):
        levels = random.normal(100, 12, (side, side, 3))
        brow, mouth = random.integers(0, 6, 2).tolist()
        levels[margin : side - margin, margin : side - margin] = 30 + 40 * brow
        cv2.imwrite(str(folder / f"{number}.png"), levels.clip(0, 255).astype(np.uint8))
        rows.append({"image": f"{number}.png", "subject": f"P{number % people}", "AU4": brow, "AU12": mouth} | columns)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "index.csv", index=False)
    return table


def test_reading(tmp_path):
    """Unknown AUs are NaN; captions are given or made; people are split; settings are those that folders share."""
    write_faces(tmp_path / "first")
    table = write_faces(tmp_path / "others", n=4, people=1, caption="a square", expression="sad")
    table["AU4"], table["AU6"] = [-1, None, 2.5, 5], 0
    table.to_csv(tmp_path / "others/index.csv", index=False)
    for name, luma in (("first", "released"), ("others", "correct")):
        write_json({"luma": luma, "landmarks": "facemesh"}, tmp_path / name / "settings.json")
    pictures, settings = read_pictures([tmp_path / "first", tmp_path / "others", tmp_path / "first"])
    assert len(pictures) == 28 and settings == {"landmarks": "facemesh", "aligned": True}
    known = ~np.isnan(pictures.intensities)
    assert known[:24].all(axis=0).tolist() == [unit in (4, 12) for unit in ACTION_UNITS]
    np.testing.assert_array_equal(pictures.intensities[24:, 2], [np.nan, np.nan, 2.5, 5])
    assert pictures.captions[24] == "a square" and pictures.expressions[[0, 24]].tolist() == ["", "sad"]
    assert "lowered brows" in pictures.captions[np.flatnonzero(pictures.intensities[:, 2] == 4)[0]]
    training, held_out, what = pictures.split(["P1", "P3"], 0.1, 0)
    assert what == "people: P1, P3" and set(pictures.people[held_out]) == {"P1", "P3"}
    assert sorted([*training, *held_out]) == list(range(28))
    training, held_out, _ = pictures.split([], 0.1, 0)
    assert len(set(pictures.people[held_out])) == 1 and not set(pictures.people[held_out]) & set(
        pictures.people[training]
    )


@pytest.mark.parametrize(
    ("told", "expression", "expected"),
    [
        ({}, "", "a portrait of a person with a neutral face"),
        ({}, "angry", "a portrait of an angry person"),
        ({4: 3, 9: 1}, "", "a portrait of a person with lowered brows, a slightly wrinkled nose"),
        ({12: 5, 25: 0.9}, "happy", "a portrait of a happy person with mouth corners pulled up"),
        ({4: np.nan}, "", "a portrait of a person"),
    ],
)
def test_captions(told, expression, expected):
    """Named from intensity 1, clear from 3; a neutral face only where every AU is known."""
    assert caption([told.get(unit, 0) for unit in ACTION_UNITS], expression) == expected


# ---- training


def train(root, base, faces, *more):
    """Run the script; gives the folder that it wrote and its log."""
    given = "--steps 4 --batch-size 4 --evaluate-every 2 --sample-steps 2 --sample-units 4 --evaluated-pictures 8"
    given += " --device cpu --workers 1 --rate 1e-2"
    paths = ["--root", str(root), "--pipeline", str(base), "--faces", str(faces)]
    train_face_generator.main([*paths, *given.split(), *map(str, more)])
    folder = root / "face_generators" / "faces"
    return folder, pd.read_csv(folder / "training_log.csv")


def test_killed_and_resumed(tmp_path, base, monkeypatch):
    """The same adapter, log and samples to the last bit; other settings are refused; a loss of NaN stops it."""
    write_faces(tmp_path / "faces")
    given = tmp_path, base, tmp_path / "faces", "--state-every", 1, "--evaluate-every", 3
    folder, log = train(*given, "--pictures-at-once", 3)
    whole, sheet = load_file(folder / ADAPTER), (folder / "samples/step_000004.png").read_bytes()
    assert log["step"].tolist() == [0, 3, 4] and log["loss"].notna().tolist() == [False, True, True]
    assert Image.open(folder / "samples/step_000004.png").size == (48 + 6 * 32 + 4, 24 + 32)
    settings = read_json(folder / "settings.json", "")
    assert settings["resolution"] == 32 and settings["aligned"] and settings["pipeline"] == base
    step = FaceGeneratorTraining.step

    def stopping(training, *given):
        if training.steps_done == 2:
            raise KeyboardInterrupt
        step(training, *given)

    monkeypatch.setattr(FaceGeneratorTraining, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(*given, "--restart", "--pictures-at-once", 3)
    assert not (folder / ADAPTER).exists()
    monkeypatch.undo()
    with pytest.raises(FergiError, match=r"says that rate was 0.01 .* now it is 0.1"):
        train(*given, "--rate", 0.1)
    folder, resumed = train(*given, "--pictures-at-once", 3)
    again = load_file(folder / ADAPTER)
    assert again.keys() == whole.keys() and all(torch.equal(again[name], value) for name, value in whole.items())
    assert (folder / "samples/step_000004.png").read_bytes() == sheet
    pd.testing.assert_frame_equal(resumed, log, check_exact=True)


def test_losses_that_are_not_finite(tmp_path, base, monkeypatch):
    """Training stops and says which adapter is kept."""
    write_faces(tmp_path / "faces")
    step = FaceGeneratorTraining.step

    def spoiling(training, rows, pixels):
        spoilt = [pixel * torch.nan for pixel in pixels] if training.steps_done == 2 else pixels
        step(training, rows, spoilt)

    given = tmp_path, base, tmp_path / "faces", "--evaluated-pictures", 2, "--evaluate-every", 1, "--sample-units"
    monkeypatch.setattr(FaceGeneratorTraining, "step", spoiling)
    with pytest.raises(
        FergiError, match=r"The loss .* after step 2: training has failed\. The adapter of step 2 is kept"
    ):
        train(*given)
    kept = load_file(tmp_path / "face_generators/faces" / ADAPTER)
    assert all(value.isfinite().all() for value in kept.values())
    with pytest.raises(
        FergiError, match=r"held-out pictures is not .* after step 1: .* has failed\. Lower --rate, and"
    ):
        train(*given, "--rate", 1e30, "--restart")


def test_adapter_learns(tmp_path, capsys):
    """The whole picture is as bright as AU4, and latents say nothing but brightness, so AU4 says all that noise hides.

    The loss falls below that with null tokens and below that with the AUs of other pictures.
    """
    write_faces(tmp_path / "faces", n=200, side=16, caption="a square", margin=0)
    levels = np.stack([cv2.imread(str(tmp_path / f"faces/{number}.png")) for number in range(160)])
    make_small_base(tmp_path / "base", levels, ["a square"] * 160, 0, steps=100, components=1, widths=(16, 16))
    more = (
        "--steps 100 --batch-size 32 --evaluate-every 100 --evaluated-pictures 40 --held-out P1 --pictures-at-once 32"
    )
    _, log = train(tmp_path, tmp_path / "base", tmp_path / "faces", *more.split())
    print(log.to_string())
    before, after = log.iloc[0], log.iloc[-1]
    assert after["held_out_loss_aus"] < 0.9 * before["held_out_loss_aus"]
    assert after["held_out_loss_aus"] < 0.9 * after["held_out_loss_null"]
    assert after["held_out_loss_aus"] < 0.9 * after["held_out_loss_others"]
    assert "Warning" not in capsys.readouterr().out, log


def test_small_base(tmp_path):
    """It is made of the training pictures, and made once."""
    write_faces(tmp_path / "faces", n=60)
    given = tmp_path, "small", tmp_path / "faces", "--resolution", 32, "--base-steps", 2, "--steps", 1, "--sample-units"
    train(*given)
    (made,) = (tmp_path / "pretrained_models").iterdir()
    written = (made / "model_index.json").stat().st_mtime_ns
    train(*given, "--restart", "--rate", 1e-3)
    assert list((tmp_path / "pretrained_models").iterdir()) == [made]
    assert (made / "model_index.json").stat().st_mtime_ns == written


# ---- clips


def write_clip(folder, name, values, picture=None):
    """A video of the portrait, or of another picture, and its features."""
    frames = moving_face(len(values)) if picture is None else [picture] * len(values)
    film(folder / f"{name}.mp4", frames)
    (folder / f"{name}_features.csv").write_text(clip_text(values))


def test_faces_are_cut_out_of_clips(tmp_path, base):
    """Evenly spread valid frames, with their own intensities; people who do not share are not used; once."""
    rising = np.linspace(-0.5, 5.5, 24)
    write_clip(tmp_path / "data/001/session_1", "reaction_clip_1", rising)
    write_clip(tmp_path / "data/002/session_1", "reaction_clip_1", rising, GREY)
    write_clip(tmp_path / "data/003/session_1", "reaction_clip_1", rising)
    write_json({"sharing": False, "withdrawn": False}, tmp_path / "data/003/consent.json")
    _, log = train(tmp_path, base, tmp_path / "data", "--frames-per-clip", 5, "--steps", 1, "--sample-units")
    assert len(log) == 2
    (cut,) = (tmp_path / "preparation/cut_faces").iterdir()
    table = pd.read_csv(cut / "index.csv", dtype={"subject": str})
    assert set(table["subject"]) == {"001"} and table["frame"].tolist() == [1, 7, 13, 18, 24]
    np.testing.assert_allclose(table["AU4"], rising[[0, 6, 12, 17, 23]].clip(0, 5), atol=1e-3)
    settings = read_json(tmp_path / "face_generators/faces/settings.json", "")
    assert not settings["aligned"] and settings["n_training"] + settings["n_held_out"] == 5
    picture = cv2.imread(str(cut / table["image"][0]))
    height, width = picture.shape[:2]
    assert height == width > 100, "the face is 75 pixels wide, and its surroundings are there"
    written = (cut / "index.csv").stat().st_mtime_ns
    train(tmp_path, base, tmp_path / "data", "--frames-per-clip", 5, "--steps", 1, "--sample-units", "--restart")
    assert (cut / "index.csv").stat().st_mtime_ns == written
    write_clip(tmp_path / "grey", "one", rising, GREY)
    with pytest.raises(FergiError, match=r"No valid frame of the 1 clips in .*grey has a face\."):
        train(tmp_path, base, tmp_path / "grey")
    (tmp_path / "grey/one.mp4").unlink()
    with pytest.raises(FergiError, match=r"1 of 1 feature files has no video beside them .*one_features.csv"):
        train(tmp_path, base, tmp_path / "grey")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FergiError, match=r"empty has neither an index\.csv nor feature files"):
        train(tmp_path, base, tmp_path / "empty")


# ---- what goes wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.rename(columns={"AU12": "AU7"}), r"has a column AU7; the AUs are AU1, AU2, AU4"),
        (
            lambda table: table.assign(AU4=[6, *table["AU4"][1:]]),
            r"line 2, column AU4: .*6.* is no intensity from 0 to 5",
        ),
        (lambda table: table.assign(AU4=["x", *table["AU4"][1:]]), r"line 2, column AU4: 'x' is no intensity"),
        (lambda table: table.assign(AU12=-0.5), r"line 2, column AU12: .*-0\.5.* is no intensity"),
        (lambda table: table.replace("1.png", "no.png"), r"1 of 24 pictures of .*index\.csv is missing .*no\.png"),
        (lambda table: pd.concat([table, table[:1]]), r"image 0\.png, subject P0 appears twice"),
        (lambda table: table.drop(columns="image"), "has no column image"),
        (lambda table: table[:0], "has a header but no rows"),
    ],
)
def test_bad_tables(tmp_path, change, message):
    """One sentence each."""
    change(write_faces(tmp_path / "faces")).to_csv(tmp_path / "faces/index.csv", index=False)
    with pytest.raises(FergiError, match=message):
        read_pictures([tmp_path / "faces"])


def save_other_bases(base, folder):
    """Stable Diffusion without cross-attention, and an SDXL, in so far as its kind is seen."""
    pipeline = load_pipeline(base, torch.float32)
    blocks = {"block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 16, "cross_attention_dim": 32}
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    pipeline.unet = UNet2DConditionModel(mid_block_type="UNetMidBlock2D", **kinds, **blocks)
    pipeline.save_pretrained(folder / "plain")
    parts = {name: pipeline.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    second = CLIPTextModelWithProjection(pipeline.text_encoder.config)
    StableDiffusionXLPipeline(
        **parts, text_encoder_2=second, tokenizer_2=pipeline.tokenizer, add_watermarker=False
    ).save_pretrained(folder / "xl")


def test_bad_input(tmp_path, base):
    """One sentence each, before any training."""
    faces = tmp_path / "faces"
    write_faces(faces)
    save_other_bases(base, tmp_path)
    for more, message in {
        (tmp_path / "plain", faces): r"plain has no cross-attention, to which AUs could be added\.",
        (tmp_path / "xl", faces): r"xl is a StableDiffusionXLPipeline, which cannot be tuned here\.",
        (tmp_path, faces): "cannot be loaded as an image generator",
        (base, tmp_path / "nowhere"): "nowhere is not a folder",
        (base, faces, "--held-out", "Nobody"): r"1 of 1 held-out people is not in the data .*Choose from P0, P1",
        (base, faces, "--held-out", *(f"P{number}" for number in range(6))): "All 24 pictures are held out",
        (base, faces, "--resolution", 33): r"makes no pictures of 33 pixels\. Choose a multiple of 8\.",
    }.items():
        with pytest.raises(FergiError, match=message):
            train(tmp_path, *more)
    (faces / "3.png").write_bytes(b"no picture")
    with pytest.raises(FergiError, match=r"1 of 24 pictures is unusable \(first: .*3\.png is not a picture"):
        train(tmp_path, base, faces)
    with pytest.raises(FergiError, match=r"There are no aligned faces in .*preparation\. Run preprocess_DISFA\.py"):
        train_face_generator.main(["--root", str(tmp_path), "--pipeline", base, "--device", "cpu"])
    assert (
        not list(tmp_path.rglob("*.safetensors.part")) and not (tmp_path / "face_generators/faces" / ADAPTER).exists()
    )


@pytest.mark.parametrize("more", ["--sample-units 7", "--held-out-share 1", "--empty-texts 2", "--guidance 0.5"])
def test_bad_arguments(tmp_path, more, capsys):
    """Refused before anything is read."""
    with pytest.raises(SystemExit):
        train_face_generator.main(["--root", str(tmp_path), "--pipeline", "small", *more.split()])
    assert more.split()[0] in capsys.readouterr().err


def test_two_processes(tmp_path, base):
    """Accelerate's processes share a batch and give the adapter of one process, but for rounding."""
    write_faces(tmp_path / "faces")
    given = "--steps", "2", "--sample-units"
    folder, log = train(tmp_path, base, tmp_path / "faces", *given)
    script = [str(CHECKOUT / "train_face_generator.py"), "--root", str(tmp_path), "--pipeline", base, "--faces"]
    script += f"{tmp_path / 'faces'} --batch-size 4 --evaluate-every 2 --evaluated-pictures 8 --rate 1e-2".split()
    script += "--steps 2 --sample-units --device cpu --workers 1 --name two".split()
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2"  # on CPUs `accelerate launch` needs MPI
    done = subprocess.run(
        [sys.executable, *launch.split(), *script],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("on 2 x cpu") == 1
    other = tmp_path / "face_generators/two"
    np.testing.assert_allclose(pd.read_csv(other / "training_log.csv"), log, rtol=1e-4)
    one, two = (
        torch.cat([value.flatten() for value in load_file(each / ADAPTER).values()]) for each in (folder, other)
    )
    # Adam makes whole steps of gradients that are nothing but rounding: a few values may differ by two each way.
    assert (one - two).abs().max() <= 2 * 2 * 1e-2
    assert torch.isclose(two, one, rtol=1e-2, atol=2e-4).float().mean() > 0.98
