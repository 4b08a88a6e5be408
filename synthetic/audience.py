"""People who look at images and rank nothing: those whose reactions ``annotate_preferences.py`` is made for.

They are other people than the filmed ones, on whom the preference model is fitted, and more of them, since tuning needs
hundreds of pairs. Filming them would take hours. So each activation value is that of the planned course plus the error
that the scripts made on a filmed reaction, drawn at random with all its AUs.

Writes  audience/data/, audience/preparation/preprocessed_reaction_data/, audience/pretrained_models/, audience/truth/
Run     python -m synthetic audience --root DIR        after stage 7
Takes   a quarter of a minute.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from fergi.dataset import CLIP_KEY, Folders
from fergi.features import ACTION_UNITS, SETTINGS_FILE
from fergi.files import read_json, replacing, require, write_json, write_table
from fergi.script import argument_parser, at_least, run
from fergi.weights import PICK_SCORE
from synthetic.claim import claim
from synthetic.cohort import REACTION, CohortSettings, Take, Truth, plan_sessions, stream
from synthetic.pictures import draw_picture
from synthetic.recovery import MOST_DISTURBED, injected_activation, read_activation

SIDE = 128  # pixels of their pictures
COLUMNS = [f"AU{unit}_activation_value" for unit in ACTION_UNITS]


def audience_of(folders: Folders) -> Folders:
    """Where the audience's files are."""
    return Folders(folders.root / "audience")


def activation_errors(folders: Folders) -> np.ndarray:
    """Recovered less injected activation values of the filmed reactions, shape (n_reactions, 12)."""
    truth, errors = Truth(folders.root), []
    for (who, session, image), found in read_activation(folders, REACTION, ACTION_UNITS).items():
        course = pd.read_csv(truth.course(who, session, REACTION, image))
        clear = course["disturbance"].isna().to_numpy()
        errors.append(np.array(found) - _injected(course[[f"AU{unit}" for unit in ACTION_UNITS]].to_numpy(), clear))
    return np.array(errors)


def _injected(courses: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Injected activation value of each AU; ``courses`` (n_frames, 12), ``clear``: which frames are not disturbed."""
    return np.array([injected_activation(np.where(clear, course, course[0])) for course in courses.T])


def write_audience(folders: Folders, settings: CohortSettings) -> None:
    """Write prompts, pictures and tables of activation values, and copy what tuning a scorer needs."""
    audience, errors = audience_of(folders), activation_errors(folders)
    rows: dict[str, list[tuple]] = {}
    true: list[tuple] = []
    for who, number, session in plan_sessions(settings):
        random = stream(settings.seed, "audience", int(who), number)
        folder = audience.session(who, number)
        write_json({"prompt": session.scene.prompt, "ranking": [], "survey": []}, folder / "data.json")
        for place, image in enumerate(session.images, 1):
            drawn = draw_picture(session.scene, image.quality, random, SIDE)
            with replacing(folder / f"image{place}.png") as file:
                drawn.picture.save(file, "png")
            true.append((who, number, place, image.quality))
            values = _seen(image.takes[REACTION], errors[random.integers(len(errors))])
            if values is not None:
                rows.setdefault(who, []).append((number, place, *values))
    tables = audience.activation_tables(REACTION)
    for who, table in rows.items():
        write_table(pd.DataFrame(table, columns=[*CLIP_KEY, *COLUMNS]), tables / f"{who}.csv")
    write_table(pd.DataFrame(true, columns=["participant", *CLIP_KEY, "quality"]), Truth(audience.root).images)
    settings_file = folders.activation_tables(REACTION) / SETTINGS_FILE
    for copied in (PICK_SCORE.under(folders.root), settings_file):
        place = audience.root / copied.relative_to(folders.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(copied, place)


def _seen(take: Take, error: np.ndarray) -> np.ndarray | None:
    """Activation values as the scripts might find them; None if the clip has too many disturbed frames."""
    clear = take.disturbance == 0
    if (~clear).mean() > MOST_DISTURBED:
        return None
    return (_injected(take.intensities, clear) + error).clip(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make as many people as asked for, of another seed than the filmed ones."""
    parser = argument_parser(__doc__, "python -m synthetic audience")
    parser.add_argument("--people", type=at_least(1), default=32, help="default: %(default)s")
    parser.add_argument("--sessions", type=at_least(1), default=10, help="of each (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    claim(chosen.root)
    folders = Folders(chosen.root.resolve())
    require([folders.synthetic_truth], "settings of a cohort", "Run python -m synthetic cohort first.")
    filmed = read_json(folders.synthetic_truth, "Run python -m synthetic cohort first.")
    own = CohortSettings(seed=filmed["seed"] + 1, strength=filmed["strength"], n_black=0)
    write_audience(folders, replace(own, n_participants=chosen.people, n_sessions=chosen.sessions))
    print(f"Wrote {audience_of(folders).root}: {chosen.people} people with {chosen.sessions} sessions each.")


if __name__ == "__main__":
    run(main)
