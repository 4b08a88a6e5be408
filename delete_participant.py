"""Remove everything of one participant: recordings, clips, answers, tables, entries, results that hold their rows.

Reads   recordings/, data/, preparation/, results/, figures/
Writes  what is left of lists and scores without the participant
Run     python delete_participant.py 017 --dry-run    (only says what would be removed)
        python delete_participant.py 017
Takes   seconds; no GPU.

Tables of results go whole, since the others' rows were computed with the participant's help; the last lines say what to
run again. Files outside the root, such as exports and backups, are not found.
"""

from collections.abc import Sequence

from fergi.dataset import Folders
from fergi.deletion import find_traces, nobody_writes, remove_traces
from fergi.files import FergiError
from fergi.script import argument_parser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Find, remove, report."""
    parser = argument_parser(__doc__)
    parser.add_argument("participant", metavar="NAME", help="as the folder in recordings/ or data/ is called")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing")
    chosen = parser.parse_args(arguments)
    folders, name = Folders(chosen.root), chosen.participant
    with nobody_writes(folders):
        traces = find_traces(folders, name)
        if not traces:
            raise FergiError(f"There is nothing of a participant {name!r} in {folders.root}. Nothing was removed.")
        for trace in traces:
            print(f"  {trace.path.relative_to(folders.root)}  ({trace.what})")
        if chosen.dry_run:
            print(f"{len(traces)} places have data of {name}; nothing was removed.")
            return
        remove_traces(traces)
    print(f"Removed data of {name} from {len(traces)} places.")
    for sentence in what_to_run(folders, results=any(folders.results in trace.path.parents for trace in traces)):
        print(sentence)


def what_to_run(folders: Folders, *, results: bool) -> list[str]:
    """What was computed with the participant's data and stays."""
    sentences = []
    if folders.valid_sessions.is_file() and results:
        stages = "filter_participants_based_on_AU4.py, image_preference_binary_classification_based_on_ranking.py"
        sentences.append(f"Run again, for the results without this person: {stages}, and result_analysis.ipynb.")
    if models := sorted(folders.au_models.glob("preference_*.json")):
        names = ", ".join(path.name for path in models)
        sentences.append(
            f"Fitted perhaps with this person's reactions, too: {names}. Run fit_preference_model.py again."
        )
    sentences.append(
        "Exports, tuned models, face generators and what these made, and backups are not touched; make them again."
    )
    return sentences


if __name__ == "__main__":
    run(main)
