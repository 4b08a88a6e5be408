"""Tuning on pairs: losses against hand-worked numbers, pairs from every file, the split, and what is tuned."""

import io
import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_scorers import CPU, LAYOUTS, NAMES, clip_model, drawn, load_small, write_small_models

from fergi.dataset import Folders
from fergi.files import FergiError
from fergi.finetuning.losses import anchor_loss, logistic_loss, triplet_loss
from fergi.finetuning.pairs import Picture, PreferencePairs, PreparedPictures, read_pairs, split_from, split_pairs
from fergi.finetuning.report import before_and_after, is_better
from fergi.scorers.adapters import ADAPTER_FILE, Tunable, base_settings, tuned_scorer
from fergi.scorers.interface import offline_import
from fergi.scorers.registry import column, scorer_class

LN_3 = math.log(3)  # a difference at which the first is preferred with probability 3/4


def tensor(*values):
    """In double precision, with gradients."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


# ---- losses


def test_logistic_loss_by_hand():
    """−p log ¾ − (1 − p) log ¼ at a difference of ln 3; a tie's least value, at equal scores, is 0."""
    difference = tensor(LN_3, LN_3, LN_3, -LN_3, LN_3, 0.0, 0.0)
    label = torch.tensor([1, 0.75, 0, 0.75, 0.5, 0.5, 1], dtype=torch.float64)
    expected = [0.2876820724, 0.5623351446, 1.3862943611, 1.1116412890, 0.1438410362, 0.0, 0.6931471806]
    np.testing.assert_allclose(logistic_loss(difference, label).detach(), expected, atol=1e-10)


def test_triplet_loss_by_hand():
    """Squared distances of unit vectors in the plane; the last two are so far apart that nothing is left."""
    angle = {cosine: np.array([cosine, math.sqrt(1 - cosine**2)]) for cosine in (0.9, 0.8, 0.5)}
    prompt = np.array([1.0, 0.0])
    distance = {cosine: ((prompt - vector) ** 2).sum() for cosine, vector in angle.items()}
    by_vectors = [
        max(0.0, distance[p] - distance[n] + 0.3) for p, n in ((0.9, 0.8), (0.8, 0.9), (0.9, 0.5), (0.8, 0.5))
    ]
    np.testing.assert_allclose(by_vectors, [0.1, 0.5, 0, 0], atol=1e-12)
    first, second, label = tensor(0.9, 0.8, 0.5, 0.8, 0.9), tensor(0.8, 0.9, 0.9, 0.5, 0.5), [1, 0.9, 0.2, 0.7, 0.5]
    found = triplet_loss(first, second, torch.tensor(label, dtype=torch.float64), 0.3)
    np.testing.assert_allclose(found.detach(), [*by_vectors, 0.0], atol=1e-12)


def test_anchor_by_hand():
    """(1² + 2²) / 2, and nothing where nothing has changed."""
    found = anchor_loss(tensor(3.0, 1.0), tensor(5.0, 2.0), tensor(2.0, 1.0), tensor(7.0, 2.0))
    assert found.tolist() == [2.5, 0.0]


def test_gradients_against_finite_differences():
    """PyTorch's own comparison, away from the hinge's corner."""
    label = torch.tensor([1, 0.7, 0.5, 0.2], dtype=torch.float64)
    first, second = tensor(0.3, -1.2, 0.4, 0.5), tensor(-0.4, 0.1, 0.2, 0.45)
    assert torch.autograd.gradcheck(lambda a, b: logistic_loss(a - b, label), (first, second))
    assert torch.autograd.gradcheck(lambda a, b: triplet_loss(a, b, label, 0.3), (first, second))
    before = torch.tensor([0.2, 0.5, -0.1, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: anchor_loss(a, b, before, 2 * before), (first, second))


# ---- pairs


def png(seed):
    """A small picture as the bytes of a file."""
    with io.BytesIO() as file:
        drawn(12, 10, seed).save(file, "png")
        return file.getvalue()


def parquet(path, rows):
    """Pick-a-Pic's columns; a row's other columns may be given."""
    made = [
        {"caption": "a cat", "jpg_0": png(0), "jpg_1": png(1), "label_0": 1.0, "label_1": 0.0} | row for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(made), path)
    return path


def read(path, root=None, **options):
    """The pairs and the sentences."""
    return read_pairs(path, Folders(root or path.parent), **options)


def shown(pairs):
    """Prompt, participant, both pictures' first bytes' sums, label."""
    table = pairs.table
    names = (
        [pairs.pictures[place].content() for place in table["first"]],
        [pairs.pictures[place].content() for place in table["second"]],
    )
    return list(zip(table["prompt"], table["participant"], *names, table["label"], strict=True))


def test_pick_a_pic(tmp_path):
    """Soft labels, ties, people; pictures as bytes or in the Hub's form, each once; unlabelled pairs are not used."""
    rows = [
        {"label_0": 0.727, "label_1": 0.273, "user_id": 7},
        {"label_0": 0.5, "label_1": 0.5, "user_id": 8, "jpg_0": png(1), "jpg_1": png(2)},
        {"has_label": False, "user_id": 9},
    ]
    rows = [{"has_label": True} | row for row in rows]
    pairs, said = read(parquet(tmp_path / "pairs.parquet", rows))
    expected = [("a cat", "7", png(0), png(1), 0.727), ("a cat", "8", png(1), png(2), 0.5)]
    assert shown(pairs) == expected and len(pairs.pictures) == 3
    assert said == ["1 pairs without a label are not used."]
    assert pairs.hardened().table["label"].tolist() == [1.0, 0.5]
    hub = [{"jpg_0": {"bytes": png(5), "path": None}, "jpg_1": {"bytes": png(6), "path": None}}]
    (tmp_path / "folder").mkdir()
    parquet(tmp_path / "folder/a.parquet", hub)
    parquet(tmp_path / "folder/b.parquet", hub)
    assert shown(read(tmp_path / "folder")[0]) == [("a cat", "", png(5), png(6), 1.0)] * 2


def write_pictures(folder, *names):
    """Different pictures of these names."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        drawn(12, 10, seed).save(folder / name)


def test_json(tmp_path):
    """HPD v2 names the preferred picture with 1; ImageReward ranks from 1, and equal ranks tie."""
    write_pictures(tmp_path / "images", "a.png", "b.png", "c.png")
    hpd = [{"prompt": "a cat", "file_path": ["a.png", "b.png"], "human_preference": [0, 1]}]
    (tmp_path / "hpd.json").write_text(json.dumps(hpd))
    pairs, _ = read(tmp_path / "hpd.json", pictures=tmp_path / "images")
    assert [each.name for each in pairs.pictures] == [str(tmp_path / "images" / name) for name in ("a.png", "b.png")]
    assert pairs.table[["first", "second", "label"]].values.tolist() == [[0, 1, 0.0]]
    entry = {"id": "1", "prompt": "a cat", "generations": ["a.png", "b.png", "c.png"], "ranking": [2, 1, 2]}
    (tmp_path / "images/reward.json").write_text(json.dumps([entry]))
    pairs, _ = read(tmp_path / "images/reward.json")
    assert pairs.table[["first", "second", "label"]].values.tolist() == [[0, 1, 0.0], [0, 2, 0.5], [1, 2, 1.0]]
    test = {"prompt": "a cat", "image_path": ["a.png", "b.png", "c.png"], "rank": [2, 1, 3], "raw_annotations": []}
    (tmp_path / "test.json").write_text(json.dumps([test]))
    pairs, _ = read(tmp_path / "test.json", pictures=tmp_path / "images")
    assert pairs.table[["first", "second", "label"]].values.tolist() == [[0, 1, 0.0], [0, 2, 1.0], [1, 2, 1.0]]


def test_hpd_v3(tmp_path):
    """``path1`` is preferred, with its confidence; none, also as a word, is certainty."""
    write_pictures(tmp_path, "a.png", "b.png")
    entry = {"prompt": "a cat", "path1": "b.png", "path2": "a.png", "choice_dist": [9, 1], "model1": "", "model2": ""}
    entries = [entry | {"confidence": value} for value in (0.9, None, "null")]
    (tmp_path / "train.json").write_text(json.dumps([*entries, entry]))
    pairs, _ = read(tmp_path / "train.json")
    assert [each.source.name for each in pairs.pictures] == ["b.png", "a.png"]
    assert pairs.table[["first", "second", "label"]].values.tolist() == [[0, 1, 0.9]] + [[0, 1, 1.0]] * 3


ANNOTATED = "participant,session_index,prompt,first_image,second_image,probability_first,verdict,reason\n"


def annotated(root, *lines):
    """A table of ``annotate_preferences.py`` with the images that it speaks of."""
    write_pictures(root / "data/101/session_1", "image1.png", "image2.png", "image3.png")
    path = root / "preferences.csv"
    path.write_text(ANNOTATED + "".join(f"{line}\n" for line in lines))
    return path


def test_annotated_table(tmp_path):
    """Pairs with a verdict, by probability; people who do not share are not used."""
    lines = ["101,1,a cat,1,2,0.8,first,", "101,1,a cat,1,3,0.55,abstain,difference too small"]
    lines += ["101,1,a cat,2,3,0.25,second,", "102,1,a dog,1,2,0.9,first,"]
    path = annotated(tmp_path, *lines)
    consent = tmp_path / "data/102/consent.json"
    consent.parent.mkdir()
    consent.write_text(json.dumps({"sharing": False, "withdrawn": False}))
    pairs, said = read(path, tmp_path)
    assert pairs.table.values.tolist() == [["a cat", "101", 0, 1, 0.8], ["a cat", "101", 1, 2, 0.25]]
    assert [each.source.name for each in pairs.pictures] == ["image1.png", "image2.png", "image3.png"]
    not_used = "Pairs of 1 participants who do not share their data are not used."
    assert said == ["1 of 4 pairs without a verdict are not used.", not_used]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "none.parquet", "none.parquet does not exist"),
        (lambda root: root, "has no parquet file"),
        (
            lambda root: parquet(root / "a.parquet", [{}, {"jpg_1": None}]),
            r"1 of 2 pairs in .*\(first: row 2: it has no pic",
        ),
        (lambda root: parquet(root / "a.parquet", [{"label_0": 1.5}]), r"its labels 1.5 and 0.0 are no probabilities"),
        (
            lambda root: parquet(root / "a.parquet", [{"label_0": 0.5, "label_1": 0.5}] * 3),
            "All 3 pairs in .* are ties",
        ),
        (
            lambda root: parquet(root / "a.parquet", [{"has_label": False}]),
            "has no pair with a preference. 1 pairs with",
        ),
        (
            lambda root: annotated(root, "101,1,,1,2,0.8,first,"),
            r"line 2: it has no prompt, so its session has no data",
        ),
        (lambda root: annotated(root, "101,1,a cat,1,2,,abstain,black image"), "has no pair with a preference. 1 of 1"),
        (lambda root: annotated(root, "101,1,a cat,1,2,,first,"), "line 2: its label nan is no"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, make, message):
    """One sentence, before anything is decoded."""
    with pytest.raises(FergiError, match=message) as caught:
        read(make(tmp_path), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "is not a list of pairs"),
        ([{"prompt": "a", "file_path": ["a.png"], "human_preference": [1]}], r"entry 1: it has 1 pictures and 1 pref"),
        ([{"prompt": "a", "generations": ["a.png", "b.png"]}], "entry 1: no 'ranking'"),
        ([{"prompt": "a"}], "entry 1: no 'file_path'"),
        ([{"prompt": "a", "path1": "a.png"}], "entry 1: no 'path2'"),
        ([{"prompt": "a", "path1": "a.png", "path2": "b.png", "confidence": 1.2}], "its label 1.2 is no probability"),
        ([3], "1 of 1 pairs in"),
    ],
)
def test_json_that_cannot_be_used(tmp_path, content, message):
    """Likewise."""
    (tmp_path / "pairs.json").write_text(json.dumps(content))
    with pytest.raises(FergiError, match=message):
        read(tmp_path / "pairs.json")
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FergiError, match=r"pairs\.csv has no column participant\. Name a table of annotate"):
        read(tmp_path / "pairs.csv")


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    """In a folder and inside a parquet file; it is not replaced by another."""
    path = annotated(tmp_path, "101,1,a cat,1,2,0.8,first,", "101,1,a cat,1,3,0.8,first,")
    (tmp_path / "data/101/session_1/image3.png").write_bytes(png(0)[:60])
    pairs, _ = read(path, tmp_path)
    with pytest.raises(FergiError, match=r"^1 of 3 pictures is unusable \(first: .*image3\.png is .*Put it there, or"):
        pairs.check_pictures(2)
    (tmp_path / "data/101/session_1/image3.png").unlink()
    with pytest.raises(FergiError, match=r"image3\.png does not exist"):
        pairs.check_pictures(2)
    pairs, _ = read(parquet(tmp_path / "a.parquet", [{}, {"jpg_1": b"not a picture"}]))
    with pytest.raises(FergiError, match=r"jpg_1 of row 2 of .*a\.parquet is not a picture that can be used"):
        pairs.check_pictures(1)


def test_the_sum_of_the_pairs_changes_with_everything(tmp_path):
    """Prompt, label, person and picture; not with the name of the file."""
    row = {"user_id": 1, "label_0": 0.7, "label_1": 0.3}
    changes = [{"caption": "a dog"}, {"label_0": 0.6, "label_1": 0.4}, {"user_id": 2}, {"jpg_1": png(4)}]
    sums = [
        read(parquet(tmp_path / f"{n}.parquet", [row | more]))[0].check_pictures(1) for n, more in enumerate(changes)
    ]
    again = [read(parquet(tmp_path / f"{n}-.parquet", [row]))[0].check_pictures(1) for n in range(2)]
    assert again[0] == again[1] and len({*sums, *again}) == 5


def test_prepared_pictures_arrive_in_order_whatever_is_kept():
    """Batches of repeated places, with room for all, for some and for none."""
    pictures = [Picture(str(n), png(n)) for n in range(6)]
    expected = [np.asarray(picture.open()) for picture in pictures]
    batches = [np.array(each) for each in ([0, 3, 3], [5, 1], [0, 2, 4], [1])]
    for memory in (10**6, 800, 0):
        prepared = PreparedPictures(pictures, np.asarray, workers=2, memory=memory)
        for batch, found in zip(batches * 2, prepared.batches(batches * 2), strict=True):
            assert all(np.array_equal(expected[place], each) for place, each in zip(batch, found, strict=True))
        assert len(prepared.kept) * 360 <= memory
    assert list(PreparedPictures(pictures, np.asarray, workers=1).batches([])) == []


# ---- the split


def table(rows):
    """Pairs of (prompt, participant), the labels 1 and 0 in turn."""
    names = [(prompt, who, 0, 1, float(number % 2)) for number, (prompt, who) in enumerate(rows)]
    return PreferencePairs((), pd.DataFrame(names, columns=["prompt", "participant", "first", "second", "label"]))


@given(st.integers(0, 50), st.integers(2, 12), st.integers(2, 6), st.booleans())
def test_no_prompt_and_no_participant_on_both_sides(seed, n_people, n_prompts, shared):
    """Whether people have prompts of their own or all have the same."""
    prompts = [(f"{0 if shared else who}-{p}", f"p{who}") for who in range(n_people) for p in range(n_prompts)]
    pairs = table([each for each in prompts for _ in range(4)])
    split = split_pairs(pairs, 0.3, seed)
    one, other = (pairs.table.iloc[rows] for rows in (split.training, split.held_out))
    assert split.unit == "participant" and len(one) and len(other)
    assert not set(one["prompt"]) & set(other["prompt"]) and not set(one["participant"]) & set(other["participant"])
    if not shared and n_people > 4:
        assert 0.1 < len(other) / len(pairs) < 0.5 and len(one) + len(other) == len(pairs)
    again = split_pairs(pairs, 0.3, seed)
    assert np.array_equal(again.training, split.training)


def test_prompts_alone_are_split_where_people_are_not_known():
    """None is named, or one person made all pairs."""
    for who in ("", "101"):
        pairs = table([(f"prompt {n // 4}", who) for n in range(40)])
        split = split_pairs(pairs, 0.2, 0)
        assert split.unit == "prompt" and len(split.held_out) == 8 and len(split.training) == 32


def test_pairs_of_another_file_are_held_out():
    """Training pairs of the same prompts or people are not used."""
    own, others = table([("a", "1"), ("a", "1"), ("b", "2"), ("b", "2"), ("c", "3")]), table([("c", "9"), ("d", "2")])
    both, split = split_from(own, others)
    assert split.training.tolist() == [0, 1] and split.held_out.tolist() == [5, 6] and len(both) == 7


def test_what_cannot_be_split():
    """A single prompt; ties alone on one side."""
    with pytest.raises(FergiError, match=r"All 3 pairs are of one prompt, .*--held-out-pairs"):
        split_pairs(table([("a", "1"), ("a", "2"), ("a", "3")]), 0.2, 0)
    pairs = table([("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")])
    tied = PreferencePairs((), pairs.table.assign(label=[1.0, 0.5, 0.5, 0.5]))
    with pytest.raises(FergiError, match=r"Of 4 pairs none with a preference is left to (hold out|train on)"):
        split_pairs(tied, 0.5, 0)


# ---- before and after


def test_before_and_after_by_hand():
    """10 people with 10 pairs each, 5 right before and 7 after: 50, 70 and 20 without any spread."""
    units = np.repeat([f"p{n}" for n in range(10)], 10)
    before, after = np.tile(np.arange(10) < 5, 10), np.tile(np.arange(10) < 7, 10)
    found = before_and_after(units, np.ones(100, bool), {"before": before, "after": after}, 0)
    assert found.loc["gain"].tolist() == [20, 20, 20] and found.loc["after"].tolist() == [70, 70, 70]
    assert is_better(found)
    mixed = np.where(units < "p5", after, before & (np.tile(np.arange(10), 10) < 3))  # five gain 20, five lose 20
    found = before_and_after(units, np.ones(100, bool), {"before": before, "after": mixed}, 0)
    assert found.loc["gain", "lower"] < -5 < 5 < found.loc["gain", "upper"] and not is_better(found)
    half = before_and_after(units, np.tile(np.arange(10) >= 5, 10), {"before": before, "after": after}, 0)
    assert half.loc["before", "estimate"] == 0 and half.loc["after", "estimate"] == 40  # pairs that are no tie count


# ---- what is tuned


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All small models."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        write_small_models(folder, patch)
    return folder


def lora(scorer, *targets):
    """Settings of a LoRA."""
    return {"train": "lora", "rank": 2, "alpha": 2, "lora_targets": ",".join(targets or scorer.lora_targets)}


def scores(scorer):
    """Of three pictures under two prompts, with gradients."""
    pixels = torch.stack([scorer.pixels(drawn(40, 40, seed)) for seed in range(3)])
    return scorer.compute(["a cat", "the dog", "a cat"], pixels)


TUNED = [name for name in NAMES if scorer_class(name).lora_targets]


@pytest.mark.parametrize("name", TUNED)
def test_a_new_lora_changes_nothing_and_its_file_gives_the_tuned_scores(root, tmp_path, name):
    """Scores start where they were; every part gets a gradient; saved, loaded and merged, the scores are the same."""
    scorer = load_small(name, root)
    before = scores(scorer).detach()
    part = Tunable(scorer, lora(scorer))
    found = scores(scorer)
    torch.testing.assert_close(found.detach(), before, rtol=0, atol=1e-6)
    found.sum().backward()
    part.check_gradients()
    with torch.no_grad():
        for number, value in enumerate(part.parameters.values()):
            value += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number))
    tuned = scores(scorer).detach()
    assert (tuned - before).abs().max() > 1e-3
    settings = {
        "scorer": name,
        "name": "mine",
        **lora(scorer),
        **base_settings(scorer_class(name), root, LAYOUTS[name]),
    }
    part.save(tmp_path / ADAPTER_FILE, settings)
    loaded = scorer_class(f"{name}+{tmp_path / ADAPTER_FILE}")(root, CPU, LAYOUTS[name])
    assert loaded.name == f"{name}+mine" and column(loaded.name) == column(name) + "+mine"
    np.testing.assert_allclose(loaded.score(["a cat"], [drawn(40, 40, 2)]), tuned[2:], atol=1e-4)
    assert not any("lora" in entry for entry in loaded.network.state_dict())
    told = loaded.settings(root, CPU, LAYOUTS[name])
    assert told["scorer"] == f"{name}+mine" and told["tuning: rank"] == "2" and len(told["adapter"]) == 64


def test_peft_reads_the_adapter(root, tmp_path):
    """The same embeddings by peft's own loader on transformers' own network."""
    with offline_import():
        from peft import PeftModel
    scorer = load_small("CLIP", root)
    part = Tunable(scorer, lora(scorer))
    with torch.no_grad():
        for value in part.parameters.values():
            value += 0.05
    settings = {"scorer": "CLIP", "name": "mine", **lora(scorer), "layout": ""}
    part.save(tmp_path / ADAPTER_FILE, settings)
    pixels = scorer.pixels(drawn(40, 40))[None]
    theirs = PeftModel.from_pretrained(clip_model(1), str(tmp_path))
    with torch.no_grad():
        expected = theirs.get_image_features(pixel_values=pixels)
        assert (expected - clip_model(1).get_image_features(pixel_values=pixels)).abs().max() > 1e-2
        torch.testing.assert_close(scorer.embed_images(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "way", "expected"),
    [
        ("PickScore", "projections", {"visual_projection.weight", "text_projection.weight"}),
        ("HPSv2", "projections", {"visual.proj", "text_projection"}),
        (
            "ImageReward",
            "projections",
            {f"mlp.layers.{n}.{kind}" for n in (0, 2, 4, 6, 7) for kind in ("weight", "bias")},
        ),
    ],
)
def test_projections(root, name, way, expected):
    """The last linear maps and nothing else."""
    assert set(Tunable(load_small(name, root), {"train": way}).parameters) == expected


def test_layers_are_the_published_ones():
    """Counted at the official sizes on no memory: Social Reward tunes 52.56 M of 427.6 M values (its own figure)."""
    from types import SimpleNamespace

    from fergi.scorers.clip import VIT_L_14, clip_network

    known = scorer_class("SocialReward")
    with torch.device("meta"):
        network = clip_network(VIT_L_14)
    asked = SimpleNamespace(network=network, name="", trained_layers=known.trained_layers)
    part = Tunable(asked, {"train": "layers"})
    assert round(sum(value.numel() for value in part.parameters.values()) / 1e6, 2) == 52.56
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 1) == 427.6
    blocks = {name.split(".")[3] for name in part.parameters if name.startswith("vision_model.encoder")}
    assert blocks == {"21", "22", "23"} and not {"visual_projection.weight", "logit_scale"} & set(part.parameters)


def test_a_lora_that_trains_nothing_stops(root):
    """open_clip's attention reads out_proj past the adapter; a name that is nowhere; a layer without a LoRA."""
    scorer = load_small("HPSv2", root)
    part = Tunable(scorer, lora(scorer, "out_proj"))
    with pytest.raises(RuntimeError, match="does not require grad"):
        scores(scorer).sum().backward()
    with pytest.raises(
        FergiError, match=r"^8 of the 8 parameters to tune in HPSv2 get no gradient \(first: .*out_proj"
    ):
        part.check_gradients()
    for name in ("nowhere", "ln_post"):
        with pytest.raises(
            FergiError, match=rf"^A LoRA on {name} reaches no parameter of HPSv2.*such as attn c_fc c_proj"
        ):
            Tunable(load_small("HPSv2", root), lora(scorer, name))


def test_files_of_tuned_scorers_are_read_strictly(root, tmp_path):
    """Of another scorer, other weights or sizes, with an entry missing, or no such file at all."""
    scorer = load_small("PickScore", root)
    part, path = Tunable(scorer, {"train": "projections"}), tmp_path / ADAPTER_FILE
    layout, kind = LAYOUTS["PickScore"], scorer_class("PickScore")
    settings = {"scorer": "PickScore", "name": "mine", "train": "projections", **base_settings(kind, root, layout)}
    part.save(path, settings)
    assert tuned_scorer(kind, path)(root, CPU, layout).score(["a cat"], [drawn(9, 9)]) == pytest.approx(
        load_small("PickScore", root).score(["a cat"], [drawn(9, 9)]), abs=1e-5
    )

    def refused(message, name="PickScore", sizes=layout):
        with pytest.raises(FergiError, match=message) as caught:
            scorer_class(f"{name}+{path}")(root, CPU, sizes)
        assert "\n" not in str(caught.value)

    refused(r"belongs to PickScore, not to CLIP. Name it PickScore\+", name="CLIP")
    refused("was tuned from another PickScore: layout was", sizes=None)
    part.save(path, settings | {"base: pretrained_models/PickScore_v1/model.safetensors": "0" * 64})
    refused("was tuned from another PickScore: pretrained_models/PickScore_v1/model.safetensors was '0000")
    part.parameters.pop("text_projection.weight")
    part.save(path, settings)
    refused(r"does not fit CLIPModel with its \d+ entries: 1 missing \(first: text_projection.weight\)")
    part.save(path, {})
    refused("a format that is not known here")
    path.write_bytes(b"x" * 100)
    refused("is no file of a tuned scorer. Name adapter_model.safetensors in a folder that finetune_scorer.py wrote")
    path.unlink()
    refused("1 of 1 adapter file is missing")
    with pytest.raises(FergiError, match=r"There is no scorer 'Pick'\. There are CLIP, "):
        scorer_class("Pick")


@pytest.mark.filterwarnings("ignore:Image size")
def test_pictures_that_no_one_can_open_have_a_name():
    """A bomb inside a table is refused like one in a file."""
    with io.BytesIO() as file:
        Image.new("1", (9500, 9500)).save(file, "png")
        with pytest.raises(ValueError, match=r"^row 1 is too large"):
            Picture("row 1", file.getvalue()).open()
