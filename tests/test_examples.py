"""fergi/examples.py: which reactions are chosen, and that what is shown of them is what lies in their files."""

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import SCORES, clip_text
from filmed import film
from numpy.testing import assert_allclose
from PIL import Image

import config
from fergi.dataset import EMOTIONS, ISSUES, Folders
from fergi.examples import choose_examples, lacking_material, read_examples
from fergi.features import ACTION_UNITS
from fergi.files import FergiError
from fergi.image_data import RATINGS

FRAMES, SIDE = 30, 64
SETTINGS = {"limits": config.FRAME_LIMITS, "window_seconds": config.WINDOW_SECONDS}


def grey(level):
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def level_of(frame):
    """The grey level of a clip's frame, from 0."""
    return 20 + 7 * frame


def write_data(root, sessions, *, n_images=3, silent=()):
    """Videos, features, images, answers and image tables of a small cohort, with nothing to find in them.

    Frame f of every video has the grey level ``level_of(f)``. Nobody is ever scared, and nobody rates 1 or 5. The
    faces of those in ``silent`` do not move in reaction.
    """
    rng, number = np.random.default_rng(0), itertools.count()
    folders = Folders(root)
    folders.image_tables.mkdir(parents=True)
    video = film(root / "clip.mp4", [grey(level_of(frame)) for frame in range(FRAMES)], side=SIDE).read_bytes()
    (root / "clip.mp4").unlink()
    for participant, numbers in sessions.items():
        rows = []
        for session in numbers:
            folder = folders.session(participant, session)
            folder.mkdir(parents=True)
            order = rng.permutation(n_images)
            surveys = []
            for image in range(1, n_images + 1):
                ratings = {name: int(rng.choice([2, 3, 4, 6, 7])) for name in RATINGS.values()}
                issues = dict(zip(ISSUES, (rng.random(len(ISSUES)) < 0.2).tolist(), strict=True))
                felt = dict(zip(EMOTIONS, (rng.random(len(EMOTIONS)) < 0.3).tolist(), strict=True)) | {"scared": False}
                surveys.append(ratings | {"issuesList": issues, "reactionList": felt})
                rows.append(
                    {"session_index": session, "image_index": image, "overall_rating": ratings["overallRating"]}
                    | issues
                    | felt
                    | {"rank_score": n_images - int(np.flatnonzero(order == image - 1)[0])}
                    | {name: round(float(rng.normal()), 4) for name in SCORES}
                )
                Image.fromarray(grey(200 + image)).save(folder / f"image{image}.png")
                at_rest = rng.uniform(0, 0.02, (FRAMES, 12)).round(3)
                (folder / f"baseline_clip_{image}_features.csv").write_text(clip_text(at_rest))
                moved = np.zeros((FRAMES, 12))
                if participant not in silent:
                    moved = rng.uniform(0, 0.1, (FRAMES, 12))
                    moved[10:20] += rng.uniform(0, 2, 12)
                turned = 0.6 + 0.001 * next(number)  # no two clips are the same, even of a silent face
                (folder / f"reaction_clip_{image}_features.csv").write_text(
                    clip_text(moved.round(3), pitch_indicative_ratio=turned)
                )
                for kind in ("baseline", "reaction"):
                    (folder / f"{kind}_clip_{image}.mp4").write_bytes(video)
            prompt, ranking = f"a ${session} cat of $ {participant}", [{"id": int(each)} for each in order]
            content = {"prompt": prompt, "ranking": ranking, "survey": surveys}
            (folder / "data.json").write_text(json.dumps(content))
        pd.DataFrame(rows).to_csv(folders.image_tables / f"{participant}.csv", index=False)
    folders.valid_sessions.write_text(json.dumps(sessions))
    folders.black_images.write_text(json.dumps({participant: {} for participant in sessions}))
    return folders


def test_the_strongest_reactions_to_the_images_ranked_last_or_first_one_a_participant():
    """A has 0.5 and 0.6; the one that b ranked last is not among the reactions; c's was last of two, with rank 2."""
    rows = [
        ("a", 1, 1, 3, 0.9),
        ("a", 1, 2, 1, 0.5),
        ("a", 2, 1, 1, 0.6),
        ("a", 2, 2, 2, 0.1),
        ("b", 1, 1, 2, 0.8),
        ("b", 1, 2, 3, 0.7),
        ("c", 1, 1, 2, 0.6),
        ("c", 1, 2, 4, 0.0),
    ]
    names = ["participant", "session_index", "image_index", "rank_score", "AU4_activation_value"]
    reactions = pd.DataFrame(rows, columns=names)
    images = {name: table.iloc[:, 1:4] for name, table in reactions.groupby("participant")}
    images["b"] = pd.concat([images["b"], pd.DataFrame([(1, 3, 1)], columns=names[1:4])])
    chosen = choose_examples(reactions, images, 4, ranked="last")
    assert chosen.to_numpy().tolist() == [["a", 2, 1, 0.6], ["c", 1, 1, 0.6]]
    assert list(chosen) == ["participant", "session_index", "image_index", "activation"]
    assert choose_examples(reactions, images, 4, ranked="last", number=1)["participant"].to_list() == ["a"]
    chosen = choose_examples(reactions, images, 4, ranked="first")  # c has no activation there
    assert chosen.to_numpy().tolist() == [["a", 1, 1, 0.9], ["b", 1, 2, 0.7]]
    assert choose_examples(reactions.assign(AU4_activation_value=0.0), images, 4, ranked="last").empty


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two sessions of three images each."""
    root = tmp_path_factory.mktemp("cohort") / "root"
    write_data(root, {"102": [1, 3]})
    course = np.zeros((FRAMES, 12))
    # AU4: first valid window 0.1; the highest window is frames 20–22, mean 1.7; the highest valid frame is 25.
    au4 = ACTION_UNITS.index(4)
    course[:, au4] = 0.1
    course[20:23, au4] = [1.6, 1.8, 1.7]
    course[25, au4] = 2.0
    course[28, au4] = 4.0
    turned = np.full(FRAMES, 0.5)
    turned[[0, 1, 28]] = 0.9
    text = clip_text(course, yaw_indicative_ratio=turned)
    (root / "data/102/session_3/reaction_clip_2_features.csv").write_text(text)
    hidden = np.full(FRAMES, 0.95)
    hidden[-3:] = 0.2
    text = clip_text(np.zeros((FRAMES, 12)), face_detection_confidence_score=hidden)
    (root / "data/102/session_3/baseline_clip_2_features.csv").write_text(text)
    return root


@pytest.fixture
def root(cohort, tmp_path):
    """A copy to change."""
    return shutil.copytree(cohort, tmp_path / "root")


def read(root):
    """The example of participant 102, session 3, image 2."""
    chosen = pd.DataFrame([("102", 3, 2, 1.6)], columns=["participant", "session_index", "image_index", "activation"])
    (example,) = read_examples(Folders(root), chosen, 4, **SETTINGS)
    return example


def test_an_example_is_what_lies_in_its_files(root):
    """The course and its windows as worked out above; frames by their grey levels; the answers as given."""
    path = root / "data/102/session_3/data.json"
    content = json.loads(path.read_text()) | {"ranking": [{"id": 1}, {"id": 0}, {"id": 2}]}
    content["survey"][1] = {
        **{"overallRating": 2, "alignmentRating": 0, "fidelityRating": 7},
        "issuesList": dict.fromkeys(ISSUES, False) | {"blurry": True},
        "reactionList": dict.fromkeys(EMOTIONS, False) | {"disgusted": True, "amused": True},
    }
    path.write_text(json.dumps(content))
    example = read(root)
    assert (example.participant, example.session, example.image, example.unit) == ("102", 3, 2, 4)
    assert example.prompt == "a $3 cat of $ 102"
    assert example.ratings == (2, 0, 7)
    assert (example.place, example.n_images) == (1, 3)
    assert example.issues == ("blurry",)
    assert example.emotions == ("disgusted", "amused")
    assert example.first_window == slice(2, 5)
    assert example.highest_window == slice(20, 23)
    assert example.peak == 25
    assert example.activation == pytest.approx(1.6)
    assert np.flatnonzero(~example.valid).tolist() == [0, 1, 28]
    assert_allclose(example.times[[0, 29]], [0, 0.967])
    assert example.intensities[28] == 4.0
    assert (example.picture == 202).all()
    # The last three frames before the image have no face that counts.
    assert_allclose([example.before.mean(), example.at_peak.mean()], [level_of(26), level_of(25)], atol=3)


def test_what_there_is_not(root):
    """Unreliable issues are empty in the image table; with no valid frame at rest, the last one is shown."""
    path = Folders(root).image_tables / "102.csv"
    pd.read_csv(path).assign(**dict.fromkeys(ISSUES, np.nan)).to_csv(path, index=False)
    text = clip_text(np.zeros((FRAMES, 12)), face_detection_confidence_score=0.2)
    (root / "data/102/session_3/baseline_clip_2_features.csv").write_text(text)
    example = read(root)
    assert example.issues is None
    assert example.before.mean() == pytest.approx(level_of(FRAMES - 1), abs=3)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("reaction_clip_2.mp4", "remove", "There is no video for .*reaction_clip_2_features.csv"),
        ("baseline_clip_2.mp4", "remove", "There is no video for .*baseline_clip_2_features.csv"),
        ("reaction_clip_2.mp4", "empty", "reaction_clip_2.mp4 is empty. Put the whole video there"),
        ("reaction_clip_2.mp4", "shorten", "reaction_clip_2.mp4 has no frame 26, though reaction_clip_2_features.csv"),
        ("baseline_clip_2_features.csv", "remove", "baseline_clip_2_features.csv: No such file.*clips_facial_process"),
        ("reaction_clip_2_features.csv", "replace", "gives an AU4 activation of .*, the table .* 1.600. Run prepro"),
        ("image2.png", "remove", "image2.png does not exist"),
        ("data.json", "remove", "data.json does not exist"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(root, name, change, sentence):
    path = root / "data/102/session_3" / name
    if change == "remove":
        path.unlink()
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "shorten":
        film(path, [grey(100)] * 20, side=SIDE)
    else:
        path.write_bytes(path.with_name("reaction_clip_1_features.csv").read_bytes())
    with pytest.raises(FergiError, match=sentence):
        read(root)


def test_who_does_not_share_is_not_shown(root):
    path = root / "data/102/consent.json"
    path.write_text('{"sharing": true, "withdrawn": false}')
    assert read(root).participant == "102"
    path.write_text('{"sharing": false, "withdrawn": false}')
    with pytest.raises(FergiError, match="Participant 102 does not share"):
        read(root)


def test_what_there_is_to_make_examples_of(root, tmp_path):
    """Every kind of file is looked for by itself; features alone are not enough."""
    folders = Folders(root)
    assert lacking_material(folders) == []
    for path in root.rglob("reaction_clip_*.mp4"):
        path.rename(path.with_suffix(".AVI"))
    assert lacking_material(folders) == []
    for path in root.rglob("*.AVI"):
        path.unlink()
    assert lacking_material(folders) == ["videos"]
    for path in [*root.rglob("data.json"), *root.rglob("*.png")]:
        path.unlink()
    assert lacking_material(folders) == ["videos", "prompts", "images"]
    assert lacking_material(Folders(tmp_path / "nothing")) == ["videos", "prompts", "images"]
