"""Scores against their formulas, against the packages they come from, and against pictures and texts of every kind."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import float32_bound
from safetensors.torch import load_file, save_file
from small_scorers import (
    CLIP,
    CPU,
    HPS,
    LAYOUTS,
    NAMES,
    clip_model,
    drawn,
    gelu_head,
    linear_head,
    load_small,
    package_blip,
    spread_out,
    write_small_models,
)

from fergi import weights
from fergi.files import FergiError
from fergi.pictures import is_black, open_picture
from fergi.scorers import social_reward
from fergi.scorers.clip import transformer
from fergi.scorers.interface import load_network, offline_import
from fergi.scorers.registry import PAPER_SCORERS, SCORERS, scorer_class
from fergi.scorers.social_reward import to_openai, to_transformers
from fergi.scorers.text import clip_tokens
from fergi.weights import AESTHETIC_HEAD, BERT_VOCABULARY, SOCIAL_REWARD, WEIGHT_FILES

SHAPES = [(64, 64), (224, 224), (32, 32), (90, 60), (60, 91), (224, 100), (33, 32), (35, 32), (32, 37), (512, 512)]
PROMPTS = ["a red cat on the moon", "the dog", "", "кошка на луне 猫 🐈", "a cat " * 200, "cat"]


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


def test_aesthetic_is_five_linear_layers(scorers):
    """Matrix by matrix, without activations, on the embedding of length 1; whatever the prompt."""
    levels = np.asarray(drawn(64, 64).resize((32, 32), Image.Resampling.BICUBIC), float) / 255
    normalised = (levels - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    with torch.no_grad():
        pixels = torch.tensor(normalised.transpose(2, 0, 1)[None], dtype=torch.float32)
        x = clip_model(1).get_image_features(pixel_values=pixels).double().numpy()
    x /= np.sqrt((x**2).sum())
    for layer in linear_head(CLIP["projection_dim"], 3)["layers"].values():
        x = x @ layer.weight.detach().numpy().T.astype(float) + layer.bias.detach().numpy()
    found = scorers["Aesthetic"].score(["a cat", "the dog"], [drawn(64, 64)] * 2)
    np.testing.assert_allclose(found, [x[0, 0]] * 2, atol=1e-5)


# ---- the packages


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "seed"), [("CLIP", 1), ("PickScore", 2)])
def test_clip_and_pick_score_equal_transformers(scorers, name, seed, shape):
    """Its own processor and logits: scaled cosines for PickScore, divided by the scale for CLIP."""
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model, picture = clip_model(seed), drawn(*shape)
    pixels = processor(picture, return_tensors="pt").pixel_values
    for prompt in PROMPTS:
        with torch.no_grad():
            expected = model(input_ids=clip_tokens([prompt], 77), pixel_values=pixels).logits_per_image.numpy()[0]
        if name == "CLIP":
            expected = expected / np.exp(3.0)  # the scale of the small models
        bound = 2e-6 if name == "CLIP" else 2e-5
        np.testing.assert_allclose(scorers[name].score([prompt], [picture]), expected, atol=bound)


def test_tokens_equal_those_of_openai():
    """The package clip, which image-reward's CLIP score uses, on texts of all kinds."""
    with offline_import():
        import clip
    texts = [*PROMPTS, "It's 5 o'clock &amp; 20 °C", "a\n b\t c", "cat" * 300, "ﬁne Ünïcödé"]
    assert torch.equal(clip_tokens(texts, 77), clip.tokenize(texts, truncate=True).long())


def test_what_fills_up_does_not_matter(scorers):
    """Zeros as open_clip has them, or the end token and a mask as transformers' tokenizer: the same embedding."""
    tokens, model = clip_tokens(["a red cat"], 77), scorers["CLIP"].network
    filled = tokens.where(torch.arange(77) <= tokens.argmax(), tokens.max())
    with torch.inference_mode():
        ours = model.get_text_features(input_ids=tokens)
        theirs = model.get_text_features(input_ids=filled, attention_mask=(tokens != 0).long())
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


def test_cycle_reward_is_the_package_s_encoders_and_its_own_head(scorers, root, monkeypatch):
    """128 tokens and GELU between the layers; a prompt of more than 35 tokens shows the difference."""
    _, reward = package_blip(monkeypatch, root)
    head, words = gelu_head(9), "a red cat on the moon " * 12
    for prompt in ("the dog", words):
        tokens = reward.blip.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=128, return_tensors="pt"
        )
        with torch.no_grad():
            seen = reward.blip.visual_encoder(scorers["CycleReward"].pixels(drawn(60, 91))[None])
            shown = {
                "encoder_hidden_states": seen,
                "encoder_attention_mask": torch.ones(seen.shape[:2], dtype=torch.long),
            }
            mask = tokens.attention_mask
            read = reward.blip.text_encoder(tokens.input_ids, attention_mask=mask, return_dict=True, **shown)
            expected = head(read.last_hidden_state[:, 0])[0].numpy()
        np.testing.assert_allclose(scorers["CycleReward"].score([prompt], [drawn(60, 91)]), expected, atol=1e-5)
    found = scorers["CycleReward"].score([words, words + "dog"], [drawn(9, 9)] * 2)
    assert abs(found[0] - found[1]) > 1e-4  # the 85th token counts


# ---- Social Reward


OPENAI = {"embed_dim": 24, "image_resolution": 32, "vision_layers": 2, "vision_width": 64, "vision_patch_size": 8}
OPENAI |= {"context_length": 77, "vocab_size": 49408, "transformer_width": 16, "transformer_heads": 2}


@pytest.fixture(scope="session")
def openai_clip():
    """The clip package's own network and the layout of the same sizes."""
    with offline_import():
        import clip.model
    layout = CLIP | {"vision_config": transformer(64, 2, 1, "quick_gelu") | {"patch_size": 8, "image_size": 32}}
    return spread_out(clip.model.CLIP(**OPENAI, transformer_layers=2), 10), layout


def test_social_reward_reads_openai_s_layout(openai_clip, tmp_path):
    """Cosines of the clip package's network; its weights come back from the other layout to the bit."""
    network, layout = openai_clip
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    assert {n: v.tolist() for n, v in to_openai(to_transformers(state)).items()} == {
        n: v.tolist() for n, v in state.items()
    }
    SOCIAL_REWARD.under(tmp_path).parent.mkdir()
    sizes = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    save_file(state | sizes, SOCIAL_REWARD.under(tmp_path))
    scorer = scorer_class("SocialReward")(tmp_path, CPU, layout)
    with torch.no_grad():
        texts = network.encode_text(clip_tokens(PROMPTS, 77))
        image = network.encode_image(scorer.pixels(drawn(60, 91))[None])
    expected = torch.cosine_similarity(texts, image).numpy()
    np.testing.assert_allclose(scorer.score(PROMPTS, [drawn(60, 91)] * len(PROMPTS)), expected, atol=2e-6)


def test_another_layout_is_read_strictly(openai_clip, tmp_path):
    """An entry that is missing and one that is not known are named; nothing is filled up."""
    network, layout = openai_clip
    state = network.state_dict() | {"visual.more.weight": torch.zeros(1)}
    del state["transformer.resblocks.1.attn.in_proj_weight"]
    SOCIAL_REWARD.under(tmp_path).parent.mkdir()
    save_file({name: value.contiguous() for name, value in state.items()}, SOCIAL_REWARD.under(tmp_path))
    message = (
        r"3 missing \(first: text_model.encoder.layers.1.self_attn.\w_proj.weight\); 1 not known \(first: visual.more"
    )
    with pytest.raises(FergiError, match=message):
        scorer_class("SocialReward")(tmp_path, CPU, layout)


def test_no_weights_of_social_reward_were_published(tmp_path, capsys):
    """The table of weights says so, and what to do."""
    weights.main(["--root", str(tmp_path)])
    assert re.search(r"social-reward +missing +\? +no weights were published", capsys.readouterr().out)
    with pytest.raises(
        FergiError, match=r"No weights were published: train them with finetune_scorer\.py --scorer Soc"
    ):
        scorer_class("SocialReward")(tmp_path, CPU, CLIP)


def test_the_converter(openai_clip, tmp_path, monkeypatch):
    """As a command, both ways; a file of another network is refused."""
    network, layout = openai_clip
    monkeypatch.setattr(social_reward.SocialReward, "official_layout", layout)
    torch.save(network.state_dict(), tmp_path / "given.pt")
    social_reward.main(["--root", str(tmp_path), str(tmp_path / "given.pt")])
    back = tmp_path / "back.safetensors"
    social_reward.main([str(SOCIAL_REWARD.under(tmp_path)), "--layout", "openai", "--out", str(back)])
    found = load_file(back)
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())
    torch.save(linear_head(24, 3).state_dict(), tmp_path / "other.pt")
    with pytest.raises(FergiError, match=r"other\.pt does not fit CLIPModel"):
        social_reward.main(["--root", str(tmp_path / "new"), str(tmp_path / "other.pt")])
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="session")
def hpsv2_score(tmp_path_factory):
    """``score`` of the hpsv2 package itself, with four things replaced that it does not need to score.

    Its wheel lacks the vocabulary, which is open_clip's; it imports ``forward`` from turtle by mistake, and with it a
    display; its network has the small layout; and that network's first weights, which the checkpoint replaces, are not
    fetched.
    """
    folder = tmp_path_factory.mktemp("hpsv2")
    shutil.copytree(Path(find_spec("hpsv2").origin).parent, folder / "hpsv2")
    vocabulary = Path(find_spec("open_clip").origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    shutil.copy(vocabulary, folder / "hpsv2/src/open_clip")
    with pytest.MonkeyPatch.context() as patch, offline_import():
        patch.syspath_prepend(folder)
        patch.setitem(sys.modules, "turtle", SimpleNamespace(forward=None))
        from hpsv2 import img_score
        from hpsv2.src.open_clip import factory

        patch.setitem(factory._MODEL_CONFIGS, "ViT-H-14", HPS)
        make = img_score.create_model_and_transforms
        patch.setattr(img_score, "create_model_and_transforms", lambda name, _, **options: make(name, **options))
        patch.setattr(img_score, "device", "cpu")
        yield img_score.score


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["HPSv2", "HPSv2.1"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if max(shape) != 32 or min(shape) == 32])
def test_hps_equals_hpsv2(scorers, root, hpsv2_score, name, shape):
    """hpsv2's own ``score``; pictures square and not."""
    checkpoint = str(scorer_class(name).files[0].under(root))
    for prompt in PROMPTS:
        expected = hpsv2_score(drawn(*shape), prompt, checkpoint)
        np.testing.assert_allclose(scorers[name].score([prompt], [drawn(*shape)]), expected, atol=1e-6)


# ---- batches


@pytest.mark.parametrize("name", NAMES)
def test_batches_order_and_company_do_not_matter(scorers, name):
    """Each score alone, in a batch, and in the reverse order; long prompts beside short ones.

    Picture and prompt do matter, the prompt for all but Aesthetic; and the same gives the same.
    """
    pictures = [drawn(*shape, seed) for seed, shape in enumerate(SHAPES)]
    prompts = [PROMPTS[place % len(PROMPTS)] for place in range(len(pictures))]
    score = scorers[name].score
    together = score(prompts, pictures)
    alone = np.concatenate([score([p], [i]) for p, i in zip(prompts, pictures, strict=True)])
    bound = float32_bound(together)
    np.testing.assert_allclose(together, alone, atol=bound, rtol=0)
    np.testing.assert_allclose(together, score(prompts[::-1], pictures[::-1])[::-1], atol=bound, rtol=0)
    assert np.diff(np.sort(together)).max() > 100 * bound  # a score that went to another picture would show
    one = score(["a cat", "a cat", "the dog"], [pictures[0], pictures[3], pictures[0]])
    assert abs(one[0] - one[1]) > 1e-4
    assert (abs(one[0] - one[2]) > 1e-4) == (name != "Aesthetic")
    assert np.array_equal(together, score(prompts, pictures))


def test_nothing_and_too_little(scorers):
    """No images, and prompts without images."""
    assert scorers["CLIP"].score([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 prompts for 1 images"):
        scorers["CLIP"].score(["a", "b"], [drawn(9, 9)])


# ---- pictures of every kind


@pytest.mark.parametrize("name", ["CLIP", "BLIP", "HPSv2"])  # one for each way of preparing a picture
def test_every_kind_of_picture_has_a_number(scorers, tmp_path, name):
    """What shows the same has the same score."""
    picture = drawn(60, 60)
    grey = np.asarray(picture.convert("L"))
    kinds = {
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
    for kind, image in kinds.items():
        image.save(tmp_path / f"{kind}.png")
    scores = scorers[name].score(["a cat"] * len(kinds), [tmp_path / f"{kind}.png" for kind in kinds])
    found = dict(zip(kinds, scores, strict=True))
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(found["opaque"], found["rgb"], atol=1e-5)
    np.testing.assert_allclose([found["16 bits"], found["grey and opaque"]], found["grey"], atol=1e-5)
    assert abs(found["grey"] - found["rgb"]) > 1e-4


def test_sixteen_bits_are_not_clipped(tmp_path):
    """0, a half and all of the range become 0, 128 and 255."""
    Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)).save(tmp_path / "levels.png")
    assert np.asarray(open_picture(tmp_path / "levels.png"))[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def cut_off(path):
    """Half a picture."""
    drawn(60, 60).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def transparent_colour(path):
    """A palette of which one colour is transparent."""
    palette = drawn(20, 20).quantize(16)
    palette.save(path, transparency=palette.getpixel((0, 0)))


CLEAR = drawn(20, 20).convert("RGBA")
CLEAR.putpixel((3, 3), (0, 0, 0, 254))


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("pixel.png", CLEAR.save, "transparent in parts"),
        ("key.png", transparent_colour, "transparent in parts"),
        ("float.tiff", Image.fromarray(np.zeros((9, 9), np.float32)).save, "floating-point"),
        ("int.tiff", Image.fromarray(np.full((9, 9), 70000, np.int32)).save, "beyond 16 bits"),
        ("stripe.png", Image.new("RGB", (1, 101)).save, "a stripe of 1 x 101"),
        ("large.png", Image.new("1", (9500, 9500)).save, "too large: 9500 x 9500"),
        ("cut.png", cut_off, "cut off or damaged"),
        ("text.png", lambda path: path.write_text("not a picture"), "not a picture"),
        ("empty.png", lambda path: path.write_bytes(b""), "not a picture"),
        ("gone.png", lambda path: None, "does not exist"),
    ],
)
def test_what_has_no_single_meaning_is_refused(tmp_path, name, make, reason):
    """With the file's name and the reason."""
    make(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{re.escape(name)} .*{reason}"):
        open_picture(tmp_path / name)


def test_black():
    """All of it, and not all but one pixel."""
    black = Image.new("RGB", (8, 8))
    assert is_black(black)
    black.putpixel((7, 7), (0, 0, 1))
    assert not is_black(black)


# ---- weights


def rewrite(name, root, change):
    """Change the entries of the file that holds the scorer's own network, and give that file."""
    file = AESTHETIC_HEAD if name == "Aesthetic" else scorer_class(name).files[0]
    path = file.under(root)
    content = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
    change(content[file.key] if file.key else content)
    (save_file if path.suffix == ".safetensors" else torch.save)(content, path)
    return file


def needed(state):
    """An entry in the middle that the score needs."""
    names = [n for n in state if n.endswith(".weight") and "_m." not in n and not n.startswith(("temp", "itm"))]
    names = [n for n in names if "vision_proj" not in n and "text_proj." not in n]
    return names[len(names) // 2]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_that_does_not_fit(copied, name):
    """Refused by every scorer; the file, an entry that is missing and one that is not known are named."""
    missing = []

    def change(state):
        missing.append(needed(state))
        del state[missing[0]]
        state["more.weight"] = torch.zeros(2)

    file = rewrite(name, copied, change)
    with pytest.raises(FergiError) as caught:
        load_small(name, copied)
    assert all(each in str(caught.value) for each in (Path(file.path).name, *missing, "more.weight"))


@pytest.mark.parametrize("name", PAPER_SCORERS)
def test_weights_that_cannot_tell_pictures_apart(copied, name):
    """Every entry has its place and its shape, and the score says nothing about the picture."""
    value = 0.0 if name == "Aesthetic" else 0.01
    file = rewrite(name, copied, lambda s: [entry.fill_(value) for entry in s.values() if entry.is_floating_point()])
    message = rf"{name} gives a white picture and random pixels the same score, .*{re.escape(file.path)}.*Fetch them"
    with pytest.raises(FergiError, match=message) as caught:
        load_small(name, copied)
    assert "\n" not in str(caught.value)


def test_stored_positions(copied, scorers):
    """No network uses them, but others than 0, 1, 2, … show another network's file; newer libraries write none."""
    rewrite("CLIP", copied, lambda state: state["text_model.embeddings.position_ids"].add_(1))
    message = r"model\.safetensors does not fit: its entry text_model\.embeddings\.position_ids"
    with pytest.raises(FergiError, match=message):
        load_small("CLIP", copied)
    rewrite("CLIP", copied, lambda state: [state.pop(name) for name in list(state) if name.endswith("position_ids")])
    scores = load_small("CLIP", copied).score(["a cat"], [drawn(40, 40)])
    assert np.array_equal(scores, scorers["CLIP"].score(["a cat"], [drawn(40, 40)]))


def test_what_is_not_used_must_not_be_needed(tmp_path):
    """A slip in the list of unused entries would otherwise leave random weights."""
    head = torch.nn.Sequential(torch.nn.Linear(2, 2))
    AESTHETIC_HEAD.under(tmp_path).parent.mkdir()
    torch.save(head.state_dict(), AESTHETIC_HEAD.under(tmp_path))
    with pytest.raises(ValueError, match="entries among those that are not used"):
        load_network(head, AESTHETIC_HEAD, tmp_path, torch.device("cpu"), unused=("0.",))


@pytest.mark.parametrize(
    "change", [lambda words: words[:-1], lambda words: [*words, "more"], lambda words: ["x", *words[1:]]]
)
def test_another_vocabulary_is_refused(copied, change):
    """Its numbers would stand for other words."""
    path = BERT_VOCABULARY.under(copied)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    for name in ("BLIP", "ImageReward"):
        with pytest.raises(FergiError, match=r"vocab\.txt is not the vocabulary of this network: it (has|lacks) "):
            load_small(name, copied)
    path.unlink()
    with pytest.raises(FergiError, match=r"vocab\.txt.* python -m fergi\.weights fetch bert-vocabulary"):
        load_small("BLIP", copied)


def test_a_checkpoint_that_gives_no_numbers(copied):
    """Finite weights can still overflow."""
    rewrite("Aesthetic", copied, lambda state: [state[f"layers.{n}.weight"].fill_(1e38) for n in (0, 2, 4)])
    with pytest.raises(FergiError, match="Aesthetic gives no finite number for the prompt 'a picture'"):
        load_small("Aesthetic", copied)


# ---- the registry


def test_the_six_of_the_paper(published):
    """Names, columns and their order as published."""
    header = next((published / "preparation" / "preprocessed_image_data").glob("*.csv")).read_text().splitlines()[0]
    assert [SCORERS[name].column for name in PAPER_SCORERS] == header.split(",")[-6:]
    assert len({scorer.column for scorer in SCORERS.values()}) == len(SCORERS)


@pytest.mark.parametrize("name", NAMES)
def test_every_scorer_says_what_it_is(name, root):
    """Its name, files of the table, and the settings of its scores."""
    scorer = scorer_class(name)
    assert scorer.name == name and set(scorer.files) <= set(WEIGHT_FILES) and name in LAYOUTS
    settings = scorer.settings(root, torch.device("cpu"))
    assert all(re.fullmatch("[0-9a-f]{64}", settings[file.path]) for file in scorer.files)
    assert settings["device"] == "cpu" and settings["torch"] == version("torch") and settings["layout"] == "official"
    assert all(isinstance(value, str) for value in settings.values())


def test_importing_does_no_work():
    """Libraries of networks are not imported with the scorers' modules."""
    code = (
        "import sys, fergi.scorers.registry as r; [r.scorer_class(n) for n in r.SCORERS]; "
        "print([m for m in ('transformers', 'open_clip', 'ImageReward', 'huggingface_hub') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
