"""Tuning of a generator: losses by hand, the script on tiny pipelines, a planted taste, resuming, bad input."""

import io
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_generator import save_small_generator
from small_scorers import LAYOUTS, NAMES, drawn, load_small, write_small_models

import finetune_generator
from fergi.files import FergiError, write_json
from fergi.finetuning.generator import Generator
from fergi.finetuning.generator_losses import dpo_loss, dpo_margin, kto_divergence, kto_loss, refl_loss, squared_error
from fergi.finetuning.generator_report import implicit_accuracy
from fergi.finetuning.generator_rewards import square_pixels
from fergi.finetuning.generator_training import GeneratorTuning
from fergi.finetuning.reactions import read_reactions
from fergi.recording.images import load_pipeline
from fergi.script import CHECKOUT
from synthetic.generator import WARM, background, draw_thing, is_warm, make_generator, random_prompt

LN_2 = math.log(2)
LORA = "pytorch_lora_weights.safetensors"


def tensor(*values):
    """In double precision, with gradients."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


# ---- losses


def test_dpo_by_hand():
    """Errors 0.10 and 0.12, of the reference 0.11 both, β 100: the margin is −½ · 100 · (−0.02) = 1."""
    errors = tensor(0.10), tensor(0.12), tensor(0.11), tensor(0.11)
    margin = dpo_margin(*errors, beta=100)
    assert margin.item() == pytest.approx(1)
    turned = dpo_margin(errors[1], errors[0], errors[3], errors[2], beta=100)
    assert turned.item() == pytest.approx(-1)
    # The reference may differ between the pictures: −½ · 100 · (−0.02 + 0.03) = −0.5.
    assert dpo_margin(*errors[:2], tensor(0.10), tensor(0.13), beta=100).item() == pytest.approx(-0.5)
    labels = torch.tensor([1, 0.75, 0.5, 0, 0.3], dtype=torch.float64)
    expected = [0.3132616875, 0.5632616875, 0.8132616875, 1.3132616875, 0.3 * 0.3132616875 + 0.7 * 1.3132616875]
    np.testing.assert_allclose(dpo_loss(margin.expand(5), labels).detach(), expected, atol=1e-9)
    assert dpo_loss(torch.zeros(5, dtype=torch.float64), labels).tolist() == pytest.approx([LN_2] * 5, abs=1e-15)
    # diffusers' script: −log σ(β · (Δ of the reference − Δ)), without the ½ and with half of β.
    theirs = -torch.nn.functional.logsigmoid(50 * ((0.10 - 0.13) - (errors[0] - errors[1])))
    ours = dpo_loss(dpo_margin(*errors[:2], tensor(0.10), tensor(0.13), beta=100), torch.ones(1))
    assert ours.item() == pytest.approx(theirs.item())


def test_kto_by_hand():
    """Gains 0.03, −0.01 and 0.01 have the mean 0.01; with β 100 the logits are 2, −2 and 0; never below 0."""
    gain, liked = tensor(0.03, -0.01, 0.01, 0.03), torch.tensor([True, True, False, False])
    divergence = kto_divergence(gain[:3])
    assert divergence.item() == pytest.approx(0.01) and kto_divergence(-gain).item() == 0
    expected = [0.1192029220, 0.8807970780, 0.5, 0.8807970780]
    np.testing.assert_allclose(kto_loss(gain, liked, divergence, 100).detach(), expected, atol=1e-9)
    assert not divergence.requires_grad


def test_other_losses_by_hand():
    """ReFL stops at a reward of 2; e is a mean over channels, height and width."""
    np.testing.assert_allclose(refl_loss(tensor(1.0, -1.0, 2.5)).detach(), [1e-3, 3e-3, 0], atol=1e-15)
    target = torch.zeros(2, 2, 1, 2)
    assert squared_error(torch.tensor([1.0, 2, 3, 4, 0, 0, 0, 2]).view(2, 2, 1, 2), target).tolist() == [7.5, 1]


def test_gradients_against_finite_differences():
    """PyTorch's own comparison, away from the hinge's corner."""
    errors = [tensor(0.3, 0.5, 0.2), tensor(0.4, 0.1, 0.2), tensor(0.35, 0.4, 0.1), tensor(0.3, 0.2, 0.3)]
    label, liked = torch.tensor([1, 0.7, 0.5], dtype=torch.float64), torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda *each: dpo_loss(dpo_margin(*each, beta=7), label), errors)
    assert torch.autograd.gradcheck(lambda each: kto_loss(each, liked, torch.tensor(0.1), 5), errors[:1])
    assert torch.autograd.gradcheck(refl_loss, errors[:1])


def test_implicit_accuracy():
    """A margin of 0 counts for neither side, and a label of ½ has no side."""
    margin, label = np.array([1, -2, 3, 0, 5, -1.0]), np.array([0.9, 0.2, 0.4, 1, 0.5, 0])
    assert implicit_accuracy(list("aabbcc"), margin, label, 0)["estimate"] == 75
    assert implicit_accuracy(list("ab"), np.zeros(2), np.ones(2), 0).isna().all()


# ---- the script


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Random weights, 32 pixels."""
    return save_small_generator(tmp_path_factory.mktemp("generator") / "pipeline")


def png(level, seed):
    """A flat grey picture with a little noise, as the bytes of a file."""
    levels = (level + np.random.default_rng(seed).normal(0, 10, (32, 32, 3))).clip(0, 255).astype(np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(levels).save(file, "png")
        return file.getvalue()


def write_pairs(path, labels, **changed):
    """Pairs of a bright and a dark picture; ``labels`` has the probabilities that the bright one is preferred."""
    rows = []
    for number, label in enumerate(labels):
        levels, p = ((200, 60), label) if number % 3 else ((60, 200), 1 - label)
        row = {"caption": f"thing {number % 8}", "label_0": p, "label_1": 1 - p, "user_id": number % 8}
        row |= {f"jpg_{side}": png(level, 2 * number + side) for side, level in enumerate(levels)}
        rows.append(row | changed)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def tune(root, pipeline, pairs, *more):
    """Run the script; gives the folder that it wrote and its log."""
    given = "--steps 4 --batch-size 4 --evaluate-every 2 --sample-steps 2 --sample-prompts 1 --evaluated-pairs 8"
    given += " --rate 1e-3 --beta 2000 --rank 2 --device cpu --workers 1 --precision float32"
    paths = ["--root", str(root), "--pipeline", str(pipeline), "--pairs", str(pairs)]
    finetune_generator.main([*paths, *given.split(), *map(str, more)])
    folder = root / "tuned_generators" / "tuned"
    return folder, pd.read_csv(folder / "training_log.csv")


SOFT = [0.9, 0.5, 1.0, 0.75] * 8


def test_script(tmp_path, pipeline, capsys):
    """The first loss is ln 2 whatever the labels, the reference stays, and diffusers loads what was written."""
    pairs = write_pairs(tmp_path / "pairs.parquet", SOFT)
    _, log = tune(tmp_path, pipeline, pairs, "--steps", 1, "--evaluate-every", 1, "--name", "tuned", "--rate", 1e-2)
    assert log["loss"][1] == pytest.approx(LN_2, abs=1e-15) and log["held_out_loss"][0] == pytest.approx(
        LN_2, abs=1e-15
    )
    assert log["ties"][1] == 100 and log["held_out_ties"].tolist() == [100, 0] and log["error_ratio"][0] == 1
    folder, log = tune(tmp_path, pipeline, pairs, "--rate", 1e-2, "--alpha", 3, "--restart")
    assert log["step"].tolist() == [0, 2, 4] and log["reference_error"].nunique() == 1
    said = capsys.readouterr().out
    assert "try --beta 200." in said and "load_lora_weights" in said and "Resuming" not in said
    loaded, plain = (load_pipeline(str(pipeline), torch.float32) for _ in range(2))
    loaded.load_lora_weights(folder)
    rank = {value.shape[0] for name, value in loaded.unet.named_parameters() if "lora_A" in name}
    assert rank == {2}
    for step, made_by in ((0, plain), (4, loaded)):
        made_by.set_progress_bar_config(disable=True)
        grid = np.asarray(Image.open(folder / f"samples/step_{step:06d}.png")).astype(int)
        random = [torch.Generator().manual_seed(seed) for seed in range(4)]
        prompt = (folder / "samples/prompts.txt").read_text().strip()
        again = made_by([prompt] * 4, num_inference_steps=2, guidance_scale=7.5, generator=random, height=32, width=32)
        row = np.concatenate([np.asarray(each) for each in again.images], axis=1)
        assert np.abs(grid - row).max() <= 1, "the same seeds must give the same pictures, but for rounding"
    changed = np.asarray(Image.open(folder / "samples/step_000000.png")).astype(int) - grid
    assert np.abs(changed).max() > 3, "the adapter must change the pictures"


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_killed_and_resumed(tmp_path, pipeline, monkeypatch, loss):
    """The same adapter and log to the last bit, from a state of plain tensors; other settings are refused."""
    if loss == "kto":
        pairs = write_reactions(tmp_path, ["exclusive_win", "exclusive_lose"] * 8)
    else:
        pairs = write_pairs(tmp_path / "pairs.parquet", SOFT)
    more = ["--loss", loss, "--state-every", 1, "--steps", 4, "--evaluate-every", 3, "--sample-prompts", 0]
    folder, log = tune(tmp_path, pipeline, pairs, *more, "--pairs-at-once", 3)
    whole, state = load_file(folder / LORA), torch.load(folder / "last_training_state.pth", weights_only=True)
    assert state["steps_done"] == 4 and state["trained"].keys() and log["step"].tolist() == [0, 3, 4]
    for path in folder.rglob("*"):
        assert path.suffix not in (".pkl", ".bin", ".pt"), "no file of another engine's state"
    step = GeneratorTuning.step

    def stopping(tuning, *given):
        if tuning.steps_done == 2:
            raise KeyboardInterrupt
        step(tuning, *given)

    monkeypatch.setattr(GeneratorTuning, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, pipeline, pairs, *more, "--pairs-at-once", 3, "--restart")
    assert not (folder / LORA).exists()
    monkeypatch.undo()
    with pytest.raises(FergiError, match=r"says that rate was 0.001.* now it is 0.1"):
        tune(tmp_path, pipeline, pairs, *more, "--rate", 0.1)
    folder, resumed = tune(tmp_path, pipeline, pairs, *more, "--pairs-at-once", 3)
    again = load_file(folder / LORA)
    assert again.keys() == whole.keys() and all(torch.equal(again[name], value) for name, value in whole.items())
    pd.testing.assert_frame_equal(resumed, log, check_exact=True)


def test_two_processes(tmp_path, pipeline):
    """Accelerate's processes share a batch and give the adapter of one process, but for rounding."""
    pairs = write_pairs(tmp_path / "pairs.parquet", SOFT)
    folder, log = tune(tmp_path, pipeline, pairs, "--steps", 2, "--sample-prompts", 0)
    script = [str(CHECKOUT / "finetune_generator.py"), "--root", str(tmp_path), "--pipeline", str(pipeline)]
    script += (
        f"--pairs {pairs} --steps 2 --batch-size 4 --evaluate-every 2 --sample-prompts 0 --evaluated-pairs 8".split()
    )
    script += "--rate 1e-3 --beta 2000 --rank 2 --device cpu --workers 1 --name two".split()
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2"  # on CPUs `accelerate launch` needs MPI
    command = [sys.executable, *launch.split(), *script]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("on 2 x cpu") == 1
    other = pd.read_csv(tmp_path / "tuned_generators/two/training_log.csv")
    np.testing.assert_allclose(other.iloc[:, 1:].astype(float), log.iloc[:, 1:].astype(float), rtol=1e-4)
    first, second = (
        torch.load(each / "last_training_state.pth", weights_only=True)["trained"]
        for each in (folder, tmp_path / "tuned_generators/two")
    )
    one, two = (torch.cat([each[name].flatten() for name in first]) for each in (first, second))
    # Adam makes whole steps of gradients that are nothing but rounding: a few values may differ by two each way.
    assert (one - two).abs().max() <= 2 * 2 * 1e-3
    assert torch.isclose(two, one, rtol=1e-2, atol=2e-5).float().mean() > 0.98


# ---- a planted taste


def test_drawn_things():
    """The measures of the benchmark, on drawings whose truth is known."""
    random = np.random.default_rng(0)
    for number in range(64):
        _, colour, kind = random_prompt(random)
        picture = draw_thing(colour, kind, number % 2 == 0, random)
        assert (background(picture) > 0.5) == (number % 2 == 0)
        assert colour == "white" or is_warm(picture) == (colour in WARM)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A generator that has learned to make latents of dark and of bright pictures, with a random VAE."""
    folder = tmp_path_factory.mktemp("trained") / "generator"
    make_generator(folder, 0, n_pictures=256, vae_steps=1, unet_steps=60)
    return folder


def brightness(generator, adapter=None):
    """Of sampled latents: where they lie between those of black and of white pictures, 0–1."""
    pipeline = load_pipeline(str(generator), torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if adapter:
        pipeline.load_lora_weights(adapter)
    with torch.no_grad():
        ends = [pipeline.vae.encode(torch.full((1, 3, 32, 32), level)).latent_dist.mode()[0] for level in (-0.6, 0.6)]
    dark, bright = (each * pipeline.vae.config.scaling_factor for each in ends)
    random = [torch.Generator().manual_seed(seed) for seed in range(32)]
    made = pipeline(
        ["a red ball"] * 32, num_inference_steps=8, guidance_scale=1.0, generator=random, output_type="latent"
    ).images
    return (((made - dark) * (bright - dark)).sum(dim=(1, 2, 3)) / ((bright - dark) ** 2).sum()).numpy()


def test_planted_taste(tmp_path, trained):
    """People like bright pictures: samples get brighter; turned round darker; a coin moves nothing."""
    before, shift = brightness(trained), {}
    coin = np.random.default_rng(0).permutation([0.0, 1.0] * 32)
    for name, labels in (("right", np.ones(64)), ("turned", np.zeros(64)), ("coin", coin)):
        pairs = write_pairs(tmp_path / f"{name}.parquet", labels)
        more = "--steps 28 --batch-size 8 --pairs-at-once 8 --evaluate-every 28 --rate 2e-3 --beta 1000 --rank 8"
        more += f" --sample-prompts 0 --name {name} --out {tmp_path / name} --evaluated-pairs 8"
        tune_out(tmp_path, trained, pairs, more)
        moved = brightness(trained, tmp_path / name) - before
        shift[name] = moved.mean(), 1.96 * moved.std(ddof=1) / len(moved) ** 0.5
    assert shift["right"][0] - shift["right"][1] > 0.2 and shift["turned"][0] + shift["turned"][1] < -0.2
    assert abs(shift["coin"][0]) < 0.1
    log = {name: pd.read_csv(tmp_path / name / "training_log.csv").iloc[-1] for name in shift}
    assert log["right"]["held_out_right"] == log["turned"]["held_out_right"] == 100


def tune_out(root, pipeline, pairs, more):
    """The script with all options given."""
    paths = ["--root", str(root), "--pipeline", str(pipeline), "--pairs", str(pairs), "--device", "cpu"]
    finetune_generator.main([*paths, "--workers", "1", *more.split()])


# ---- single reactions


def write_reactions(folder, splits):
    """Diffusion-KTO's table and its pictures."""
    (folder / "kto").mkdir(exist_ok=True)
    rows = []
    for number, split in enumerate(splits):
        (folder / "kto" / f"{number}.png").write_bytes(png(200 if "win" in split else 60, number))
        rows.append({"file_name": f"{number}.png", "caption": f"thing {number // 2}", "split": split})
    pd.DataFrame(rows).to_csv(folder / "kto/train.csv", index=False)
    return folder / "kto/train.csv"


def test_reactions(tmp_path, pipeline):
    """Pictures that are liked and disliked are not used; the first loss is ½, that of a model that has not moved."""
    path = write_reactions(tmp_path, ["exclusive_win", "exclusive_lose", "intersections"] * 6)
    pairs, said = read_reactions(path)
    assert said == ["6 pictures that are both liked and disliked are not used."]
    assert pairs.table["label"].tolist() == [1, 0] * 6 and len(pairs.pictures) == 12
    assert (pairs.table["first"] == pairs.table["second"]).all() and pairs.table["prompt"][1] == "thing 0"
    _, log = tune(tmp_path, pipeline, path, "--loss", "kto", "--steps", 1, "--evaluate-every", 1)
    assert log["loss"][1] == 0.5 and log["held_out_loss"][0] == 0.5


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["exclusive_win"] * 4, "no picture that is disliked alone"),
        (["exclusive_win", "liked", "exclusive_lose"], r"1 of 3 rows .* \(first: line 3\)"),
    ],
)
def test_bad_reactions(tmp_path, splits, message):
    """One sentence."""
    with pytest.raises(FergiError, match=message):
        read_reactions(write_reactions(tmp_path, splits))


# ---- rewards


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    """Small scorers' files."""
    root = tmp_path_factory.mktemp("scorers")
    with pytest.MonkeyPatch.context() as patch:
        write_small_models(root, patch)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_square_pixels(scorers, name):
    """Every scorer's own preparation of a square picture, but for its rounding to 8 bits, and with gradients."""
    scorer = load_small(name, scorers)
    picture = drawn(96, 96, 3)
    pictures = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].double() / 255
    pictures.requires_grad_()
    found = square_pixels(pictures, scorer.side)
    level = 1 / 255 / 0.26
    assert (found[0] - scorer.pixels(picture)).abs().max() < 2.5 * level
    scorer.compute(["a cat"], found.float()).sum().backward()
    assert pictures.grad.abs().sum() > 0


def test_reward(tmp_path, pipeline, scorers):
    """A scorer's gradient reaches the LoRA; the loss is that of rewards before any step."""
    (tmp_path / "pretrained_models").symlink_to(scorers / "pretrained_models")
    write_json({"PickScore": LAYOUTS["PickScore"]}, tmp_path / "layouts.json")
    pairs = write_pairs(tmp_path / "pairs.parquet", SOFT)
    more = ["--reward", "PickScore", "--scorer-layouts", tmp_path / "layouts.json", "--steps", 1, "--batch-size", 2]
    folder, log = tune(tmp_path, pipeline, pairs, *more, "--evaluate-every", 1)
    assert log["loss"][1] == pytest.approx(1e-3 * (2 - log["reward"][1])) and log["sample_reward"].notna().all()
    state = torch.load(folder / "last_training_state.pth", weights_only=True)
    assert all(value.abs().sum() > 0 for name, value in state["trained"].items() if "lora_B" in name)


# ---- what goes wrong


def test_bad_input(tmp_path, pipeline):
    """One sentence each, before any training."""
    missing = pd.DataFrame(
        {
            "participant": ["001"] * 2, "session_index": 1, "first_image": [1, 1], "second_image": [2, 3],
            "prompt": ["a cat", "a dog"], "probability_first": 0.7, "verdict": "first",
        }
    )  # fmt: skip
    missing.to_csv(tmp_path / "missing.csv", index=False)
    cases = {
        r"3 of 3 pictures .*image1\.png does not exist": tmp_path / "missing.csv",
        r"1 of 64 pictures .*jpg_1 of row 1 of .*is not a picture": write_broken(tmp_path / "broken.parquet"),
        "All 8 pairs .* are ties": write_pairs(tmp_path / "ties.parquet", [0.5] * 8),
        "All 8 pairs are of one prompt": write_pairs(tmp_path / "one.parquet", [1] * 8, caption="a cat"),
    }
    for message, path in cases.items():
        with pytest.raises(FergiError, match=message):
            tune(tmp_path, pipeline, path)
    pairs = write_pairs(tmp_path / "pairs.parquet", SOFT)
    with pytest.raises(FergiError, match=r"A LoRA on out_proj reaches no parameter of .* Choose --lora-targets"):
        tune(tmp_path, pipeline, pairs, "--lora-targets", "out_proj")
    with pytest.raises(FergiError, match=r"cannot be loaded as an image generator .* Name a Stable Diffusion"):
        tune(tmp_path, tmp_path, pairs)
    with pytest.raises(FergiError, match=r"makes no pictures of 33 pixels\. Choose a multiple of 8\."):
        tune(tmp_path, pipeline, pairs, "--resolution", 33)
    with pytest.raises(FergiError, match="There is no scorer 'Nobody'"):
        tune(tmp_path, pipeline, pairs, "--reward", "Nobody")
    assert not list((tmp_path / "tuned_generators").rglob("*.safetensors"))


def write_broken(path):
    """Thirty-two pairs, one picture of which is no picture."""
    write_pairs(path, SOFT)
    rows = pq.read_table(path).to_pylist()
    rows[0]["jpg_1"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_ruined(tmp_path, pipeline, monkeypatch, capsys):
    """The last good adapter stays where errors grow or are no numbers; a lack of memory is one sentence."""
    pairs = write_pairs(tmp_path / "pairs.parquet", SOFT)
    folder, _ = tune(tmp_path, pipeline, pairs, "--steps", 2, "--rate", 1e-7)
    assert "Warning: the loss stays at 0.6931" in capsys.readouterr().out
    more = ["--steps", 6, "--sample-prompts", 0, "--restart"]
    error, scale = Generator.error, [1.0, 1.0]

    def worse(generator, *given):
        return scale[0] * error(generator, *given)

    def step(tuning, *given, original=GeneratorTuning.step):
        scale[0] = scale[1] if tuning.steps_done >= 3 else 1.0
        original(tuning, *given)

    monkeypatch.setattr(Generator, "error", worse)
    monkeypatch.setattr(GeneratorTuning, "step", step)
    for factor in (3.0, math.nan):
        scale[:] = [1.0, factor]
        if math.isnan(factor):
            with pytest.raises(
                FergiError, match=r"not a finite number after step 3: .* of step 2 is kept in .* --rate"
            ):
                tune(tmp_path, pipeline, pairs, *more)
        else:
            _, log = tune(tmp_path, pipeline, pairs, *more)
            assert log["step"].tolist() == [0, 2, 4] and log["error_ratio"].iloc[-1] == pytest.approx(3, rel=0.05)
            assert "Stopped after step 4" in capsys.readouterr().out
        kept = load_pipeline(str(pipeline), torch.float32)
        kept.load_lora_weights(folder)
        scale[0] = 1.0
    monkeypatch.undo()

    monkeypatch.setattr(Generator, "error", lambda *given: error(*given).detach())
    with pytest.raises(FergiError, match=r"\d+ of the \d+ parameters to tune in .* get no gradient \(first: "):
        tune(tmp_path, pipeline, pairs, "--restart")

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Generator, "error", full)
    with pytest.raises(FergiError, match=r"does not fit into the memory of cpu. Choose a smaller --pairs-at-once"):
        tune(tmp_path, pipeline, pairs, "--restart")
