"""Pseudo-labels: features of a frozen UNet, the head that reads them, and labels corrected with its estimates."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from drawn import UNITS
from numpy.testing import assert_allclose, assert_array_equal
from small_generator import save_small_generator

import config
import correct_labels as script
from fergi.action_units.network import random_network
from fergi.face_generation import pseudo_labels
from fergi.face_generation.correction import correct, correct_expressions, whole
from fergi.face_generation.generator import FaceGenerator
from fergi.face_generation.pictures import read_pictures
from fergi.face_generation.pseudo_labels import FaceFeatures, HeadSettings, load_head, save_head, train_head
from fergi.files import FergiError
from fergi.weights import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

NAN = np.nan
SHORT = config.LABEL_HEAD | {"steps": 100, "batch_size": 16, "width": 32}


# ---- the rule


def test_labels_far_from_the_mean_become_it():
    """Worked by hand, threshold 1.5: only a distance beyond it changes a label, and NaN has no vote and no label."""
    rows = [  # label, estimates → corrected
        (2.0, (2.0, 3.0), 2.0),  # mean 2.5
        (1.0, (2.0, 3.0), 1.0),  # mean 2.5, exactly the threshold away
        (0.0, (2.0, 3.0), 2.5),
        (5.0, (1.0, 2.0), 1.5),
        (5.0, (1.0, NAN), 1.0),  # one vote
        (3.0, (NAN, NAN), 3.0),  # none
        (NAN, (4.0, 4.0), NAN),  # not labelled
        (0.1, (0.0, 0.0), 0.1),
    ]
    labels, estimates, expected = (np.array(column) for column in zip(*rows, strict=True))
    corrected = correct(labels[:, None], estimates.T[..., None], 1.5)[:, 0]
    assert_array_equal(corrected, expected)
    assert corrected.tobytes() == expected.tobytes()
    assert_array_equal(whole(np.array([2.5, 1.49, -0.2, 5.4, NAN])), [3, 1, 0, 5, NAN])
    message = r"Estimates of shape \(2, 7, 1\) do not fit labels of shape \(8, 1\)\. Give each"
    with pytest.raises(FergiError, match=message):
        correct(labels[:, None], estimates.T[:, :7, None], 1.5)


def test_expressions_become_what_is_more_probable():
    """By more than the threshold, in the mean of two estimators; a tie, or no label, stays."""
    classes, labels = ("happy", "sad"), ["sad", "sad", "happy", "", "sad", "happy"]
    first = [[0.9, 0.1], [0.7, 0.3], [0.9, 0.1], [0.9, 0.1], [NAN, NAN], [0.5, 0.5]]
    second = [[0.7, 0.3], [0.8, 0.2], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.5, 0.5]]
    corrected = correct_expressions(labels, np.array([first, second]), classes, 0.55)
    assert corrected.tolist() == ["happy", "sad", "happy", "", "happy", "happy"]  # 0.6, 0.5, 0, –, 0.8, 0
    assert correct_expressions(labels, np.zeros((1, 6, 0)), (), 0.5).tolist() == labels
    with pytest.raises(
        FergiError, match=r"1 of 2 expressions is not known to the head \(first: 'calm'\)\. It knows happy, sad;"
    ):
        correct_expressions(["sad", "calm"], np.zeros((1, 2, 2)), classes, 0.5)
    with pytest.raises(FergiError, match=r"Probabilities of shape \(1, 6, 2\) do not fit 2 pictures and 2 expressions"):
        correct_expressions(["sad", "happy"], np.zeros((1, 6, 2)), classes, 0.5)


# ---- features and head


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> FaceGenerator:
    """The small one with random weights, for pictures of 32 pixels."""
    return FaceGenerator(str(save_small_generator(tmp_path_factory.mktemp("base") / "base")), "cpu")


def write_squares(folder: Path, n: int, seed: int) -> Path:
    """Aligned faces that are noise with a square, whose brightness is AU4 and whose colour is the expression."""
    random, rows = np.random.default_rng(seed), []
    folder.mkdir(parents=True)
    for number in range(n):
        picture = random.integers(60, 120, (112, 112, 3), np.uint8)
        au4, colour = random.integers(0, 6), random.integers(2)
        picture[20:60, 40:90, 1] = 20 + 45 * au4
        picture[70:100, 30:80, 2 * colour] = 250
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        row = {"image": f"{number}.png", "subject": f"XY{number % 7}", "part": "left", "frame": number + 1}
        row |= dict.fromkeys(UNITS, -1) | {"AU4": au4}
        rows.append(row | {"expression": ("sad", "happy")[colour], "remark": f"{number}.0"})
    pd.DataFrame(rows).to_csv(folder / "index.csv", index=False)
    (folder / "settings.json").write_text(json.dumps({"luma": "rgb"}))
    return folder


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> dict[str, Path]:
    """To train on, and others."""
    folder = tmp_path_factory.mktemp("squares")
    return {name: write_squares(folder / name, n, seed) for name, n, seed in (("labelled", 240, 1), ("faces", 60, 2))}


def test_features_are_those_of_the_blocks_and_the_attention(generator, squares):
    """Of five blocks and four attentions, averaged down to 8 × 8: the same again, whatever else is in the batch.

    Attention to the twelve tokens sums to 1 at each place, in each layer. No hook remains.
    """
    features = FaceFeatures(generator, 1)
    assert features.shapes == (((32 + 64 + 64 + 64 + 32, 8),), ((12 * 4, 8),))
    pictures = read_pictures([squares["faces"]])[0].pictures[:3]
    rows = features.of_pictures(pictures)
    assert rows.shape == (3, features.size) and rows.dtype == np.float16
    maps = rows[:, -12 * 4 * 64 :].reshape(3, 4, 12, 64).astype(float)
    assert_allclose(maps.sum(axis=2), 1, atol=0.01)
    assert_array_equal(features.of_pictures(pictures), rows)
    alone = FaceFeatures(generator, 1).of_pictures(pictures[1:2])
    assert_allclose(alone[0].astype(float), rows[1].astype(float), atol=0.02)
    assert np.abs(FaceFeatures(generator, 400).of_pictures(pictures)[0] - rows[0]).max() > 0.1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in generator.unet.modules())
    with pytest.raises(FergiError, match=r"has timesteps from 0 to 999, and no 1000\."):
        FaceFeatures(generator, 1000)


@pytest.fixture(scope="module")
def learned(generator, squares):
    """Features of the pictures to train on, their labels, and a head that learned them."""
    pictures = read_pictures([squares["labelled"]])[0]
    features = FaceFeatures(generator, 1)
    rows = features.of_pictures(pictures.pictures)
    known = rows, pictures.intensities, pictures.expressions.tolist()
    return features, known, train_head(features.shapes, *known, HeadSettings(**SHORT))


def test_the_head_learns_what_is_planted(learned, squares):
    """On other pictures; AUs without labels are never estimated."""
    features, _, head = learned
    others = read_pictures([squares["faces"]])[0]
    intensities, probabilities = head.estimate(features.of_pictures(others.pictures))
    assert np.corrcoef(intensities[:, 2], others.intensities[:, 2])[0, 1] > 0.9
    assert intensities[:, 2].min() >= 0 and intensities[:, 2].max() <= 5
    assert np.isnan(np.delete(intensities, 2, axis=1)).all()
    assert head.expressions == ("happy", "sad")
    assert (np.array(head.expressions)[probabilities.argmax(axis=1)] == others.expressions).mean() > 0.9
    assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_head_is_trained_on_and_loaded(learned, generator, tmp_path, monkeypatch):
    """A training that was interrupted ends where an uninterrupted one ends, to the bit, and so does the file's head.

    A head of another base model, or that is not whole, is refused.
    """
    features, known, head = learned
    monkeypatch.setattr(pseudo_labels, "STATE_EVERY", 40)
    calls, loss = [], pseudo_labels._loss

    def stop(*given):
        calls.append(given)
        if len(calls) == 70:
            raise KeyboardInterrupt
        return loss(*given)

    more = {"state": tmp_path / "state.pth"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pseudo_labels, "_loss", stop)
        train_head(features.shapes, *known, HeadSettings(**SHORT), **more)
    again = train_head(features.shapes, *known, HeadSettings(**SHORT), **more)
    save_head(again, tmp_path, features.settings | SHORT)
    for each in (again, load_head(tmp_path, features)):
        assert each.expressions == head.expressions
        assert all(torch.equal(value, each.state_dict()[name]) for name, value in head.state_dict().items())
    base = FaceGenerator(str(save_small_generator(tmp_path / "other", black=True)), "cpu", seed=1)
    with pytest.raises(FergiError, match=r"The head in .* was trained on other features \(adapter was '.*' and is '"):
        load_head(tmp_path, FaceFeatures(base, 1))
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"width": 16}))
    with pytest.raises(
        FergiError, match=r"label_head\.safetensors does not fit LabelHead with its .* of another shape"
    ):
        load_head(tmp_path, features)


@pytest.mark.parametrize(("change", "message"), [
    (lambda rows, units, words: (rows, units[:-1], words),
     r"Labels of shape \(239, 12\) and 240 expressions do not fit 240 pictures\. Give each picture 12"),
    (lambda rows, units, words: (rows, units * NAN, [""] * 240), "None of the 240 pictures has a label to train on"),
])  # fmt: skip
def test_labels_that_train_no_head(learned, change, message):
    """Before any step."""
    features, known, _ = learned
    with pytest.raises(FergiError, match=message):
        train_head(features.shapes, *change(*known), HeadSettings(**SHORT))


# ---- the script


@pytest.fixture(scope="module")
def root(generator, tmp_path_factory) -> Path:
    """A root with a face generator."""
    folder = tmp_path_factory.mktemp("root") / "face_generators" / "faces"
    folder.mkdir(parents=True)
    generator.save(folder / "au_adapter.safetensors")
    of_base = {"pipeline": generator.name, "unet": generator.fingerprint(), "resolution": generator.resolution}
    (folder / "settings.json").write_text(json.dumps(of_base))
    return folder.parents[1]


@pytest.fixture
def spoilt(squares, tmp_path) -> Path:
    """The other squares, with DISFA's label files too; 12 of 60 AU4s are 3 off, 12 expressions are the other one."""
    folder = Path(shutil.copytree(squares["faces"], tmp_path / "spoilt"))
    index = pd.read_csv(folder / "index.csv")
    index.loc[::5, "AU4"] = (index["AU4"][::5] + 3) % 6
    index.loc[1::5, "expression"] = index["expression"][1::5].map({"happy": "sad", "sad": "happy"})
    index.to_csv(folder / "index.csv", index=False)
    for subject, rows in index.groupby("subject"):
        (folder / "ActionUnit_Labels" / subject).mkdir(parents=True)
        lines = [f"{frame},{label}\n" for frame, label in zip(rows["frame"], rows["AU4"], strict=True)]
        (folder / "ActionUnit_Labels" / subject / f"{subject}_au4.txt").write_text("".join(lines))
    return folder


def run(root: Path, faces: Path, out: Path, *options: str) -> None:
    """The script in this process."""
    given = ["--root", str(root), "--faces", str(faces), "--generator", "faces", "--out", str(out), "--device", "cpu"]
    script.main([*given, "--workers", "1", *options])


def test_spoilt_labels_are_corrected(root, spoilt, squares, tmp_path, monkeypatch, capsys):
    """Closer to the truth; each change is in the table, and nothing else is changed, least of all in the folder itself.

    An AU network that was not trained on AU4 has no vote about it. An interrupted run resumes with what is estimated.
    """
    monkeypatch.setattr(config, "LABEL_HEAD", SHORT)
    monkeypatch.setattr(config, "LABEL_HEAD_PICTURES", 200)
    monkeypatch.setattr(script, "PART", 20)
    checkpoint, out = tmp_path / "head.pth", tmp_path / "out"
    save_weights(random_network("ir10-thin", 0).state_dict(), checkpoint)
    counts = {f"training labels of {unit} by intensity": [0] * 6 for unit in UNITS}
    counts["training labels of AU12 by intensity"] = [1] * 6
    (tmp_path / "settings.json").write_text(json.dumps(counts))
    options = "--labelled", str(squares["labelled"]), "--checkpoint", str(checkpoint), "--network", "ir10-thin"
    options += "--threshold", "2"
    before = {path: path.read_bytes() for path in spoilt.rglob("*") if path.is_file()}
    estimates, original = [], FaceFeatures.of_pictures

    def watched(self, pictures, into=None):
        estimates.append(len(pictures))
        if estimates.count(20) == 3 and len(estimates) == 4:
            raise KeyboardInterrupt
        return original(self, pictures, into)

    message = r"label_head/features\.npy needs 0\.0 GB, and 0\.0 GB are free\. Make room or choose another --head\."
    with monkeypatch.context() as patch, pytest.raises(FergiError, match=message):
        patch.setattr(script.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        run(root, spoilt, out, *options)
    capsys.readouterr()
    monkeypatch.setattr(FaceFeatures, "of_pictures", watched)
    with pytest.raises(KeyboardInterrupt):
        run(root, spoilt, out, *options)
    assert not (out / "index.csv").exists()
    run(root, spoilt, out, *options)
    assert estimates == [200, 20, 20, 20, 20]
    said = capsys.readouterr().out
    assert "Training the head on 200 pictures of 7 people." in said and said.count("Training") == 1
    assert {path: path.read_bytes() for path in spoilt.rglob("*") if path.is_file()} == before

    truth, given, found = (pd.read_csv(each / "index.csv") for each in (squares["faces"], spoilt, out))
    wrong = [np.abs(each["AU4"] - truth["AU4"]).mean() for each in (given, found)]
    assert wrong[1] < 0.5 * wrong[0]
    missed = [(each["expression"] != truth["expression"]).mean() for each in (given, found)]
    assert missed[0] == 0.2 and missed[1] < 0.1
    rest = [name for name in given if name not in ("AU4", "expression")]
    pd.testing.assert_frame_equal(found[rest], given[rest])
    assert (out / "index.csv").read_text().splitlines()[1].endswith(",0.0")  # cells are kept as they were written
    changes = pd.read_csv(out / "label_changes.csv", index_col=["image", "label"])
    assert list(changes) == ["before", "after", "ensemble", "head", "head 0"]
    rows = given.set_index("image"), found.set_index("image")
    differences = {
        (image, name)
        for name in ("AU4", "expression")
        for image in rows[0].index[(rows[0][name] != rows[1][name]).to_numpy()]
    }
    assert set(changes.index) == differences
    for (image, name), row in changes.iterrows():
        assert [row["before"], row["after"]] == [str(each[name][image]) for each in rows]
    units = changes.xs("AU4", level="label")
    assert units["head 0"].isna().all() and (units["ensemble"].astype(float) == units["head"].astype(float)).all()
    table = pd.concat(
        pd.read_csv(file, names=["frame", "AU4"]) for file in sorted((out / "ActionUnit_Labels").glob("*/*.txt"))
    )
    assert table.set_index("frame")["AU4"].sort_index().tolist() == found["AU4"].tolist()
    settings = json.loads((out / "settings.json").read_text())
    assert settings["luma"] == "rgb" and settings["corrected_by"] == ["head", "head 0"]
    assert (out / "3.png").samefile(spoilt / "3.png")
    assert sorted(path.name for path in (root / "face_generators/faces/label_head").iterdir()) == [
        "label_head.safetensors",
        "settings.json",
    ]
    run(root, spoilt, out, *options)
    assert capsys.readouterr().out.startswith("Nothing is left to do: ")
    with pytest.raises(FergiError, match=r"says that correction_threshold was 2\.0 .* now it is 3\.0\. Repeat its"):
        run(root, spoilt, out, *options, "--threshold", "3")


@pytest.mark.parametrize(("change", "message"), [
    (lambda faces: shutil.rmtree(faces), r"settings\.json\)\. Name a folder of aligned faces with --faces"),
    (lambda faces: edit(faces, lambda table: table.assign(AU4=-1, expression="")),
     r"None of the 60 pictures of .* has a label to correct\. Name a folder of aligned faces"),
    (lambda faces: edit(faces, lambda table: table.assign(image=["x.png", *table["image"][1:]])),
     r"1 of 60 pictures of .*index\.csv is missing \(first: x\.png\)"),
    (lambda faces: edit(faces, lambda table: table.assign(AU4="high")), r"column AU4: 'high' is no intensity"),
    (lambda faces: edit(faces, lambda table: table.assign(expression="calm")),
     r"1 of 1 expressions is not known to the head \(first: 'calm'\)\. It knows happy, sad"),
    (lambda faces: (faces / "1.png").write_bytes(b"no picture"), r"1 of 60 pictures is unusable \(first: .*1\.png"),
    (lambda faces: None, r"spoilt is also in --labelled: a head that learned these labels would agree with them"),
    (lambda faces: None, r"is inside .*spoilt, where nothing is changed\. Choose another --out"),
    (lambda faces: None, r"nothing_here has no head\. Name labelled faces to train it on with --labelled"),
    (lambda faces: None, r"no\.pth"),
], ids=["folder", "labels", "picture", "text", "expression", "broken", "same", "inside", "head", "file"])  # fmt: skip
def test_what_cannot_be_corrected(root, spoilt, squares, learned, tmp_path, request, change, message):
    """One sentence before long work, and nothing is written."""
    features, _, head = learned
    case, out, folder = request.node.callspec.id, tmp_path / "out", tmp_path / "head"
    save_head(head, folder, features.settings | SHORT)
    change(spoilt)
    options = ["--head", str(folder if case != "head" else tmp_path / "nothing_here")]
    options += {
        "same": ["--labelled", str(squares["labelled"]), str(spoilt)],
        "file": ["--checkpoint", str(tmp_path / "no.pth"), "--network", "ir50"],
    }.get(case, [])
    with pytest.raises(FergiError, match=message) as caught:
        run(root, spoilt, spoilt / "out" if case == "inside" else out, *options)
    assert "\n" not in str(caught.value)
    assert not (out / "settings.json").exists()


def edit(faces: Path, change) -> None:
    """Change the index."""
    change(pd.read_csv(faces / "index.csv")).to_csv(faces / "index.csv", index=False)
