"""Scores against their formulas, against the packages they come from, and against pictures and texts of every kind."""

import gzip
import importlib
import re
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import float32_bound
from safetensors.torch import load_file, save_file
from small_scorers import (
    CLIP,
    HPS,
    LAYOUTS,
    NAMES,
    clip_model,
    drawn,
    hps_model,
    linear_head,
    load_small,
    package_blip,
    write_small_models,
    write_vocabulary,
)

from fergi.files import FergiError
from fergi.pictures import is_black, open_picture
from fergi.scorers.interface import load_network, offline_import, once_each
from fergi.scorers.pixels import cropped_by_torchvision, cropped_by_transformers, padded
from fergi.scorers.registry import PAPER_SCORERS, SCORERS, scorer_class
from fergi.scorers.text import clip_tokens
from fergi.weights import (
    AESTHETIC_HEAD,
    BLIP_LARGE,
    CLIP_L,
    HPS_V2,
    IMAGE_REWARD,
    PICK_SCORE,
    WEIGHT_FILES,
)

SHAPES = [(64, 64), (224, 224), (32, 32), (90, 60), (60, 91), (224, 100), (33, 32), (35, 32), (32, 37), (512, 512)]
PROMPTS = ["a red cat on the moon", "the dog", "", "кошка на луне 猫 🐈", "a cat " * 200, "cat"]
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
SPREAD = np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A root with all small models."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        write_small_models(folder, patch)
    return folder


@pytest.fixture(scope="session")
def scorers(root):
    """All scorers, loaded."""
    return {name: load_small(name, root) for name in NAMES}


@pytest.fixture
def copied(root, tmp_path) -> Path:
    """A root whose files a test may break."""
    return shutil.copytree(root, tmp_path / "copied")


def unit(x):
    """Rows of length 1."""
    x = np.asarray(x, float)
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


def by_hand(picture, side):
    """A square picture as CLIP takes it, from its levels."""
    levels = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), float) / 255
    return torch.tensor(((levels - MEAN) / SPREAD).transpose(2, 0, 1)[None], dtype=torch.float32)


# ---- formulas


def clip_features(seed, prompt, picture):
    """Text and image embeddings of transformers' CLIP."""
    model = clip_model(seed)
    with torch.no_grad():
        text = model.get_text_features(input_ids=clip_tokens([prompt], 77))
        image = model.get_image_features(pixel_values=by_hand(picture, 32))
    return model, text.numpy(), image.numpy()


def test_clip_is_the_cosine(scorers):
    """Of the two embeddings, computed in the test."""
    _, text, image = clip_features(1, "a red cat", drawn(64, 64))
    expected = float((unit(text) * unit(image)).sum())
    assert abs(expected) > 1e-3
    np.testing.assert_allclose(scorers["CLIP"].score(["a red cat"], [drawn(64, 64)]), [expected], atol=1e-6)


def test_pick_score_is_the_cosine_times_the_scale(scorers):
    """The scale is exp(3) in the small model."""
    _, text, image = clip_features(2, "a red cat", drawn(64, 64))
    expected = np.exp(3.0) * (unit(text) * unit(image)).sum()
    np.testing.assert_allclose(scorers["PickScore"].score(["a red cat"], [drawn(64, 64)]), [expected], atol=2e-5)


def test_aesthetic_is_five_linear_layers(scorers):
    """Matrix by matrix, without activations, on the embedding of length 1; whatever the prompt."""
    _, _, image = clip_features(1, "", drawn(64, 64))
    x = unit(image)
    for layer in linear_head(CLIP["projection_dim"], 3)["layers"].values():
        x = x @ layer.weight.detach().numpy().T.astype(float) + layer.bias.detach().numpy()
    found = scorers["Aesthetic"].score(["a cat", "the dog"], [drawn(64, 64)] * 2)
    np.testing.assert_allclose(found, [x[0, 0]] * 2, atol=1e-5)


@pytest.mark.parametrize(("name", "seed"), [("HPSv2", 4), ("HPSv2.1", 7)])
def test_hps_is_the_cosine(scorers, name, seed):
    """Of open_clip's embeddings with the weights as half precision left them."""
    model = hps_model(seed)
    model.load_state_dict({name: value.half().float() for name, value in model.state_dict().items()})
    levels = torch.tensor(np.asarray(drawn(64, 64)) / 255.0).permute(2, 0, 1).float()
    small = torch.nn.functional.interpolate(levels[None], (32, 32), mode="bicubic", antialias=True)
    small = (small - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SPREAD)[:, None, None]
    with torch.no_grad():
        text, image = model.encode_text(clip_tokens(["a red cat"], 77)), model.encode_image(small.float())
    expected = (unit(text.numpy()) * unit(image.numpy())).sum()
    np.testing.assert_allclose(scorers[name].score(["a red cat"], [drawn(64, 64)]), [expected], atol=1e-6)


def test_image_reward_is_standardised(scorers, root, monkeypatch):
    """The head's layers one by one on the first token, less the published mean, by the published deviation."""
    _, model = package_blip(monkeypatch, root)
    tokens = model.blip.tokenizer(["a red cat"], padding="max_length", max_length=35, return_tensors="pt")
    with torch.no_grad():
        seen = model.blip.visual_encoder(by_hand(drawn(300, 300), 224))
        x = (
            model.blip.text_encoder(
                tokens.input_ids,
                attention_mask=tokens.attention_mask,
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long),
                return_dict=True,
            )
            .last_hidden_state[:, 0]
            .numpy()
            .astype(float)
        )
    for layer in (0, 2, 4, 6, 7):
        x = x @ model.mlp.layers[layer].weight.detach().numpy().T + model.mlp.layers[layer].bias.detach().numpy()
    expected = (x[0, 0] - 0.16717362830052426) / 1.0333394966054072
    np.testing.assert_allclose(scorers["ImageReward"].score(["a red cat"], [drawn(300, 300)]), [expected], rtol=1e-5)


def test_blip_is_the_cosine_of_the_projections(scorers, root, monkeypatch):
    """Of the first tokens; the text is read without the image."""
    model = package_blip(monkeypatch, root)[0].blip
    tokens = model.tokenizer(["a red cat"], padding="max_length", max_length=35, return_tensors="pt")
    with torch.no_grad():
        read = model.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask, mode="text")
        text = model.text_proj(read.last_hidden_state[:, 0]).numpy()
        image = model.vision_proj(model.visual_encoder(by_hand(drawn(300, 300), 224))[:, 0]).numpy()
    expected = (unit(text) * unit(image)).sum()
    np.testing.assert_allclose(scorers["BLIP"].score(["a red cat"], [drawn(300, 300)]), [expected], atol=1e-6)


# ---- the packages


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prompt", [PROMPTS[0], PROMPTS[2], PROMPTS[4]], ids=["short", "empty", "long"])
def test_clip_equals_transformers(scorers, shape, prompt):
    """Its logits over the scale, with its own image processor."""
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model, picture = clip_model(1), drawn(*shape)
    with torch.no_grad():
        found = model(
            input_ids=clip_tokens([prompt], 77), pixel_values=processor(picture, return_tensors="pt").pixel_values
        )
    expected = (found.logits_per_image / model.logit_scale.exp()).item()
    np.testing.assert_allclose(scorers["CLIP"].score([prompt], [picture]), [expected], atol=2e-6)


def test_tokens_equal_those_of_openai(monkeypatch):
    """The package clip, which image-reward's CLIP score uses, on texts of all kinds."""
    with offline_import():
        import clip
    texts = [*PROMPTS, "It's 5 o'clock &amp; 20 °C", "a\n b\t c", "cat" * 300, "ﬁne Ünïcödé"]
    assert torch.equal(clip_tokens(texts, 77), clip.tokenize(texts, truncate=True).long())


def test_what_fills_up_does_not_matter(scorers):
    """Zeros as open_clip has them, or the end token and a mask as transformers' tokenizer: the same embedding."""
    tokens = clip_tokens(["a red cat"], 77)
    end = int(tokens.max())
    filled = torch.where(torch.arange(77) > int(tokens.argmax()), end, tokens)
    model = scorers["CLIP"].clip.network
    with torch.inference_mode():
        ours, theirs = (
            model.get_text_features(input_ids=tokens),
            model.get_text_features(input_ids=filled, attention_mask=(tokens != 0).long()),
        )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_blip_and_image_reward_equal_the_package(scorers, root, monkeypatch, tmp_path, shape):
    """image-reward's own ``score``, picture and prompt one at a time."""
    blip, reward = package_blip(monkeypatch, root)
    picture = drawn(*shape)
    picture.save(tmp_path / "picture.png")
    with torch.no_grad():
        for prompt in PROMPTS:
            expected = reward.score(prompt, picture), blip.score(prompt, str(tmp_path / "picture.png"))
            found = [scorers[name].score([prompt], [picture])[0] for name in ("ImageReward", "BLIP")]
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="session")
def hpsv2_source(tmp_path_factory):
    """The hpsv2 package's networks, pictures and tokens, with the vocabulary that its wheel lacks put beside them."""
    spec = find_spec("hpsv2")
    source = Path(spec.submodule_search_locations[0]) / "src" / "open_clip" if spec else None
    vocabulary = Path(find_spec("open_clip").submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    if source is None or not source.is_dir():
        pytest.skip("hpsv2 is not installed")
    assert gzip.open(vocabulary).readline()
    folder = tmp_path_factory.mktemp("hpsv2")
    shutil.copytree(source, folder / "hpsv2_networks")
    shutil.copy(vocabulary, folder / "hpsv2_networks")
    (folder / "hpsv2_networks" / "__init__.py").write_text("")  # its own imports turtle, and with it a display
    sys.path.insert(0, str(folder))
    try:
        with offline_import():
            yield [importlib.import_module(f"hpsv2_networks.{name}") for name in ("model", "transform", "tokenizer")]
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if max(shape) != 32 or min(shape) == 32])
def test_hps_equals_hpsv2(scorers, hpsv2_source, shape):
    """Its network, its pictures, its tokens, its product; pictures square and not."""
    networks, pictures, tokens = hpsv2_source
    model = networks.CLIP(**HPS, output_dict=True)
    model.load_state_dict({k: v.half().float() for k, v in hps_model(4).state_dict().items()})
    model.eval()
    prepare = pictures.image_transform(32, is_train=False, resize_longest_max=True)
    for prompt in PROMPTS:
        with torch.no_grad():
            found = model(prepare(drawn(*shape))[None], tokens.tokenize([prompt]))
        expected = torch.diagonal(found["image_features"] @ found["text_features"].T).numpy()
        np.testing.assert_allclose(scorers["HPSv2"].score([prompt], [drawn(*shape)]), expected, atol=1e-6)


def test_pictures_of_the_right_length_are_padded_too():
    """Where hpsv2 itself leaves the picture as it is, and fails: zeros before normalisation, around the middle."""
    pixels = padded(drawn(224, 100), 224)
    black = torch.tensor((0 - MEAN) / SPREAD).float()
    assert pixels.shape == (3, 224, 224)
    for row in (0, 61, 162, 223):
        torch.testing.assert_close(pixels[:, row], black[:, None].expand(3, 224))
    expected = (np.asarray(drawn(224, 100)) / 255 - MEAN) / SPREAD
    np.testing.assert_allclose(pixels[:, 62:162].permute(1, 2, 0).numpy(), expected, atol=1e-5)


# ---- batches


@pytest.mark.parametrize("name", NAMES)
def test_batches_order_and_company_do_not_matter(scorers, name):
    """Each score alone, in a batch, and in the reverse order; long prompts beside short ones."""
    pictures = [drawn(*shape, seed) for seed, shape in enumerate(SHAPES)]
    prompts = [PROMPTS[place % len(PROMPTS)] for place in range(len(pictures))]
    together = scorers[name].score(prompts, pictures)
    alone = np.concatenate([scorers[name].score([p], [i]) for p, i in zip(prompts, pictures, strict=True)])
    backwards = scorers[name].score(prompts[::-1], pictures[::-1])[::-1]
    bound = float32_bound(together)
    np.testing.assert_allclose(together, alone, atol=bound, rtol=0)
    np.testing.assert_allclose(together, backwards, atol=bound, rtol=0)
    assert np.diff(np.sort(together)).max() > 100 * bound  # a score that went to another picture would show


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_and_the_prompt_matter(scorers, name):
    """The prompt for all but Aesthetic; networks are in evaluation mode, so that the same gives the same."""
    scorer = scorers[name]
    one = scorer.score(["a cat", "a cat", "the dog"], [drawn(50, 50), drawn(50, 50, 1), drawn(50, 50)])
    assert abs(one[0] - one[1]) > 1e-4
    assert (abs(one[0] - one[2]) > 1e-4) == (name != "Aesthetic")
    assert np.array_equal(
        one, scorer.score(["a cat", "a cat", "the dog"], [drawn(50, 50), drawn(50, 50, 1), drawn(50, 50)])
    )


def test_nothing_and_too_little(scorers):
    """No images, and prompts without images."""
    assert scorers["CLIP"].score([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 prompts for 1 images"):
        scorers["CLIP"].score(["a", "b"], [drawn(9, 9)])


def test_prompts_are_read_once():
    """And each image gets its own."""
    assert once_each(["b", "a", "b", "b"]) == (["b", "a"], [0, 1, 0, 0])


# ---- pictures of every kind


def kinds(folder):
    """The same picture saved in many ways: name → file."""
    picture = drawn(60, 60)
    grey = np.asarray(picture.convert("L"))
    made = {
        "rgb": picture,
        "opaque": picture.convert("RGBA"),
        "grey": picture.convert("L"),
        "grey and opaque": picture.convert("LA"),
        "16 bits": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette": picture.quantize(256),
        "bits": picture.convert("1"),
        "dot": picture.resize((1, 1)),
        "huge": picture.resize((6000, 5000)),
    }
    for name, image in made.items():
        image.save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in made}


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_picture_has_a_number(scorers, tmp_path, name):
    """What shows the same has the same score."""
    files = kinds(tmp_path)
    found = dict(zip(files, scorers[name].score(["a cat"] * len(files), list(files.values())), strict=True))
    assert np.isfinite(list(found.values())).all()
    np.testing.assert_allclose(found["opaque"], found["rgb"], atol=1e-5)
    np.testing.assert_allclose([found["16 bits"], found["grey and opaque"]], found["grey"], atol=1e-5)
    assert abs(found["grey"] - found["rgb"]) > 1e-4


def test_sixteen_bits_are_not_clipped(tmp_path):
    """0, a half and all of the range become 0, 128 and 255."""
    Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)).save(tmp_path / "levels.png")
    assert np.asarray(open_picture(tmp_path / "levels.png"))[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def refused(tmp_path):
    """What cannot be used: name → what makes the file, and the reason."""
    clear = drawn(20, 20).convert("RGBA")
    clear.putpixel((3, 3), (0, 0, 0, 254))
    palette = drawn(20, 20).quantize(16)
    whole = tmp_path / "whole.png"
    drawn(60, 60).save(whole)
    return {
        "transparent.png": (clear.save, "transparent in parts"),
        "key.png": (lambda path: palette.save(path, transparency=palette.getpixel((0, 0))), "transparent in parts"),
        "float.tiff": (Image.fromarray(np.zeros((9, 9), np.float32)).save, "floating-point"),
        "int.tiff": (Image.fromarray(np.full((9, 9), 70000, np.int32)).save, "beyond 16 bits"),
        "stripe.png": (Image.new("RGB", (1, 101)).save, "a stripe of 1 x 101"),
        "large.png": (Image.new("1", (9500, 9500)).save, "too large: 9500 x 9500"),
        "cut.png": (lambda path: path.write_bytes(whole.read_bytes()[:3000]), "cut off or damaged"),
        "text.png": (lambda path: path.write_text("not a picture"), "not a picture"),
        "empty.png": (lambda path: path.write_bytes(b""), "not a picture"),
        "gone.png": (lambda path: None, "does not exist"),
    }


REFUSED = "transparent.png key.png float.tiff int.tiff stripe.png large.png cut.png text.png empty.png gone.png"


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("name", REFUSED.split())
def test_what_has_no_single_meaning_is_refused(tmp_path, name):
    """With the file's name and the reason."""
    make, reason = refused(tmp_path)[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{re.escape(name)} .*{reason}"):
        open_picture(tmp_path / name)


def test_black():
    """All of it, and not all but one pixel."""
    black = Image.new("RGB", (8, 8))
    assert is_black(black)
    black.putpixel((7, 7), (0, 0, 1))
    assert not is_black(black)


@pytest.mark.parametrize(("prepare", "left"), [(cropped_by_transformers, 1), (cropped_by_torchvision, 2)])
def test_three_columns_too_many(prepare, left):
    """One is cut off at the left, or two."""
    picture = drawn(35, 32)
    expected = by_hand(picture.crop((left, 0, left + 32, 32)), 32)[0]
    torch.testing.assert_close(prepare(picture, 32), expected, atol=1e-6, rtol=0)


# ---- weights


def first_file(name):
    """The file that holds the scorer's own network."""
    return AESTHETIC_HEAD if name == "Aesthetic" else scorer_class(name).files[0]


def rewrite(file, root, change):
    """Change the entries of a weight file."""
    path = file.under(root)
    content = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
    state = content[file.key] if file.key else content
    change(state)
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path)


def needed(state):
    """An entry in the middle that the score needs."""
    names = [n for n in state if n.endswith(".weight") and "_m." not in n and not n.startswith(("temp", "itm"))]
    names = [n for n in names if "vision_proj" not in n and "text_proj." not in n]
    return names[len(names) // 2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["missing", "renamed", "reshaped", "broken", "additional", "whole numbers"])
def test_a_checkpoint_that_does_not_fit(copied, name, kind):
    """Refused; the file and the entry are named."""
    file = first_file(name)
    entry = []

    def change(state):
        which = needed(state)
        entry.append(which)
        if kind == "missing":
            del state[which]
        elif kind == "renamed":
            state[f"{which}s"] = state.pop(which)
        elif kind == "reshaped":
            state[which] = state[which][:-1].clone()
        elif kind == "broken":
            state[which] = torch.full_like(state[which], torch.nan)
        elif kind == "whole numbers":
            state[which] = (100 * state[which]).to(torch.int32)
        else:
            state["more.weight"] = torch.zeros(2)

    rewrite(file, copied, change)
    with pytest.raises(FergiError) as caught:
        load_small(name, copied)
    message = str(caught.value)
    assert Path(file.path).name in message
    assert ("more.weight" if kind == "additional" else entry[0]) in message
    assert kind != "whole numbers" or f"1 of another kind (first: {entry[0]}, int32 instead of float32)" in message


def constant(value):
    """A change of a state that makes all of its floats the same."""
    return lambda state: [entry.fill_(value) for entry in state.values() if entry.is_floating_point()]


@pytest.mark.parametrize(
    ("name", "file", "change"),
    [
        ("ImageReward", IMAGE_REWARD, constant(0.01)),
        ("BLIP", BLIP_LARGE, constant(0.01)),
        ("Aesthetic", AESTHETIC_HEAD, constant(0.0)),
        ("CLIP", CLIP_L, constant(0.01)),
        ("PickScore", PICK_SCORE, constant(0.01)),
        ("HPSv2", HPS_V2, constant(0.01)),
    ],
)
def test_weights_that_cannot_tell_pictures_apart(copied, name, file, change):
    """Every entry has its place and its shape, and the score says nothing about the picture."""
    rewrite(file, copied, change)
    message = rf"{name} gives a white picture and random pixels the same score, .*{re.escape(file.path)}.*Fetch them"
    with pytest.raises(FergiError, match=message) as caught:
        load_small(name, copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"half"])
def test_a_file_that_is_no_checkpoint(copied, name, content):
    """A text, or half a file, under the right name."""
    path = first_file(name).under(copied)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == b"half" else content)
    with pytest.raises(FergiError, match=rf"{re.escape(path.name)} .*(cut off|not a file of plain PyTorch weights)"):
        load_small(name, copied)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file(copied, name):
    """Where it belongs and how to get it."""
    for file in scorer_class(name).files:
        path = file.under(copied)
        path.rename(path.with_name("away"))
        with pytest.raises(FergiError, match=rf"{re.escape(str(path))}.* python -m fergi.weights fetch {file.name}"):
            load_small(name, copied)
        path.with_name("away").rename(path)


def test_positions_that_do_not_count(copied):
    """Stored positions are used by nobody, but others than 0, 1, 2, … say that the file is of another network."""
    rewrite(CLIP_L, copied, lambda state: state["text_model.embeddings.position_ids"].add_(1))
    with pytest.raises(
        FergiError, match=r"model\.safetensors does not fit: its entry text_model\.embeddings\.position_ids"
    ):
        load_small("CLIP", copied)


def test_a_file_without_positions(copied, scorers):
    """As newer libraries write it."""

    def without(state):
        for name in [name for name in state if name.endswith("position_ids")]:
            del state[name]

    rewrite(CLIP_L, copied, without)
    scores = load_small("CLIP", copied).score(["a cat"], [drawn(40, 40)])
    assert np.array_equal(scores, scorers["CLIP"].score(["a cat"], [drawn(40, 40)]))


def test_what_is_not_used_must_not_be_needed(root):
    """A slip in the list of unused entries would otherwise leave random weights."""
    head = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="entries among those that are not used"):
        load_network(head, head.state_dict(), root, torch.device("cpu"), unused=("0.",))


@pytest.mark.parametrize(
    "change", [lambda words: words[:-1], lambda words: [*words, "more"], lambda words: ["x", *words[1:]]]
)
def test_another_vocabulary_is_refused(copied, change):
    """Its numbers would stand for other words."""
    path = write_vocabulary(copied)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    for name in ("BLIP", "ImageReward"):
        with pytest.raises(FergiError, match=r"vocab\.txt is not the vocabulary of this network: it (has|lacks) "):
            load_small(name, copied)


def test_a_checkpoint_that_gives_no_numbers(copied):
    """Finite weights can still overflow."""
    rewrite(AESTHETIC_HEAD, copied, lambda state: [state[f"layers.{n}.weight"].fill_(1e38) for n in (0, 2, 4)])
    with pytest.raises(FergiError, match="Aesthetic gives no finite number for the prompt 'a picture'"):
        load_small("Aesthetic", copied)


# ---- the registry


def test_the_six_of_the_paper(published):
    """Names, columns and their order as published."""
    header = next((published / "preparation" / "preprocessed_image_data").glob("*.csv")).read_text().splitlines()[0]
    assert [SCORERS[name].column for name in PAPER_SCORERS] == header.split(",")[-6:]


@pytest.mark.parametrize("name", NAMES)
def test_every_scorer_says_what_it_is(name, root):
    """Its name, files of the table, and what its scores are made with."""
    scorer = scorer_class(name)
    assert scorer.name == name and set(scorer.files) <= set(WEIGHT_FILES) and name in LAYOUTS
    settings = scorer.settings(root, torch.device("cpu"))
    assert all(re.fullmatch("[0-9a-f]{64}", settings[file.path]) for file in scorer.files)
    assert settings["device"] == "cpu" and settings["torch"] == version("torch") and settings["layout"] == "official"
    assert all(isinstance(value, str) for value in settings.values())


def test_columns_differ():
    """No scorer writes over another one's."""
    columns = [scorer.column for scorer in SCORERS.values()]
    assert len(set(columns)) == len(columns)


def test_importing_does_no_work():
    """Neither networks nor libraries of networks are imported with the registry."""
    import subprocess

    code = (
        "import sys, fergi.scorers.registry as r; [r.scorer_class(n) for n in r.SCORERS]; "
        "print([m for m in ('transformers', 'open_clip', 'ImageReward', 'huggingface_hub') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
