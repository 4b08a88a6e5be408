"""Where things lie under one root, and which participants, sessions and clips there are."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fergi.files import FergiError, read_json, read_tables, summarise

CLIP_KINDS = ("baseline", "reaction")
CLIP_KEY = ("session_index", "image_index")
# Columns of the image tables: the issues that the survey offers (Section 3.2.3).
ISSUES = (
    "unmentioned_content",
    "repeated_generation",
    "existence_of_body",
    "blurry",
    "psychological_discomfort",
    "sexual_content",
    "violent_content",
    "defamatory_content",
)
# And the emotions (Section 3.2.3).
EMOTIONS = ("disappointed", "satisfied", "surprised", "disgusted", "amused", "scared")
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
FETCH_ADVICE = "Fetch the published files with: python -m fergi.published"
STAGE_5_ADVICE = "Run preprocess_image_data.py first, or fetch the published files with: python -m fergi.published"


@dataclass(frozen=True)
class Folders:
    """The folders through which the stages pass their files on, and the files whose names are fixed."""

    root: Path

    @property
    def data(self) -> Path:
        """``<participant>/session_<n>/{baseline,reaction}_clip_<i>_features.csv``."""
        return self.root / "data"

    @property
    def pretrained_models(self) -> Path:
        """Weights from elsewhere; ``python -m fergi.weights`` lists them."""
        return self.root / "pretrained_models"

    @property
    def au_models(self) -> Path:
        """The checkpoints of stage 3."""
        return self.root / "AU_models"

    @property
    def preparation(self) -> Path:
        """What stages 1, 2 and 5 to 8 write."""
        return self.root / "preparation"

    @property
    def results(self) -> Path:
        """What stage 9 and the check against the paper write."""
        return self.root / "results"

    @property
    def figures(self) -> Path:
        """What the notebook draws."""
        return self.root / "figures"

    @property
    def synthetic_truth(self) -> Path:
        """What was planted in synthetic data (JSON); real data have no such file."""
        return self.data / "synthetic.json"

    @property
    def published(self) -> Path:
        """The release's own tables of what the stages compute, kept apart to compare with."""
        return self.results / "published"

    @property
    def paper_check(self) -> Path:
        """Every claim of the paper beside our numbers (CSV)."""
        return self.results / "paper_check.csv"

    @property
    def accuracy_intervals(self) -> Path:
        """The intervals of the accuracies of Tables 1 and 2 (CSV)."""
        return self.results / "accuracy_intervals.csv"

    @property
    def valid_sessions(self) -> Path:
        """Participant → session numbers (JSON)."""
        return self.preparation / "valid_sessions.json"

    @property
    def black_images(self) -> Path:
        """Participant → session → numbers of the images that came out black (JSON)."""
        return self.preparation / "invalid_images.json"

    @property
    def excluded_participants(self) -> Path:
        """Participants excluded from Section 6.2 (JSON)."""
        return self.preparation / "AU4_excluded_participants.json"

    @property
    def image_tables(self) -> Path:
        """One table of ratings, ranks and scores a participant."""
        return self.preparation / "preprocessed_image_data"

    @property
    def score_record(self) -> Path:
        """The settings of the scores in those tables (JSON); the published tables have none."""
        return self.image_tables / "scores.json"

    @property
    def image_scores(self) -> Path:
        """Each scorer's finished scores, so that stage 5 resumes where it was interrupted."""
        return self.preparation / "image_scores"

    def aligned_faces(self, dataset: str) -> Path:
        """The aligned faces of DISFA or DISFAPlus, from stages 1 and 2."""
        return self.preparation / f"{dataset}_faces"

    def session(self, participant: str, number: int) -> Path:
        """One session's clips, images and ``data.json``."""
        return self.data / participant / f"session_{number}"

    def activation_tables(self, kind: str) -> Path:
        """One table of activation values a participant, of the clips of one kind."""
        return self.preparation / f"preprocessed_{kind}_data"

    def preference_results(self, mode: str = "paper", strict_lopo: bool = False) -> Path:
        """The results of stage 9: the released name, with the mode behind it unless it is ``paper``."""
        suffix = ("_released" if mode == "released" else "") + ("_strict" if strict_lopo else "")
        return self.results / f"image_preference_binary_classification_based_on_ranking{suffix}.csv"


@dataclass(frozen=True)
class Clip:
    """One clip's feature file."""

    session: int
    image: int
    path: Path


def read_valid_sessions(folders: Folders) -> dict[str, list[int]]:
    """Participant → session numbers in ascending order; participants in ascending order.

    Raises
    ------
    FergiError
        If the file is missing, is not of that form, or names a session twice.
    """
    path = folders.valid_sessions
    content = read_json(path, FETCH_ADVICE)
    if not isinstance(content, dict) or not content:
        raise FergiError(f"{path} must map participants to lists of session numbers, and name at least one.")
    for participant, sessions in content.items():
        if not isinstance(sessions, list) or not all(type(session) is int for session in sessions) or not sessions:
            raise FergiError(f"{path}: participant {participant} needs a list of session numbers, not {sessions!r}.")
        if len(set(sessions)) < len(sessions):
            raise FergiError(f"{path}: participant {participant} has a session twice: {sorted(sessions)}.")
    return {participant: sorted(content[participant]) for participant in sorted(content)}


def read_black_images(folders: Folders, participants: Iterable[str]) -> dict[str, set[tuple[int, int]]]:
    """Participant → (session, image) pairs of the images that came out black (Section 3.3).

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
        raise summarise(missing, len(participants), f"participants of {path}", "An empty entry {} says: none black.")
    return {participant: black[participant] for participant in participants}


def read_excluded_participants(folders: Folders, participants: Iterable[str]) -> list[str]:
    """The participants left out of Section 6.2.

    Raises
    ------
    FergiError
        If the file is missing, is not a list, or names somebody who is not among ``participants``.
    """
    path = folders.excluded_participants
    excluded = read_json(path, "Run filter_participants_based_on_AU4.py first.")
    if not isinstance(excluded, list) or not all(isinstance(name, str) for name in excluded):
        raise FergiError(f"{path} must be a list of participants. Run filter_participants_based_on_AU4.py again.")
    unknown = [name for name in excluded if name not in set(participants)]
    if unknown:
        raise summarise(
            unknown,
            len(excluded),
            f"participants of {path}",
            "Run filter_participants_based_on_AU4.py again.",
        )
    return excluded


def find_clips(folders: Folders, kind: str, sessions: dict[str, list[int]]) -> dict[str, list[Clip]]:
    """The feature files of every participant's clips of one kind, by session and image.

    Which clips exist is read from the files' names. An image has a baseline clip and a reaction clip,
    and a session's images are numbered from 1, so a file that is missing leaves a gap that is seen here, unless it is
    both files of a session's last image.

    Raises
    ------
    FergiError
        If a participant's or session's folder is missing, or a session has a clip without its counterpart, or one
        numbered 0.
    """
    clips: dict[str, list[Clip]] = {}
    problems: list[str] = []
    for participant, numbers in sessions.items():
        clips[participant] = []
        for session in numbers:
            folder = folders.session(participant, session)
            images = {each: _images_with_features(folder, each) for each in CLIP_KINDS}
            expected = range(1, 1 + max((0, *images["baseline"], *images["reaction"])))
            lost = [
                f"{each}_clip_{image}_features.csv"
                for each in CLIP_KINDS
                for image in expected
                if image not in images[each]
            ]
            if not expected:
                problems.append(f"{folder} {'has no feature files' if folder.is_dir() else 'does not exist'}")
            elif 0 in images["baseline"] | images["reaction"]:
                problems.append(f"{folder} has clips numbered 0, and images are numbered from 1")
            elif lost:
                problems.append(f"{folder / lost[0]} does not exist")
            clips[participant] += [
                Clip(session, image, folder / f"{kind}_clip_{image}_features.csv") for image in expected
            ]
    if problems:
        total = sum(len(numbers) for numbers in sessions.values())
        raise summarise(
            problems,
            total,
            f"sessions named in {folders.valid_sessions.name}",
            "Make them with clips_facial_process.py, or fetch the published files with: python -m fergi.published",
        )
    return clips


def find_videos(folders: Folders) -> dict[Path, Path]:
    """Every baseline and reaction video below ``data/`` → its feature file, by participant, session, kind and image.

    Raises
    ------
    FergiError
        If there is none.
    """
    found = []
    for video in folders.data.glob("*/session_*/*_clip_*"):
        session = re.fullmatch(r"session_(\d+)", video.parent.name)
        clip = re.fullmatch(r"(baseline|reaction)_clip_(\d+)", video.stem)
        if session and clip and video.suffix.lower() in VIDEO_ENDINGS and not video.is_dir():
            found.append((video.parts[-3], int(session[1]), clip[1], int(clip[2]), video))
    if not found:
        raise FergiError(
            f"There are no videos in {folders.data} (<participant>/session_<n>/reaction_clip_<i>.mp4 and the like). "
            "Put them there, or name a folder of any videos with --videos DIR --out DIR."
        )
    return _outputs((video, video.with_name(f"{video.stem}_features.csv")) for *_, video in sorted(found))


def find_videos_anywhere(folder: Path, output: Path) -> dict[Path, Path]:
    """Every video below a folder → its feature file, in the same subfolder of ``output``.

    Links to folders are followed, to each folder once; what is hidden (``.name``) is left out.

    Raises
    ------
    FergiError
        If the folder is missing or has no video, or two videos would share a feature file.
    """
    if not folder.is_dir():
        raise FergiError(f"{folder} is not a folder. Name one that holds videos.")
    videos = sorted(path for path in _files_below(folder) if path.suffix.lower() in VIDEO_ENDINGS)
    if not videos:
        raise FergiError(f"There is no video in {folder} (looked for {', '.join(VIDEO_ENDINGS)}). Name another folder.")
    return _outputs(
        (video, output / video.relative_to(folder).with_name(f"{video.stem}_features.csv")) for video in videos
    )


def _files_below(folder: Path) -> Iterator[Path]:
    """Files in a folder and its subfolders; see ``find_videos_anywhere``."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        there = os.path.realpath(parent)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and there not in seen)
        yield from (Path(parent, name) for name in files if not name.startswith(".") and there not in seen)
        seen.add(there)


def _outputs(pairs: Iterable[tuple[Path, Path]]) -> dict[Path, Path]:
    """The pairs as a mapping, if no two videos have the same output."""
    outputs: dict[Path, Path] = {}
    of_output: dict[Path, Path] = {}
    for video, output in pairs:
        if output in of_output:
            raise FergiError(f"{of_output[output]} and {video} would both write {output.name}. Rename one of them.")
        of_output[output] = video
        outputs[video] = output
    return outputs


def _images_with_features(session_folder: Path, kind: str) -> set[int]:
    """The image numbers whose clip of this kind has a feature file in the folder."""
    if not session_folder.is_dir():
        return set()
    matches = (re.fullmatch(rf"{kind}_clip_(\d+)_features\.csv", path.name) for path in session_folder.iterdir())
    return {int(match[1]) for match in matches if match}


def unlisted_sessions(folders: Folders, sessions: dict[str, list[int]]) -> list[Path]:
    """Session folders with data that ``valid_sessions.json`` does not name, and which are therefore not used."""
    listed = {folders.session(participant, n) for participant, numbers in sessions.items() for n in numbers}
    return sorted(set(folders.data.glob("*/session_*")) - listed)


def read_image_reactions(
    folders: Folders,
    sessions: dict[str, list[int]],
    *,
    image_columns: Sequence[str],
    activation_columns: Sequence[str],
) -> pd.DataFrame:
    """Ratings, ranks and scores of images together with the activation values of the reactions to them.

    Parameters
    ----------
    folders : Folders
        Where the image tables (stage 5) and the reaction tables (stage 7) are.
    sessions : dict
        Participant → session numbers (``read_valid_sessions``), for the participants wanted.
    image_columns, activation_columns : sequence of str
        Numeric columns wanted of each kind of table.

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
    black = read_black_images(folders, sessions)
    images = read_tables(
        folders.image_tables,
        sessions,
        key=CLIP_KEY,
        numeric=image_columns,
        advice=f"{STAGE_5_ADVICE} --replace",
    )
    reactions = read_tables(
        folders.activation_tables("reaction"),
        sessions,
        key=CLIP_KEY,
        numeric=activation_columns,
        advice="Run preprocess_reaction_data.py.",
    )
    problems = []
    for participant, numbers in sessions.items():
        path = folders.image_tables / f"{participant}.csv"
        rated, listed = set(images[participant]["session_index"]), set(numbers)
        all_black = {session for session, _ in black[participant]}  # such a session may have no image left
        known = set(images[participant].set_index(list(CLIP_KEY)).index)
        reacted = reactions[participant].set_index(list(CLIP_KEY)).index
        unknown = [key for key in reacted if key not in known]
        if rated - listed:
            problems.append(f"{path} has session {min(rated - listed)}, {folders.valid_sessions.name} does not")
        if listed - rated - all_black:
            problems.append(
                f"{folders.valid_sessions.name} has session {min(listed - rated - all_black)}, {path} does not"
            )
        if unknown:
            session, image = unknown[0]
            problems.append(
                f"{folders.activation_tables('reaction') / path.name} has session {session}, image {image}, "
                f"{path} does not"
            )
    if problems:
        raise summarise(problems, len(sessions), "participants' tables", "Make both tables from the same recordings.")
    all_images, all_reactions = (
        pd.concat(tables, names=["participant"]).reset_index("participant") for tables in (images, reactions)
    )
    return all_images.merge(all_reactions, on=["participant", *CLIP_KEY], validate="one_to_one")
