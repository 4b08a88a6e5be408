"""A study of one's own from the first page to the results, with two scripted participants in a headless browser.

Two drawn people sit before the camera (a film that repeats) and do two sessions each on the pages of
collect_sessions.py; cut_clips.py and stages 4 to 9 follow on the folder as it is. Answers are drawn at random and the
faces do not react to the images, so the results mean nothing: what is shown is that the chain runs. The demo's small
network estimates the AUs if demo/ has one; else MediaPipe's blendshapes, if their file is in pretrained_models/; else
such a network is trained first.

Run     python -m synthetic study-demo --root study-demo
Takes   about five minutes on two cores without a GPU, and five more to train; needs playwright and Chromium

Finished steps are skipped, and an interrupted run resumes; in the step of the sessions, with the participant who was
interrupted. In the end results/study.html shows what was recorded and what came of it.
"""

import argparse
import html
import os
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fergi.dataset import Folders, may_share, read_session_data, read_valid_sessions
from fergi.files import FergiError, read_json, replacing, write_json
from fergi.preference.results import read_results, tables_1_and_2
from fergi.script import CHECKOUT, argument_parser, default_root, run
from fergi.weights import FACE_LANDMARKER
from synthetic.claim import claim, clear
from synthetic.cohort import FRAMES_PER_SECOND, bump, stream
from synthetic.demo import SIZES, TINY, Step, run_listed

PEOPLE = ("first", "second")  # scripted; the server gives them their names
KINDS = ("structured", "free")  # of their sessions, in the order of the study
N_IMAGES = 4
STUDY = {
    "title": "Study demo: drawn people",
    "version": "1",
    "contact": "nobody",
    "consent": {"version": "1", "paragraphs": ["Everybody in this study is drawn."]},
    "sessions": dict.fromkeys(KINDS, 1),
    "images_per_prompt": N_IMAGES,
    "seconds": {"baseline": 2, "image": 3},
}
FILM_SECONDS, SIDES = 24, (640, 480)
TRUTH = {"synthetic": "drawn faces and pictures, no real people", "study": "study demo"}
STAGE_9 = "image_preference_binary_classification_based_on_ranking"


def steps(root: Path) -> list[Step]:
    """All steps; those that train an AU model only where there is no other estimator."""
    size = SIZES["demo"]
    checkpoint = f"AU_models/checkpoint_epoch{size.epochs}.pth"
    home = CHECKOUT / "demo" if (CHECKOUT / "demo" / checkpoint).is_file() else root / "au_model"
    estimator = f"--estimator fergi --checkpoint HOME/{checkpoint} --network {size.network}"
    blendshapes = FACE_LANDMARKER.under(default_root())
    if use_blendshapes := home == root / "au_model" and blendshapes.is_file():
        estimator = "--estimator blendshapes"
    faces = asdict(replace(size.cohort, **TINY | {"n_disfa": 36, "n_disfa_plus": 6, "n_disfa_frames": 32}))
    cohort = " ".join(f"--{name.replace('_', '-')}={value}" for name, value in faces.items())
    training = (
        f"--network {size.network} --from-scratch --epochs {size.epochs} --rate {size.rate} "
        f"--last-layer-rate {size.rate} --batch-size {size.batch_size} --device cpu"
    )
    au_model = (
        ("AU model: drawn faces", "au_model/truth/people.png", f"-m synthetic cohort --root HOME {cohort}"),
        ("AU model: stage 1", "au_model/preparation/DISFA_faces",
         "preprocess_DISFA.py --root HOME --disfa HOME/FER_datasets/DISFA"),
        ("AU model: stage 2", "au_model/preparation/DISFAPlus_faces",
         "preprocess_DISFAPlus.py --root HOME --disfa-plus HOME/FER_datasets/DISFAPlus"),
        ("AU model: stage 3", f"au_model/{checkpoint}", f"DISFAwithPlus_train_model.py --root HOME {training}"),
    )  # fmt: skip
    chain = (
        ("films of two drawn people", "camera/second.mjpeg",
         f"-m synthetic study-demo --root ROOT --step films{' --blendshapes TASK' if use_blendshapes else ''}"),
        ("their sessions in a browser", "camera/participants.json",
         "-m synthetic study-demo --root ROOT --step sessions"),
        ("clips", "preparation/valid_sessions.json", "cut_clips.py --root ROOT"),
        ("scorers: tiny networks with weights", "pretrained_models/scorer_layouts.json",
         f"-m synthetic scorers --root ROOT --scenes {SIZES['smoke'].scenes}"),
        ("stage 4: features of all clips", "figures/previews",
         f"clips_facial_process.py --root ROOT {estimator} --device cpu --preview ROOT/figures/previews"),
        ("stage 5: answers and scores of images", "preparation/preprocessed_image_data",
         "preprocess_image_data.py --root ROOT --scorer-layouts ROOT/pretrained_models/scorer_layouts.json "
         "--device cpu"),
        ("stage 6: activation in baseline clips", "preparation/preprocessed_baseline_data",
         "preprocess_baseline_data.py --root ROOT"),
        ("stage 7: activation in reaction clips", "preparation/preprocessed_reaction_data",
         "preprocess_reaction_data.py --root ROOT"),
        ("stage 8: who is excluded", "preparation/AU4_excluded_participants.json",
         "filter_participants_based_on_AU4.py --root ROOT"),
        # The films do not know when a baseline is recorded, so stage 8 can exclude both.
        ("stage 9: preferences", f"results/{STAGE_9}_everybody.csv", f"{STAGE_9}.py --root ROOT --everybody"),
        ("page", "results/study.html", "-m synthetic study-demo --root ROOT --step page"),
    )  # fmt: skip
    found = (*(au_model if home == root / "au_model" and not use_blendshapes else ()), *chain)
    names = {"ROOT": str(root), "HOME": str(home), "TASK": str(blendshapes)}

    def fill(part: str) -> str:
        for name, path in names.items():
            part = part.replace(name, path)
        return part

    return [Step(name, tuple(map(fill, command.split())), written) for name, written, command in found]


# Films and sessions --------------------------------------------------------------------------------------------------


def write_films(root: Path, blendshapes: Path | None) -> None:
    """A film of each person: smiles, raised brows, a head that moves. And the blendshapes' file, if they are used."""
    from synthetic.expressions import View, expression, find_actor
    from synthetic.participant import write_film

    write_json(TRUTH, Folders(root).synthetic_truth)
    if blendshapes:
        with replacing(FACE_LANDMARKER.under(root)) as file:
            file.write(blendshapes.read_bytes())
    for who in PEOPLE:
        if film_of(root, who).is_file():
            continue
        actor = find_actor(stream(0, "study demo", who), Folders(root).pretrained_models)
        random, n_frames = stream(0, "film", who), FILM_SECONDS * FRAMES_PER_SECOND
        parts = [bump(random, n_frames // 4) for _ in range(8)]
        smile, brows = (np.concatenate(parts[half : half + 4]) for half in (0, 4))
        smile *= np.repeat(random.uniform(1, 4.5, 4), n_frames // 4)
        turn = 2 * np.pi * np.arange(n_frames) / n_frames

        def picture(frame: int, actor=actor, random=random, smile=smile, brows=brows, turn=turn) -> np.ndarray:
            from cv2 import resize

            view = View(x=4 * np.sin(3 * turn[frame]), yaw=1.5 * np.sin(2 * turn[frame]), roll=np.sin(5 * turn[frame]))
            face = expression(AU12=smile[frame], AU6=smile[frame] / 2, AU1=2 * brows[frame], AU2=2 * brows[frame])
            return resize(actor.frame(face, view, random), SIDES)

        write_film(map(picture, range(n_frames)), film_of(root, who))


def film_of(root: Path, who: str) -> Path:
    """Where a person's film is."""
    return root / "camera" / f"{who}.mjpeg"


def hold_sessions(root: Path) -> None:
    """Let everybody take part who has not; a participant who was interrupted begins anew."""
    from synthetic import participant as scripted
    from synthetic.pictures import random_scene

    done_file, recordings = root / "camera" / "participants.json", Folders(root).recordings
    unfinished = root / "camera" / "unfinished.json"
    done = read_json(unfinished, "Remove it.") if unfinished.is_file() else {}
    for path in recordings.glob("[0-9]*"):
        if path.name not in done.values():
            shutil.rmtree(path)
    with server(root) as url:
        for place, who in enumerate(PEOPLE):
            if who in done:
                continue
            random = stream(0, "answers", who)
            with scripted.participant(film_of(root, who), url) as page:
                scripted.agree(page, sharing=place == 0)
                for number, kind in enumerate(KINDS, start=1):
                    scripted.do_session(page, number, kind, random_scene(random), N_IMAGES, random)
                    print(f"The {who} participant has done session {number}.", flush=True)
            new = {path.name for path in recordings.glob("[0-9]*")} - set(done.values())
            done |= {who: min(new)}
            write_json(done, unfinished)
    write_json(done, done_file)


@contextmanager
def server(root: Path) -> Iterator[str]:
    """``collect_sessions.py`` in a process of its own; its address."""
    study, log = root / "camera" / "study.json", root / "camera" / "server.log"
    write_json(STUDY, study)
    command = [sys.executable, "collect_sessions.py", "--no-browser", "--root", str(root), "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--study", str(study)], cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT, env=os.environ
        )
    try:
        deadline = time.monotonic() + 120
        while "Page for participants: " not in (said := log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise FergiError(f"collect_sessions.py does not start; {log} says why.")
            time.sleep(0.1)
        yield said.split("Page for participants: ")[1].split()[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


# The page ------------------------------------------------------------------------------------------------------------

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2330; max-width: 62rem; margin: 0 auto; padding: 1.5rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.2rem; }
.note { background: #fff1dc; border: 1px solid #d55e00; color: #7a3300; padding: 0.8rem 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.8rem; border-bottom: 1px solid #ccd2dc; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #6b7486; }
figure { margin: 1rem 0; } figcaption { color: #495165; } img { max-width: 100%; height: auto; }
.ranking { display: flex; gap: 0.8rem; } .ranking figure { flex: 1; margin: 0; }
"""


def write_page(root: Path) -> None:
    """What was recorded, and what came of it."""
    folders = Folders(root)
    sessions = read_valid_sessions(folders)
    results = read_results(folders, "paper", everybody=True)
    tables = tables_1_and_2(results)
    n_pairs = int(tables.loc["AUcomb, all", "total"])
    note = (
        f"Drawn faces and pictures, no real people: {len(results)} scripted participants, {n_pairs} pairs of images, "
        "answers at random, faces that do not react. <strong>The figures below mean nothing</strong>; they show that a "
        "study runs from its first page to its results. With so few people no figure of this kind would mean anything."
    )
    parts = [f'<p class="note">{note}</p>', "<h2>What was recorded</h2>", _recorded(folders, sessions)]
    for participant, numbers in sessions.items():
        if may_share(folders, participant):
            parts += [_session(folders, participant, number) for number in numbers]
        else:
            parts.append(f"<h2>Participant {participant}</h2><p>Refused sharing, so that nothing is shown here.</p>")
    parts += ["<h2>What the stages make of it</h2>", "<p>Correct predictions, counted on who was held out.</p>"]
    shown = tables[["correct", "total"]].assign(percent=tables["percent"].map("{:.1f}".format).replace("nan", "–"))
    parts.append(shown.rename_axis(None).to_html(border=0))
    body = "\n".join(parts)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Study demo</title><style>{STYLE}</style>'
        f"</head>\n<body><h1>Study demo</h1>\n{body}\n</body></html>\n"
    )
    with replacing(folders.results / "study.html") as file:
        file.write(page.encode())


def _recorded(folders: Folders, sessions: dict[str, list[int]]) -> str:
    """One row a session: its evidence, and how many of its clips are valid."""
    rows = []
    valid = {
        (kind, who): pd.read_csv(folders.activation_tables(kind) / f"{who}.csv")["session_index"].value_counts()
        for kind in ("baseline", "reaction")
        for who in sessions
    }
    for who, numbers in sessions.items():
        for number in numbers:
            cut = read_json(folders.session(who, number) / "cut.json", "Run cut_clips.py again.")
            found = cut["evidence"]
            row = {
                "session": f"{who}, session {number}",
                "frames": found["recorded_frames"],
                "frames/s": found["frames_per_second"],
                "times confirmed": "–" if found["matched_share"] is None else f"{found['matched_share']:.1%}",
                "repeated at most": f"{found['repeated_share']:.1%}",
                "longest gap, ms": round(1000 * found["longest_gap"]),
            }
            counts = {f"valid {kind} clips": valid[kind, who].get(number, 0) for kind in ("baseline", "reaction")}
            rows.append(row | counts)
    return pd.DataFrame(rows).to_html(index=False, border=0)


def _session(folders: Folders, who: str, number: int) -> str:
    """A session's prompt, its images as they were ranked, and one of its clips."""
    folder = folders.session(who, number)
    data = read_session_data(folder / "data.json")
    images = [
        f'<figure><img alt="image {place + 1}" src="{_embedded(folder / f"image{place + 1}.png")}">'
        f"<figcaption>{rank}. image {place + 1}, rated {data.surveys[place].ratings[0]}</figcaption></figure>"
        for rank, place in enumerate(data.ranking, start=1)
    ]
    kind = {"structured": "form", "free": "free text"}.get(data.kind or "", "")
    parts = [f"<h2>Participant {who}, session {number} ({kind})</h2>", f"<p>“{html.escape(data.prompt)}”</p>"]
    parts.append(f'<div class="ranking">{"".join(images)}</div>')
    preview = folders.figures / "previews" / who / f"session_{number}" / "reaction_clip_1.png"
    if preview.is_file():
        caption = "The reaction to image 1: six frames of the clip and its AUs"
        parts.append(
            f'<figure><img alt="{caption}" src="{_embedded(preview)}"><figcaption>{caption}.</figcaption></figure>'
        )
    return "\n".join(parts)


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


def require_browser() -> None:
    """Stop before the long work unless there are playwright and Chromium."""
    try:
        from synthetic.participant import chromium
    except ModuleNotFoundError as error:
        raise FergiError(
            f"The scripted participants need {error.name}. Install it: pip install --requirement requirements-dev.txt."
        ) from None
    chromium()


PARTS = {"films": write_films, "sessions": hold_sessions, "page": write_page}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every step that is not finished, or only the named one."""
    parser = argument_parser(__doc__, "python -m synthetic study-demo")
    parser.add_argument("--afresh", action="store_true", help="remove everything in --root first")
    parser.add_argument("--step", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--blendshapes", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    root = chosen.root.resolve()
    if chosen.step:
        claim(root)
        PARTS[chosen.step](root, *([chosen.blendshapes] if chosen.step == "films" else []))
        return
    require_browser()
    if chosen.afresh:
        clear(root)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the running step ends as well
    run_listed(root, steps(root))
    print(f"Read {root / 'results' / 'study.html'}; the clips are in {root / 'data'}.")


if __name__ == "__main__":
    run(main)
