"""What is read of data.json and the images, and every way in which they can be unusable."""

import json

import pytest
from PIL import Image
from small_scorers import BLACK, write_sessions

from fergi.dataset import Folders, read_valid_sessions
from fergi.files import FergiError
from fergi.image_data import black_image_list, compare_black_images, image_tables, read_image_data
from fergi.scorers.registry import PAPER_SCORERS, SCORERS

FIRST = "data/001/session_1"


@pytest.fixture
def root(tmp_path):
    """Two participants, three sessions, nine images."""
    write_sessions(tmp_path)
    return tmp_path


def read(root, **options):
    """All images under a root."""
    folders = Folders(root)
    return read_image_data(folders, read_valid_sessions(folders), **options)


def test_what_is_read(root):
    """Worked out by hand for the first session of three images: the last one was ranked first."""
    images = read(root, unreliable_issues=["009"])
    assert [image.key for image in images] == [
        *(("001", 1, image) for image in (1, 2, 3)),
        *(("001", 4, image) for image in (1, 2)),
        *(("009", 2, image) for image in (1, 2, 3, 4)),
    ]
    first = images[0]
    assert first.prompt == "a red cat on the moon 1" and first.ratings == (1, 7, 0)
    assert [image.rank_score for image in images] == [1, 2, 3, 1, 2, 1, 2, 3, 4]
    assert first.issues == (False, True, *[False] * 6) and first.emotions == (False, True, *[False] * 4)
    assert images[-1].issues is None and images[-1].emotions == (False,) * 4 + (True, False)
    assert [image.key for image in images if image.black] == [BLACK]
    assert len({image.fingerprint for image in images}) == len(images)


def test_tables_are_those_published(root, published):
    """Columns, their order, and values as they are written; the black image leaves a gap."""
    images = read(root, unreliable_issues=["001"])
    scores = {SCORERS[name].column: {image.key: 0.5 for image in images} for name in PAPER_SCORERS}
    tables = image_tables(images, scores)
    theirs = (published / "preparation/preprocessed_image_data/001.csv").read_text().splitlines()
    ours = tables["001"].to_csv(index=False).splitlines()
    assert ours[0] == theirs[0]
    assert ours[1] == "1,1,1,7,0,,,,,,,,,False,True,False,False,False,False,1" + ",0.5" * 6
    assert ours[1].split(",")[5:19] == theirs[1].split(",")[5:19]
    assert tables["009"][["image_index", "rank_score"]].values.tolist() == [[1, 1], [2, 2], [4, 4]]
    first = tables["009"].to_csv(index=False).splitlines()[1]
    assert first.startswith("2,1,1,7,0,False,True,False,False,False,False,False,False,False,True,")


def replaced(name, value):
    """A change of one entry."""
    return lambda content: content.update({name: value})


def surveyed(name, value):
    """A change of one entry of the second image's survey."""
    return lambda content: content["survey"][1].update({name: value})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: ["prompt"], "must be an object"),
        (lambda content: content.pop("prompt") and None, "prompt must be a text, not null"),
        (replaced("prompt", 3), "prompt must be a text, not 3"),
        (replaced("prompt", "half \ud83d"), "half a character"),
        (replaced("ranking", {"id": 0}), "ranking must be a list"),
        (replaced("ranking", [{"id": 0}, {"id": 1}]), r"ids 0 to 2 once each, not \[0, 1\]"),
        (replaced("ranking", [{"id": 0}, {"id": 1}, {"id": 1}]), r"once each, not \[0, 1, 1\]"),
        (replaced("ranking", [{"id": 1}, {"id": 2}, {"id": 3}]), "once each"),
        (replaced("ranking", [0, 1, 2]), r"once each, not \[null, null, null\]"),
        (replaced("ranking", [{"id": "0"}, {"id": 1}, {"id": 2}]), "once each"),
        (replaced("ranking", [{"id": False}, {"id": True}, {"id": 2}]), "once each"),
        (replaced("survey", []), "0 surveys for 3 images"),
        (lambda content: content["survey"].__setitem__(1, None), "image 2: the survey must be an object, not null"),
        (surveyed("overallRating", 8), "image 2: overallRating must be a whole number from 1 to 7, or 0, not 8"),
        (surveyed("alignmentRating", -1), "image 2: alignmentRating .* not -1"),
        (surveyed("fidelityRating", 3.5), r"image 2: fidelityRating .* not 3\.5"),
        (surveyed("fidelityRating", True), "image 2: fidelityRating .* not true"),
        (surveyed("fidelityRating", None), "image 2: fidelityRating .* not null"),
        (surveyed("reactionList", {"satisfied": True}), "image 2: reactionList must have 6 options"),
        (surveyed("reactionList", dict.fromkeys("abcdef", 1)), "image 2: reactionList must have 6 options"),
        (surveyed("issuesList", []), "image 2: issuesList must have 8 options"),
    ],
)
def test_answers_that_cannot_be_used(root, change, reason):
    """One sentence: how many sessions, the first one's file, what is wrong in it, what to do."""
    path = root / FIRST / "data.json"
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))
    with pytest.raises(FergiError, match=f"1 of 3 sessions .*{FIRST}/data.json: .*{reason}.* Put data.json") as caught:
        read(root)
    assert "\n" not in str(caught.value)
    if "issuesList" in reason:  # their form does not matter where they are not used
        assert read(root, unreliable_issues=["001"])[1].issues is None


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("data.json", None, "does not exist"),
        ("data.json", b"{", "is not JSON"),
        ("data.json", b"\xff\xfe", "is not JSON"),
        ("image2.png", None, "does not exist"),
        ("image2.png", b"", "is not a picture"),
        ("image2.png", b"text", "is not a picture"),
        ("image2.png", Image.new("LA", (8, 8)), "is transparent in parts"),
        ("image0.png", b"", "is not numbered like image1.png"),
        ("image02.png", b"", "is not numbered like image1.png"),
    ],
)
def test_files_that_cannot_be_used(root, name, content, reason):
    """Missing, empty, something else, transparent; and images are numbered from 1, unlike rankings."""
    path = root / FIRST / name
    path.unlink(missing_ok=True)
    if isinstance(content, Image.Image):
        content.save(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(FergiError, match=f"1 of 3 sessions .*{FIRST}/{name} {reason}"):
        read(root)


def test_several_sessions_are_counted(root):
    """The first in the order of participants and sessions is named."""
    (root / "data/009/session_2/image4.png").write_bytes((root / FIRST / "image1.png").read_bytes()[:500])
    (root / "data/001/session_4/data.json").unlink()
    with pytest.raises(FergiError, match=r"2 of 3 sessions .* are unusable .*001/session_4/data\.json does not exist"):
        read(root)
    for path in (root / FIRST).glob("*.png"):
        path.unlink()
    with pytest.raises(FergiError, match=r"3 of 3 sessions .*session_1 has no images \(image1\.png and so on\)"):
        read(root)


def listed(root, change=lambda content: None):
    """invalid_images.json as it belongs to the images, after a change."""
    folders = Folders(root)
    sessions, images = read_valid_sessions(folders), read(root)
    content = black_image_list(sessions, images)
    assert content == {"001": {"1": [], "4": []}, "009": {"2": [3]}}
    change(content)
    folders.black_images.write_text(json.dumps(content))
    compare_black_images(folders, sessions, images)


def test_black_images_agree(root):
    """Also where the file has a session more, which is not used."""
    listed(root)
    listed(root, lambda content: content["009"].update({"7": [1]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content["009"]["2"].clear(),
            "1 of 9 images is not .*participant 009, session 2, image 3 is black",
        ),
        (lambda content: content["001"]["4"].append(1), "participant 001, session 4, image 1 is not black"),
        (lambda content: content["009"].update({"2": [4]}), "2 of 9 images are not .*session 2, image 3 is black"),
    ],
)
def test_black_images_disagree(root, change, message):
    """The image is named, and which of both says what."""
    with pytest.raises(FergiError, match=message):
        listed(root, change)
