"""Which participants, sessions, clips and images there are, and what does not fit together."""

import json

import pandas as pd
import pytest

from fergi.dataset import (
    Folders,
    SessionData,
    Survey,
    check_participant,
    find_clips,
    may_share,
    parse_session_data,
    read_black_images,
    read_excluded_participants,
    read_image_reactions,
    read_session_data,
    read_valid_sessions,
    write_session_data,
)
from fergi.files import FergiError

COLUMNS = {
    "image_columns": ["rank_score", "PickScore"],
    "activation_columns": ["AU4_activation_value"],
}


def with_file(tmp_path, name, content):
    """Folders with one file in preparation/."""
    folders = Folders(tmp_path)
    folders.preparation.mkdir()
    (folders.preparation / name).write_text(content)
    return folders


def test_sessions_in_order_and_black_images(tmp_path):
    """Participants and sessions ascend, whatever the order in the file. Who is not asked for is not returned."""
    folders = with_file(tmp_path, "valid_sessions.json", '{"010": [3, 1], "002": [12, 2]}')
    assert list(read_valid_sessions(folders).items()) == [("002", [2, 12]), ("010", [1, 3])]
    folders.black_images.write_text('{"101": {"1": [2, 4], "10": []}, "102": {}, "103": {"1": [1]}}')
    assert read_black_images(folders, ["101", "102"]) == {"101": {(1, 2), (1, 4)}, "102": set()}


SESSIONS, BLACK, EXCLUDED = (
    (read_valid_sessions, "valid_sessions.json"),
    (lambda folders: read_black_images(folders, ["101"]), "invalid_images.json"),
    (lambda folders: read_excluded_participants(folders, ["101", "104"]), "AU4_excluded_participants.json"),
)
NEEDS_NUMBERS = "participant 101 needs a list of session numbers, not "
NEEDS_IMAGES = "must map participants to sessions to lists of image numbers. Run preprocess_image_data.py first"
NEEDS_PEOPLE = "must be a list of participants. Run filter_participants_based_on_AU4.py again."


@pytest.mark.parametrize(
    ("read", "content", "cause"),
    [
        (SESSIONS, "{}", "must map participants to lists of session numbers"),
        (SESSIONS, "[1, 2]", "must map participants to lists of session numbers"),
        (SESSIONS, '{"101": []}', f"{NEEDS_NUMBERS}[]"),
        (SESSIONS, '{"101": 3}', f"{NEEDS_NUMBERS}3"),
        (SESSIONS, '{"101": [1, "2"]}', NEEDS_NUMBERS),
        (SESSIONS, '{"101": [1, true]}', NEEDS_NUMBERS),
        (SESSIONS, '{"101": [1.0]}', NEEDS_NUMBERS),
        (SESSIONS, '{"101": [1, 2, 1]}', "participant 101 has a session twice: [1, 1, 2]"),
        (SESSIONS, '{"101": [1, 2]', "is not JSON"),
        (SESSIONS, None, "valid_sessions.json). Fetch the published files with: python -m"),
        *((BLACK, content, NEEDS_IMAGES) for content in ("[]", '{"101": [1]}', '{"101": {"one": [1]}}', "3")),
        (BLACK, '{"101": {"1": 2}}', NEEDS_IMAGES),
        (BLACK, '{"102": {}}', "invalid_images.json (first: 101). Add them"),
        (EXCLUDED, '["105", "104"]', "AU4_excluded_participants.json is not in the data (first: 105). Run filter_"),
        (EXCLUDED, '{"104": true}', NEEDS_PEOPLE),
        (EXCLUDED, "[104]", NEEDS_PEOPLE),
        (EXCLUDED, None, "AU4_excluded_participants.json). Run filter_participants_based_on_AU4.py first."),
    ],
)
def test_unusable_file(tmp_path, read, content, cause):
    """Named with what came and what to do; another form is not read as if it were empty."""
    function, name = read
    folders = Folders(tmp_path) if content is None else with_file(tmp_path, name, content)
    with pytest.raises(FergiError) as caught:
        function(folders)
    assert str(folders.preparation / name) in str(caught.value)
    assert cause in str(caught.value)


def test_clips_in_order_of_numbers(tmp_path):
    """Image 10 comes after image 9, and both kinds have the same images."""
    folder = tmp_path / "data" / "101" / "session_2"
    folder.mkdir(parents=True)
    for image in range(1, 12):
        for kind in ("baseline", "reaction"):
            (folder / f"{kind}_clip_{image}_features.csv").touch()
    (folder / "notes.txt").touch()
    clips = find_clips(Folders(tmp_path), "baseline", {"101": [2]})["101"]
    assert list(clips) == [(2, image) for image in range(1, 12)]
    assert clips[2, 10] == folder / "baseline_clip_10_features.csv"


@pytest.mark.parametrize("kind", ["baseline", "reaction"])
@pytest.mark.parametrize("lost", ["baseline_clip_1", "baseline_clip_3", "reaction_clip_1", "reaction_clip_3"])
def test_lost_clip(tiny, kind, lost):
    """First, last, of this kind or of the other: its name is in the message."""
    tiny.path(f"data/102/session_1/{lost}_features.csv").unlink()
    with pytest.raises(FergiError) as caught:
        find_clips(Folders(tiny.root), kind, {"101": [1, 2], "102": [1, 3]})
    assert f"1 of 4 sessions named in valid_sessions.json is unusable (first: {tiny.root}" in str(caught.value)
    assert f"session_1/{lost}_features.csv does not exist)" in str(caught.value)


def test_missing_and_empty_session_folders(tiny):
    """A folder that is not there and one without features are told apart."""
    tiny.path("data/102/session_5").mkdir()
    with pytest.raises(FergiError, match=r"1 of 1 .*session_5 has no feature files"):
        find_clips(Folders(tiny.root), "baseline", {"102": [5]})
    with pytest.raises(FergiError, match=r"2 of 3 .*\(first: .*data/102/session_6 does not exist\)"):
        find_clips(Folders(tiny.root), "baseline", {"102": [6, 1], "999": [1]})


def test_images_and_reactions_are_joined_by_participant_session_and_image(tiny):
    """Each row has its own numbers of both tables, in whatever order the tables' rows and columns are."""
    folders = Folders(tiny.root)
    sessions = {"101": [1, 2], "103": [2, 4]}
    joined = read_image_reactions(folders, sessions, **COLUMNS)
    wanted = ["session_index", "image_index", "rank_score", "PickScore", "AU4_activation_value"]
    assert list(joined.columns) == ["participant", *wanted]
    assert len(joined) == 12  # 7 images of 101 without the black one, 6 of 103
    for row in joined.itertuples():
        images = pd.read_csv(folders.image_tables / f"{row.participant}.csv")
        reactions = pd.read_csv(folders.activation_tables("reaction") / f"{row.participant}.csv")
        where = f"session_index == {row.session_index} and image_index == {row.image_index}"
        assert images.query(where)[["rank_score", "PickScore"]].values.tolist() == [[row.rank_score, row.PickScore]]
        assert reactions.query(where)["AU4_activation_value"].tolist() == [row.AU4_activation_value]
    tiny.edit_table("preparation/preprocessed_reaction_data/101.csv", lambda table: table[::-1])
    tiny.edit_table("preparation/preprocessed_image_data/103.csv", lambda table: table[table.columns[::-1]])
    again = read_image_reactions(folders, sessions, **COLUMNS)
    pd.testing.assert_frame_equal(again, joined, check_exact=True)
    # An image without a valid reaction has no row.
    tiny.edit_table("preparation/preprocessed_reaction_data/103.csv", lambda table: table.drop(index=2))
    fewer = read_image_reactions(folders, sessions, **COLUMNS)
    pd.testing.assert_frame_equal(fewer, joined.drop(index=8).reset_index(drop=True), check_exact=True)


def test_session_of_black_images_may_be_missing_from_the_images(tiny):
    """Where all its images are black there is no row; otherwise there must be."""
    folders = Folders(tiny.root)
    for kind in ("image", "reaction"):
        tiny.edit_table(
            f"preparation/preprocessed_{kind}_data/103.csv", lambda table: table.query("session_index != 4")
        )
    with pytest.raises(FergiError, match=r"valid_sessions\.json has session 4, .*103\.csv does not"):
        read_image_reactions(folders, {"103": [2, 4]}, **COLUMNS)
    tiny.edit_json("preparation/invalid_images.json", lambda black: black["103"].update({"4": [1]}))
    assert len(read_image_reactions(folders, {"103": [2, 4]}, **COLUMNS)) == 5


@pytest.mark.parametrize("name", ["001", "7", "Zoë", "Anna B. 02", "p-1_x", "山田", "_1", "a" * 40])
def test_names_of_participants(tmp_path, name):
    """Letters and digits of any script, with spaces, dots, hyphens between; they go through every table."""
    assert check_participant(name) == name
    folders = with_file(tmp_path, "valid_sessions.json", json.dumps({name: [1]}))
    assert read_valid_sessions(folders) == {name: [1]}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "-a",
        "a.",
        " a",
        "a ",
        "a\n",
        "a\tb",
        "a\0",
        "a:b",
        "*",
        "a" * 41,
        "e\u0308",
        "NaN",
        "null",
    ],
)
def test_names_that_participants_cannot_have(tmp_path, name):
    """Paths, hidden and decomposed names, what ends where nobody sees it, and pandas' words for nothing."""
    with pytest.raises(FergiError, match="cannot be a participant's name"):
        check_participant(name)
    with pytest.raises(FergiError, match="cannot be a participant's name"):
        read_valid_sessions(with_file(tmp_path, "valid_sessions.json", json.dumps({"001": [1], name: [1]})))


@pytest.mark.parametrize(
    ("consent", "shared"),
    [
        (None, True),
        ({"sharing": True, "withdrawn": False}, True),
        ({"sharing": False, "withdrawn": False}, False),
        ({"sharing": True, "withdrawn": True}, False),
        ({"sharing": True}, None),
        ({"sharing": 1, "withdrawn": 0}, None),
        ([], None),
    ],
)
def test_consent_to_sharing(tmp_path, consent, shared):
    """Only a clear yes is one; the published participants have no file and are public."""
    (tmp_path / "data/001").mkdir(parents=True)
    if consent is not None:
        (tmp_path / "data/001/consent.json").write_text(json.dumps(consent))
    if shared is None:
        with pytest.raises(FergiError, match="must say whether sharing is allowed"):
            may_share(Folders(tmp_path), "001")
    else:
        assert may_share(Folders(tmp_path), "001") is shared


SAID = Survey((5, 0, 7), (True, *[False] * 7), (False,) * 5 + (True,))
OWN = {"kind": "free", "ranking_start": (1, 0), "marks": {"reaction_clip_1": {"recording_seconds": 1.5, "events": []}}}


@pytest.mark.parametrize("own", [{}, OWN])
def test_session_data_written_and_read(tmp_path, own):
    """The released format; keys of one's own only where there is something in them."""
    data = SessionData("zwei Kätzchen", (1, 0), (SAID, Survey((1, 2, 3), (False,) * 8, (True,) * 6)), **own)
    write_session_data(data, tmp_path / "data.json")
    assert read_session_data(tmp_path / "data.json") == data
    content = json.loads((tmp_path / "data.json").read_text())
    assert list(content) == ["prompt", "ranking", "survey", *own]
    assert content["ranking"] == [{"id": 1}, {"id": 0}]
    assert content["survey"][0]["fidelityRating"] == 7 and content["survey"][0]["issuesList"]["unmentioned_content"]


def test_options_by_name_or_place():
    """Options of other names count by their place, as in the released files; ours count by name in any order."""
    ours = {
        "disappointed": False,
        "satisfied": False,
        "surprised": True,
        "disgusted": False,
        "amused": False,
        "scared": False,
    }
    theirs = dict(zip("abcdef", ours.values(), strict=True))
    for options in (ours, dict(reversed(ours.items())), theirs):
        survey = {"overallRating": 1, "alignmentRating": 1, "fidelityRating": 1, "reactionList": options}
        content = {"prompt": "", "ranking": [{"id": 0}], "survey": [survey]}
        assert (
            parse_session_data(content, reliable_issues=False).surveys[0].emotions
            == (False, False, True) + (False,) * 3
        )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("kind", "guided", 'kind must be structured or free, not "guided"'),
        ("ranking_start", [0, 0], r"ranking_start must have the ids 0 to 1 once each, not \[0, 0\]"),
        ("ranking_start", 3, "ranking_start must have"),
        ("marks", [1], "marks must have an object for each clip"),
        ("marks", {"reaction_clip_1": 3}, "marks must have an object for each clip"),
    ],
)
def test_own_keys_that_cannot_be_used(tmp_path, name, value, reason):
    """Strict as with the released ones."""
    write_session_data(SessionData("", (0, 1), (SAID, SAID)), tmp_path / "data.json")
    content = json.loads((tmp_path / "data.json").read_text()) | {name: value}
    (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"data.json: {reason}"):
        read_session_data(tmp_path / "data.json")
