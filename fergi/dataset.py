"""The folders and files under one root, which participants, sessions and clips there are, and ``data.json``."""

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fergi.files import FergiError, read_json, read_tables, summarise, write_json

if TYPE_CHECKING:
    import pandas as pd

CLIP_KINDS = ("baseline", "reaction")
CLIP_KEY = ("session_index", "image_index")
# Columns of the image tables: the issues and the emotions that the survey offers (Section 3.2.3).
ISSUES = (
    *("unmentioned_content", "repeated_generation", "existence_of_body", "blurry", "psychological_discomfort"),
    *("sexual_content", "violent_content", "defamatory_content"),
)
EMOTIONS = ("disappointed", "satisfied", "surprised", "disgusted", "amused", "scared")
# Column of the image tables → entry of the survey in data.json.
RATINGS = {
    "overall_rating": "overallRating",
    "alignment_rating": "alignmentRating",
    "fidelity_rating": "fidelityRating",
}
HIGHEST_RATING = 7
SESSION_KINDS = ("structured", "free")
LONGEST_NAME = 40  # characters; a file system allows 255 bytes, endings included
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
FETCH_ADVICE = "Fetch the published files with: python -m fergi.published"
STAGE_5_ADVICE = "Run preprocess_image_data.py first, or fetch the published files with: python -m fergi.published"


def _at(*names: str) -> property:
    """A path below the root."""
    return property(lambda self: self.root.joinpath(*names))


@dataclass(frozen=True)
class Folders:
    """The folders through which the stages pass their files on, and the files whose names are fixed (all ``Path``)."""

    root: Path

    # <participant>/session_<n>/{baseline,reaction}_clip_<i>_features.csv
    data = _at("data")
    # What the pages of a study of one's own recorded: <participant>/session_<n>/recording.mkv and the like.
    recordings = _at("recordings")
    # The settings of synthetic data (JSON); real data have no such file.
    synthetic_truth = _at("data", "synthetic.json")
    # Weights from elsewhere; ``python -m fergi.weights`` lists them.
    pretrained_models = _at("pretrained_models")
    # The checkpoints of stage 3.
    au_models = _at("AU_models")
    # The AU model as OpenVINO takes it, by the checkpoint's SHA-256.
    converted_networks = _at("AU_models", "converted")
    # What stages 1, 2 and 5 to 8 write.
    preparation = _at("preparation")
    # Participant → session numbers (JSON).
    valid_sessions = _at("preparation", "valid_sessions.json")
    # Participant → session → numbers of the black images (JSON).
    black_images = _at("preparation", "invalid_images.json")
    # Participants excluded from Section 6.2 (JSON).
    excluded_participants = _at("preparation", "AU4_excluded_participants.json")
    # One table of ratings, ranks and scores a participant.
    image_tables = _at("preparation", "preprocessed_image_data")
    # The settings of the scores in those tables (JSON); the published tables have none.
    score_settings = _at("preparation", "preprocessed_image_data", "settings.json")
    # Each scorer's finished scores, so that stage 5 resumes where it was interrupted.
    image_scores = _at("preparation", "image_scores")
    # Faces cut out of clips, a folder a set of clips, for face generators.
    cut_faces = _at("preparation", "cut_faces")
    # What stage 9 and the check against the paper write.
    results = _at("results")
    # The release's own results, to compare ours with.
    published = _at("results", "published")
    # Every claim of the paper beside our numbers (CSV).
    paper_check = _at("results", "paper_check.csv")
    # The intervals of the accuracies of Tables 1 and 2 (CSV).
    accuracy_intervals = _at("results", "accuracy_intervals.csv")
    # Annotated pairs (CSV), what they were annotated with (JSON), and predictions on published people (CSV).
    preferences = _at("results", "preferences.csv")
    preferences_settings = _at("results", "preferences_settings.json")
    preferences_held_out = _at("results", "preferences_held_out.csv")
    # The effects planted in synthetic data beside the recovered ones (CSV).
    planted_recovered = _at("results", "planted_recovered.csv")
    # What the notebook draws.
    figures = _at("figures")

    def aligned_faces(self, dataset: str) -> Path:
        """The aligned faces of DISFA or DISFAPlus, from stages 1 and 2."""
        return self.preparation / f"{dataset}_faces"

    def session(self, participant: str, number: int) -> Path:
        """One session's clips, images and ``data.json``."""
        return self.data / participant / f"session_{number}"

    def recorded_session(self, participant: str, number: int) -> Path:
        """One session as the pages recorded it."""
        return self.recordings / participant / f"session_{number}"

    def activation_tables(self, kind: str) -> Path:
        """One table of activation values a participant, of the clips of one kind."""
        return self.preparation / f"preprocessed_{kind}_data"

    def preference_results(
        self, mode: str = "paper", strict_lopo: bool = False, valence: str = "aucomb", everybody: bool = False
    ) -> Path:
        """The results of stage 9: the released name, with the options behind it that are not the default."""
        suffix = {"aucomb": "", "fau-net": "_NN", "linear": "_linear"}[valence]
        suffix += f"_{mode}" if mode != ("released" if valence == "fau-net" else "paper") else ""
        suffix += ("_everybody" if everybody else "") + ("_strict" if strict_lopo else "")
        return self.results / f"image_preference_binary_classification_based_on_ranking{suffix}.csv"


def check_participant(name: str) -> str:
    """The name of a participant, if it may be one: it becomes the name of folders and tables.

    Letters and digits of any script (composed, NFC), and between them spaces, dots, hyphens and underscores; at most
    ``LONGEST_NAME`` characters; no word that pandas reads as a missing value.

    Raises
    ------
    FergiError
        If it may not.
    """
    if (
        not re.fullmatch(r"\w(?:[\w .-]*\w)?", name)
        or len(name) > LONGEST_NAME
        or not unicodedata.is_normalized("NFC", name)
    ):
        raise FergiError(
            f"{name!r} cannot be a participant's name. Use at most {LONGEST_NAME} letters and digits, and between them "
            "spaces, dots, hyphens or underscores."
        )
    if name.lower() in ("na", "nan", "null", "none"):
        raise FergiError(f"{name!r} cannot be a participant's name, because tables would read it as a missing value.")
    return name


def may_share(folders: Folders, participant: str) -> bool:
    """Whether exports and figures may show a participant: not if ``consent.json`` refuses sharing or is withdrawn.

    The file lies beside the sessions in ``data/``. Published and synthetic participants have none and no restriction.

    Raises
    ------
    FergiError
        If the file cannot be read or does not say.
    """
    path = folders.data / participant / "consent.json"
    if not path.is_file():
        return True
    advice = "Copy it again from recordings/, or leave the participant out."
    consent = read_json(path, advice)
    answers = [consent.get(name) if isinstance(consent, dict) else None for name in ("sharing", "withdrawn")]
    if not all(type(answer) is bool for answer in answers):
        raise FergiError(f"{path} must say whether sharing is allowed and consent is withdrawn. {advice}")
    return answers == [True, False]


@dataclass(frozen=True)
class Survey:
    """What a participant said about one image."""

    ratings: tuple[int, ...]  # overall, alignment, fidelity: 1 to 7, or 0 for none
    issues: tuple[bool, ...] | None  # in the order of ``ISSUES``; None if the answers are not reliable
    emotions: tuple[bool, ...]  # in the order of ``EMOTIONS``


@dataclass(frozen=True)
class SessionData:
    """The content of a session's ``data.json``; the last three only in sessions of one's own."""

    prompt: str
    ranking: tuple[int, ...]  # places of the images from 0, the best first
    surveys: tuple[Survey, ...]  # one an image
    kind: str | None = None  # one of ``SESSION_KINDS``
    ranking_start: tuple[int, ...] | None = None  # places of the images in the order in which the ranking page began
    # Clip → ``recording_seconds``, its start in the recording, and ``events``: ``name``, and ``seconds`` of the clip.
    marks: Mapping[str, Mapping[str, Any]] | None = None


def read_session_data(path: Path, n_images: int | None = None, *, reliable_issues: bool = True) -> SessionData:
    """The content of a ``data.json``, checked.

    ``n_images`` are as many as there are surveys, unless it is given. Answers on issues that are not reliable become
    None, whatever they are.

    Raises
    ------
    ValueError
        With the file and the cause; callers read many files and summarise.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    try:
        return parse_session_data(content, n_images, reliable_issues=reliable_issues)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_session_data(content: Any, n_images: int | None = None, *, reliable_issues: bool = True) -> SessionData:
    """The content of a ``data.json`` that is decoded already; as ``read_session_data``."""
    if not isinstance(content, dict):
        raise ValueError("must be an object with prompt, ranking and survey")
    for name, kind in (("prompt", str), ("ranking", list), ("survey", list)):
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{name} must be a {'text' if kind is str else 'list'}, not {_shown(content.get(name))}")
    try:
        content["prompt"].encode()
    except UnicodeEncodeError:
        raise ValueError("the prompt has half a character in it (a lone surrogate)") from None
    surveys, n_images = content["survey"], len(content["survey"]) if n_images is None else n_images
    ids = [entry.get("id") if isinstance(entry, dict) else None for entry in content["ranking"]]
    ranking = _each_image_once(ids, n_images, "the ranking")
    if len(surveys) != n_images:
        raise ValueError(f"there are {len(surveys)} surveys for {n_images} images")
    kind, start, marks = (content.get(name) for name in ("kind", "ranking_start", "marks"))
    if kind is not None and kind not in SESSION_KINDS:
        raise ValueError(f"kind must be {' or '.join(SESSION_KINDS)}, not {_shown(kind)}")
    if marks is not None and not (isinstance(marks, dict) and all(isinstance(each, dict) for each in marks.values())):
        raise ValueError(f"marks must have an object for each clip, not {_shown(marks)}")
    start = None if start is None else _each_image_once(start, n_images, "ranking_start")
    answers = tuple(_survey(each, image, reliable=reliable_issues) for image, each in enumerate(surveys, start=1))
    return SessionData(content["prompt"], ranking, answers, kind, start, marks)


def _each_image_once(ids: Any, n_images: int, what: str) -> tuple[int, ...]:
    """Places of all images in some order."""
    listed = isinstance(ids, list) and all(type(each) is int for each in ids)
    if not listed or sorted(ids) != list(range(n_images)):
        raise ValueError(f"{what} must have the ids 0 to {n_images - 1} once each, not {_shown(ids)}")
    return tuple(ids)


def _survey(survey: Any, image: int, *, reliable: bool) -> Survey:
    """Ratings, issues and emotions of one image."""
    if not isinstance(survey, dict):
        raise ValueError(f"image {image}: the survey must be an object, not {_shown(survey)}")
    for name in RATINGS.values():
        rating = survey.get(name)
        if type(rating) is not int or not 0 <= rating <= HIGHEST_RATING:
            raise ValueError(
                f"image {image}: {name} must be a whole number from 1 to {HIGHEST_RATING}, or 0, not {_shown(rating)}"
            )
    issues = _ticked(survey, image, "issuesList", ISSUES) if reliable else None
    return Survey(
        tuple(survey[name] for name in RATINGS.values()), issues, _ticked(survey, image, "reactionList", EMOTIONS)
    )


def _ticked(survey: dict[str, Any], image: int, name: str, columns: Sequence[str]) -> tuple[bool, ...]:
    """Options in the order of their columns: by name if they have the columns' names, else as they stand."""
    options = survey.get(name)
    if isinstance(options, dict) and set(options) == set(columns):
        options = {column: options[column] for column in columns}
    ticked = tuple(options.values()) if isinstance(options, dict) else ()
    if len(ticked) != len(columns) or any(type(each) is not bool for each in ticked):
        raise ValueError(
            f"image {image}: {name} must have {len(columns)} options that are true or false, not {_shown(options)}"
        )
    return ticked


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def write_session_data(data: SessionData, path: Path) -> None:
    """Write a ``data.json`` in the released format, all or nothing; what is None is not there.

    Issues that are None are written as neither true nor false.
    """
    surveys = [
        {
            **dict(zip(RATINGS.values(), survey.ratings, strict=True)),
            "issuesList": dict(zip(ISSUES, survey.issues or [None] * len(ISSUES), strict=True)),
            "reactionList": dict(zip(EMOTIONS, survey.emotions, strict=True)),
        }
        for survey in data.surveys
    ]
    content = {"prompt": data.prompt, "ranking": [{"id": place} for place in data.ranking], "survey": surveys}
    own = {"kind": data.kind, "ranking_start": data.ranking_start, "marks": data.marks}
    write_json(content | {name: value for name, value in own.items() if value is not None}, path)


def read_valid_sessions(folders: Folders) -> dict[str, list[int]]:
    """Participant → session numbers in ascending order; participants in ascending order.

    Raises
    ------
    FergiError
        If the file is missing, is not of that form, or names a session twice.
    """
    path = folders.valid_sessions
    content = read_json(path, f"{FETCH_ADVICE}, or cut sessions of your own with: python cut_clips.py")
    if not isinstance(content, dict) or not content:
        raise FergiError(f"{path} must map participants to lists of session numbers, and name at least one.")
    for participant, sessions in content.items():
        check_participant(participant)
        if not isinstance(sessions, list) or not all(type(session) is int for session in sessions) or not sessions:
            raise FergiError(f"{path}: participant {participant} needs a list of session numbers, not {sessions!r}.")
        if len(set(sessions)) < len(sessions):
            raise FergiError(f"{path}: participant {participant} has a session twice: {sorted(sessions)}.")
    return {participant: sorted(content[participant]) for participant in sorted(content)}


def read_black_images(folders: Folders, participants: Iterable[str]) -> dict[str, set[tuple[int, int]]]:
    """Participant → (session, image) pairs of the black images (Section 3.3).

    Raises
    ------
    FergiError
        If the file is missing, is not of that form, or lacks one of ``participants``.
    """
    path = folders.black_images
    content = read_json(path, STAGE_5_ADVICE)
    try:
        black = {
            participant: {(int(session), int(image)) for session, images in sessions.items() for image in images}
            for participant, sessions in content.items()
        }
    except (AttributeError, TypeError, ValueError):
        raise FergiError(
            f"{path} must map participants to sessions to lists of image numbers. {STAGE_5_ADVICE}"
        ) from None
    participants = list(participants)
    missing = [participant for participant in participants if participant not in black]
    if missing:
        advice = "Add them; {} means that none of a participant's images is black."
        raise summarise(missing, len(participants), "participants", advice, f"are missing from {path}")
    return {participant: black[participant] for participant in participants}


def read_excluded_participants(folders: Folders, participants: Iterable[str]) -> list[str]:
    """The participants excluded from Section 6.2.

    Raises
    ------
    FergiError
        If the file is missing, is not a list, or names a participant who is not among ``participants``.
    """
    path, again = folders.excluded_participants, "Run filter_participants_based_on_AU4.py again."
    excluded = read_json(path, "Run filter_participants_based_on_AU4.py first.")
    if not isinstance(excluded, list) or not all(isinstance(name, str) for name in excluded):
        raise FergiError(f"{path} must be a list of participants. {again}")
    unknown = sorted(set(excluded) - set(participants))
    if unknown:
        raise summarise(unknown, len(excluded), f"participants of {path}", again, "are not in the data")
    return excluded


def find_clips(folders: Folders, kind: str, sessions: dict[str, list[int]]) -> dict[str, dict[tuple[int, int], Path]]:
    """Participant → (session, image) → feature file of every clip of one kind, by session and image.

    The names of the files say which clips there are. An image has a baseline clip and a reaction clip, and a session's
    images are numbered from 1, so that a missing file is found here, unless both files of a session's last image are
    missing.

    Raises
    ------
    FergiError
        If a participant's or session's folder is missing, or a session has a clip without its counterpart, or one
        numbered 0.
    """
    clips: dict[str, dict[tuple[int, int], Path]] = {participant: {} for participant in sessions}
    problems: list[str] = []
    for participant, numbers in sessions.items():
        for session in numbers:
            folder = folders.session(participant, session)
            images = _images_with_features(folder)
            expected = range(1, 1 + max((0, *images["baseline"], *images["reaction"])))
            lost = [f"{each}_clip_{image}" for each in CLIP_KINDS for image in expected if image not in images[each]]
            if not expected:
                problems.append(f"{folder} {'has no feature files' if folder.is_dir() else 'does not exist'}")
            elif 0 in images["baseline"] | images["reaction"]:
                problems.append(f"{folder} has clips numbered 0, and images are numbered from 1")
            elif lost:
                problems.append(f"{folder / lost[0]}_features.csv does not exist")
            clips[participant] |= {(session, i): folder / f"{kind}_clip_{i}_features.csv" for i in expected}
    if problems:
        raise summarise(
            problems,
            sum(len(numbers) for numbers in sessions.values()),
            f"sessions named in {folders.valid_sessions.name}",
            "Make them with clips_facial_process.py, or fetch the published files with: python -m fergi.published",
        )
    return clips


def _images_with_features(session_folder: Path) -> dict[str, set[int]]:
    """Kind → numbers of the images whose clip has a feature file in the folder."""
    images: dict[str, set[int]] = {kind: set() for kind in CLIP_KINDS}
    for name in os.listdir(session_folder) if session_folder.is_dir() else ():
        if match := re.fullmatch(rf"({'|'.join(CLIP_KINDS)})_clip_(\d+)_features\.csv", name):
            images[match[1]].add(int(match[2]))
    return images


def unlisted_sessions(folders: Folders, sessions: dict[str, list[int]]) -> list[Path]:
    """Session folders with data that ``valid_sessions.json`` does not name; they are not used."""
    listed = {folders.session(participant, n) for participant, numbers in sessions.items() for n in numbers}
    return sorted(set(folders.data.glob("*/session_*")) - listed)


def find_videos(folders: Folders) -> dict[Path, Path]:
    """Every baseline and reaction video below ``data/`` → its feature file, by participant, session, kind and image.

    Raises
    ------
    FergiError
        If there is none, or two videos would have the same feature file.
    """
    found = []
    for video in folders.data.glob("*/session_*/*_clip_*"):
        clip = re.fullmatch(r"session_(\d+)/(baseline|reaction)_clip_(\d+)", f"{video.parent.name}/{video.stem}")
        if clip and video.suffix.lower() in VIDEO_ENDINGS and not video.is_dir():
            found.append((video.parts[-3], int(clip[1]), clip[2], int(clip[3]), video))
    if not found:
        raise FergiError(
            f"There are no videos in {folders.data} (<participant>/session_<n>/reaction_clip_<i>.mp4 and the like). "
            "Put them there, or name a folder of any videos with --videos DIR --out DIR."
        )
    return _each_its_own({video: video.with_name(f"{video.stem}_features.csv") for *_, video in sorted(found)})


def find_videos_anywhere(folder: Path, output: Path) -> dict[Path, Path]:
    """Every video below a folder → its feature file, in the same subfolder of ``output``.

    Links to folders are followed, each folder once; hidden files and folders (``.name``) are ignored.

    Raises
    ------
    FergiError
        If the folder is missing or has no video, or two videos would have the same feature file.
    """
    if not folder.is_dir():
        raise FergiError(f"{folder} is not a folder. Name one that holds videos.")
    videos: list[Path] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        there = (Path(parent, name) for name in files if not name.startswith("."))
        videos += [path for path in there if path.suffix.lower() in VIDEO_ENDINGS]
    if not videos:
        raise FergiError(f"There is no video in {folder} (looked for {', '.join(VIDEO_ENDINGS)}). Name another folder.")
    return _each_its_own(
        {video: output / video.relative_to(folder).with_name(f"{video.stem}_features.csv") for video in sorted(videos)}
    )


def _each_its_own(outputs: dict[Path, Path]) -> dict[Path, Path]:
    """The outputs, if no two videos have the same one."""
    owners: dict[Path, Path] = {}
    for video, output in outputs.items():
        if owners.setdefault(output, video) != video:
            raise FergiError(f"{owners[output]} and {video} would both write {output.name}. Rename one of them.")
    return outputs


def read_image_reactions(
    folders: Folders,
    sessions: dict[str, list[int]],
    *,
    image_columns: Sequence[str],
    activation_columns: Sequence[str],
    may_lack_units: bool = False,
) -> "pd.DataFrame":
    """Ratings, ranks and scores of images together with the activation values of the reactions to them.

    ``sessions`` are those of ``read_valid_sessions``, of the participants wanted; ``image_columns`` and
    ``activation_columns`` are the numeric columns wanted of the tables of stages 5 and 7. With ``may_lack_units``, an
    activation column may be empty, because the estimator does not give that AU; it is NaN then.

    Returns
    -------
    pandas.DataFrame
        One row an image with a valid reaction: ``participant``, ``session_index``, ``image_index`` and the
        columns wanted; by participant, session and image.

    Raises
    ------
    FergiError
        If a table is missing or unusable, if the image tables and ``valid_sessions.json`` do not have the same
        sessions, or if there is a reaction to an image that the image table does not have.
    """
    black, again = read_black_images(folders, sessions), f"{STAGE_5_ADVICE} --replace"
    images = read_tables(folders.image_tables, sessions, key=CLIP_KEY, numeric=image_columns, advice=again)
    reactions = read_tables(
        folders.activation_tables("reaction"),
        sessions,
        key=CLIP_KEY,
        **{"optional" if may_lack_units else "numeric": activation_columns},
        advice="Run preprocess_reaction_data.py.",
    )
    import pandas as pd

    problems = []
    for participant, listed in sessions.items():
        name, listing = f"{participant}.csv", folders.valid_sessions.name
        image_table, rated = folders.image_tables / name, set(images[participant]["session_index"])
        has_black = {session for session, _ in black[participant]}  # perhaps all its images are
        not_listed, not_rated = rated - set(listed), set(listed) - rated - has_black
        known, reacted = (pd.MultiIndex.from_frame(t[participant][list(CLIP_KEY)]) for t in (images, reactions))
        unknown = reacted[~reacted.isin(known)]
        if not_listed:
            problems.append(f"{image_table} has session {min(not_listed)}, {listing} does not")
        if not_rated:
            problems.append(f"{listing} has session {min(not_rated)}, {image_table} does not")
        if len(unknown):
            where = "{} has session {}, image {}".format(folders.activation_tables("reaction") / name, *unknown[0])
            problems.append(f"{where}, {image_table} does not")
    if problems:
        raise summarise(problems, len(sessions), "participants' tables", "Make both tables from the same recordings.")
    all_images, all_reactions = (
        pd.concat(tables, names=["participant"]).reset_index("participant") for tables in (images, reactions)
    )
    return all_images.merge(all_reactions, on=["participant", *CLIP_KEY], validate="one_to_one")
