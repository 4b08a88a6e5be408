"""Plans of synthetic cohorts: what is planted is there, and at strength 0 nothing is.

The effect is looked for with stages 6 to 9 in features that are the injected courses and a little noise, so that many
cohorts can be tried; ``test_chain.py`` goes the whole way through films.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose, assert_array_equal

import filter_participants_based_on_AU4
import image_preference_binary_classification_based_on_ranking as preferences
import preprocess_baseline_data
import preprocess_reaction_data
from fergi.dataset import CLIP_KEY, ISSUES, Folders
from fergi.features import ACTION_UNITS, NO_FACE, format_clip
from fergi.files import write_json, write_table
from fergi.preference.results import ENSEMBLE, INTEGRATED_ENSEMBLE, SCORERS, VALENCE, correct_and_total
from synthetic.cohort import (
    BASELINE,
    DISTURBANCES,
    FRAMES_PER_SECOND,
    REACTION,
    UNREADABLE_ISSUES,
    UNSTEADY,
    CohortSettings,
    Truth,
    bump,
    disfa_subjects,
    participants,
    plan_labelled,
    plan_sessions,
    stream,
)
from synthetic.recovery import by_chance, read_preferences

AU4, AU12 = ACTION_UNITS.index(4), ACTION_UNITS.index(12)
ABOVE_CHANCE = "AUcomb_selected_" + VALENCE


def study(
    root: Path, settings: CohortSettings, features: Callable[[np.ndarray], np.ndarray] = lambda course: course
) -> Folders:
    """Truth, features and stages 6 to 9, without a film: what is seen is made of the injected courses, with noise."""
    folders, truth = Folders(root), Truth(root)
    tables = {who: [] for who in participants(settings)}
    black = {who: {str(n): [] for n in range(1, settings.n_sessions + 1)} for who in tables}
    images = []
    for who, number, session in plan_sessions(settings):
        random = stream(settings.seed, "test", int(who), number)
        for place, image in enumerate(session.images):
            for kind, take in image.takes.items():
                n_frames = len(take.intensities)
                good = [0.95, 0.7, 0.5] * np.ones((n_frames, 1))
                seen = features(take.intensities) + random.normal(0, 0.05, take.intensities.shape)
                values = np.hstack([good, seen])
                values[take.disturbance > 0] = NO_FACE
                path = folders.session(who, number) / f"{kind}_clip_{place + 1}_features.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(format_clip(np.arange(n_frames) / FRAMES_PER_SECOND, values, 3))
                course = pd.DataFrame(take.intensities[:, [AU4, AU12]], columns=["AU4", "AU12"])
                course["disturbance"] = [DISTURBANCES[kind] for kind in take.disturbance]
                write_table(course, truth.course(who, number, kind, place + 1))
            images.append((who, number, place + 1, image.black))
            if image.black:
                black[who][str(number)].append(place + 1)
                continue
            rank = len(session.images) - session.ranking.index(place)
            scores = image.quality + random.normal(0, 0.5, len(SCORERS))
            issues = [None if who == UNREADABLE_ISSUES else 0] * len(ISSUES)
            tables[who].append((number, place + 1, rank, *scores, *issues))
    for who, rows in tables.items():
        columns = [*CLIP_KEY, "rank_score", *SCORERS, *ISSUES]
        write_table(pd.DataFrame(rows, columns=columns), folders.image_tables / f"{who}.csv")
    write_table(pd.DataFrame(images, columns=["participant", *CLIP_KEY, "black"]), truth.images)
    write_json({"strength": settings.strength}, folders.synthetic_truth)
    write_json({who: list(range(1, settings.n_sessions + 1)) for who in tables}, folders.valid_sessions)
    write_json(black, folders.black_images)
    for script in preprocess_baseline_data, preprocess_reaction_data, filter_participants_based_on_AU4, preferences:
        script.main(["--root", str(root)])
    return folders


def beyond_chance(cohorts: list[Folders]) -> dict[str, float]:
    """What is counted in all cohorts together above what shuffled reactions give, in their standard deviations."""
    tables = [by_chance(*read_preferences(folders)) for folders in cohorts]
    above = sum(table["counted"] - table["expected"] for table in tables)
    return dict(above / np.sqrt(sum(table["deviation"] ** 2 for table in tables)))


def accuracy(cohorts: list[Folders], model: str) -> float:
    """Share of the pairs of all cohorts on which a model is right."""
    return np.divide(*np.sum([correct_and_total(read_preferences(each)[1], model) for each in cohorts], axis=0))


def test_nothing_planted_nothing_found(tmp_path):
    """Over six cohorts of strength 0, faces do not tell the preference, alone or beside scorers, which do."""
    cohorts = [
        study(tmp_path / str(seed), CohortSettings(seed=seed, strength=0.0, n_participants=10)) for seed in range(6)
    ]
    assert max(map(abs, beyond_chance(cohorts).values())) < 3
    assert accuracy(cohorts, ENSEMBLE) > 0.6


def test_planted_effect_is_found(tmp_path):
    """Over three cohorts the face alone is right beyond chance, more so on selected pairs, and helps scorers.

    The measures and the limit of the test above are used, so that this effect, planted there, would be found.
    """
    cohorts = [study(tmp_path / str(seed), CohortSettings(seed=seed)) for seed in range(3)]
    assert min(beyond_chance(cohorts).values()) > 4
    assert accuracy(cohorts, ABOVE_CHANCE) > accuracy(cohorts, VALENCE) + 0.05
    assert accuracy(cohorts, INTEGRATED_ENSEMBLE) > accuracy(cohorts, ENSEMBLE)
    for folders in cohorts:
        included = set(read_preferences(folders)[1]["user_id"])
        assert included == set(participants(CohortSettings())) - {UNSTEADY}


def test_reactions_rise_with_preference():
    """Where they tell: AU12 of what is liked, AU4 of what is not, strength × expressivity × |2 p − 1| (at most 1)."""
    settings = CohortSettings(strength=4.0, n_black=0)
    for who, _, session in plan_sessions(settings):
        expressivity = stream(settings.seed, "expressivity", int(who)).uniform(0.75, 1.0)
        for image in session.images:
            peaks = image.takes[REACTION].intensities.max(axis=0)
            if image.telling and who != UNSTEADY:
                expected = 4.0 * expressivity * min(abs(2 * image.preference - 1), 1)
                assert peaks[AU12 if image.preference > 0.5 else AU4] >= expected - 1e-9


def test_cohorts_of_two_strengths_differ_in_the_effect_alone():
    """Pictures, preferences, rest and heads are the same; the reactions are not."""
    weak, strong = (list(plan_sessions(CohortSettings(strength=strength))) for strength in (0.0, 4.0))
    n_different = 0
    for (_, _, one), (_, _, other) in zip(weak, strong, strict=True):
        assert one.scene == other.scene and one.ranking == other.ranking
        for a, b in zip(one.images, other.images, strict=True):
            assert (a.quality, a.preference, a.black, a.telling) == (b.quality, b.preference, b.black, b.telling)
            assert_array_equal(a.takes[BASELINE].intensities, b.takes[BASELINE].intensities)
            for name, course in a.takes[REACTION].head.items():
                assert_array_equal(course, b.takes[REACTION].head[name])
            differs = (a.takes[REACTION].intensities != b.takes[REACTION].intensities).any()
            assert not differs or (a.telling and not a.black)
            n_different += differs
    assert n_different > 20


def test_same_seed_same_cohort_other_seed_another():
    """A plan is a function of its settings."""
    one, same, other = (next(plan_sessions(CohortSettings(seed=seed)))[2] for seed in (3, 3, 4))
    assert one.ranking == same.ranking
    assert_array_equal(one.images[0].takes[REACTION].intensities, same.images[0].takes[REACTION].intensities)
    assert (one.images[0].quality, one.scene) != (other.images[0].quality, other.scene)


def test_black_images_are_ranked_last_and_tell_nothing():
    """As many as asked for, in as many sessions."""
    settings = CohortSettings(n_black=4)
    sessions = [session for _, _, session in plan_sessions(settings)]
    with_black = [session for session in sessions if any(image.black for image in session.images)]
    assert len(with_black) == 4
    for session in with_black:
        assert [image.black for image in session.images].index(True) == session.ranking[-1]
        assert sum(image.black for image in session.images) == 1
    others = next(session for session in sessions if not any(image.black for image in session.images))
    assert others.ranking == list(np.argsort([image.preference for image in others.images])[::-1])


def test_only_the_unsteady_participant_moves_au4_at_rest():
    """The release's rule leaves out who reaches 0.5 in a fifth of the baseline clips."""
    settings = CohortSettings()
    peaks = {who: [] for who in participants(settings)}
    for who, _, session in plan_sessions(settings):
        peaks[who] += [np.ptp(image.takes[BASELINE].intensities[:, AU4]) for image in session.images]
    high = {who: np.mean(np.array(each) > 0.5) for who, each in peaks.items()}
    assert high.pop(UNSTEADY) >= 0.3
    assert max(high.values()) <= 0.1


def test_bump_rises_once_and_comes_back():
    """From 0 to 1 and down again without a step, the first tenth of a second still."""
    for seed in range(20):
        course = bump(np.random.default_rng(seed), 90)
        assert_allclose([course[:3].max(), course.min(), course.max()], [0, 0, 1], atol=1e-12)
        top = np.flatnonzero(course == course.max())
        assert (np.diff(course[: top[0] + 1]) >= 0).all() and (np.diff(course[top[-1] :]) <= 1e-12).all()
        assert np.abs(np.diff(course)).max() < 0.2


def test_labelled_takes_show_every_unit_at_every_intensity():
    """Whole numbers, and no lips pulled up and down at once."""
    settings = CohortSettings()
    takes = [plan_labelled(settings, subject, "DISFA").intensities for subject in disfa_subjects(settings)]
    together = np.concatenate(takes)
    assert together.shape == (settings.n_disfa * settings.n_disfa_frames, 12)
    for column in together.T:
        assert set(column) == {0, 1, 2, 3, 4, 5}
    assert not ((together[:, AU12] > 0) & (together[:, ACTION_UNITS.index(15)] > 0)).any()
    assert (takes[0] != takes[1]).any()


def test_nothing_pulls_both_ways():
    """Brows that are lowered are not raised in the same clip, and lips pulled up not pulled down."""
    for _, _, session in plan_sessions(CohortSettings()):
        for image in session.images:
            for take in image.takes.values():
                moves = dict(zip(ACTION_UNITS, take.intensities.any(axis=0), strict=True))
                assert not (moves[4] and (moves[1] or moves[2]))
                assert not (moves[12] and (moves[15] or moves[20]))
