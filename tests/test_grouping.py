"""Choosing groups of tasks: published results, exhaustive search, and what must hold for any affinity."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrl.grouping import MOST_TASKS_EXACT, choose_groups, member_values

VECTORS = json.loads((Path(__file__).parent / "data" / "task_grouping_tag.json").read_text())["vectors"]

ROUNDING = 1e-9
"""Of sums of a few numbers below 1, and to spare."""


def draw(seed: int, num_tasks: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (num_tasks, num_tasks))


def value(affinity: np.ndarray, group: tuple[int, ...], task: int, alone: float | None = None) -> float:
    """Return what a group is worth to a member, written out."""
    if len(group) == 1:
        return -np.inf if alone is None else alone
    return sum(affinity[other, task] for other in group if other != task) / (len(group) - 1)


def score(affinity: np.ndarray, groups: tuple[tuple[int, ...], ...], alone: float | None = None) -> float:
    """Return the mean over tasks of the best value; -inf where a task is in no group."""
    tasks = range(len(affinity))
    best = [max([value(affinity, g, t, alone) for g in groups if t in g], default=-np.inf) for t in tasks]
    return float(np.mean(best))


def best_score(affinity: np.ndarray, num_groups: int, alone: float | None = None) -> float:
    """Try every choice of groups."""
    tasks = range(len(affinity))
    groups = [group for size in range(1, len(affinity) + 1) for group in itertools.combinations(tasks, size)]
    choices = itertools.chain.from_iterable(itertools.combinations(groups, n) for n in range(1, num_groups + 1))
    return max(score(affinity, choice, alone) for choice in choices)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_published_code_chooses_the_same(vector):
    affinity = np.array(vector["affinity"])
    found = choose_groups(affinity, vector["hyperparameters"]["budget"])
    assert found.score == pytest.approx(vector["score"], abs=ROUNDING)
    assert found.is_exact
    published = [tuple(group) for group in vector["groups"]]
    idle = set(published) - set(found.groups)
    assert set(found.groups) <= set(published)
    if idle:  # those that serve nobody are no part of what is unique
        assert score(affinity, found.groups) == pytest.approx(score(affinity, tuple(published)), abs=ROUNDING)
    members = np.array([[task in group for task in range(len(affinity))] for group in published])
    for row, group, expected in zip(member_values(affinity, members), published, vector["per_task"], strict=True):
        assert row[list(group)] == pytest.approx(list(expected.values()), abs=ROUNDING)


def test_all_published_vectors_are_there():
    assert [vector["name"] for vector in VECTORS] == [f"T{t}/budget{k}" for t in (3, 4, 5) for k in (1, 2, 3)]


def test_values_by_hand():
    affinity = np.array([[9, 1, 2], [4, 9, 6], [8, 3, 9]])  # the diagonal does not count
    members = np.array([[True, True, True], [False, True, True], [True, False, False]])
    # onto task 0: (4 + 8) / 2, onto 1: (1 + 3) / 2, onto 2: (2 + 6) / 2
    expected = [[6, 2, 4], [-np.inf, 3, 6], [-np.inf, -np.inf, -np.inf]]
    assert member_values(affinity.astype(float), members).tolist() == expected
    assert member_values(affinity.astype(float), members, alone=5.0)[2, 0] == 5


@pytest.mark.parametrize("alone", [None, 0.05, -1.0])
@pytest.mark.parametrize(("num_tasks", "num_groups"), [(2, 1), (2, 2), (3, 2), (4, 3), (4, 4), (5, 2), (5, 3)])
def test_no_choice_is_better(num_tasks, num_groups, alone):
    for seed in range(3 if num_tasks < 5 else 1):
        affinity = draw(seed, num_tasks)
        found = choose_groups(affinity, num_groups, alone=alone)
        assert found.is_exact
        assert found.score == pytest.approx(best_score(affinity, num_groups, alone), abs=ROUNDING)
        assert found.score == pytest.approx(score(affinity, found.groups, alone), abs=ROUNDING)


def solved_as_integer_program(affinity: np.ndarray, num_groups: int, alone: float | None) -> float:
    """Return the best score as scipy's branch and cut finds it: who is served by whom, and which groups are open."""
    from scipy import optimize, sparse

    num_tasks = len(affinity)
    groups = [g for size in range(1, num_tasks + 1) for g in itertools.combinations(range(num_tasks), size)]
    pairs = [(g, t) for g, group in enumerate(groups) for t in group if len(group) > 1 or alone is not None]
    cost = [-value(affinity, groups[g], t, alone) for g, t in pairs] + [0.0] * len(groups)
    row = np.arange(len(pairs))
    group, task = np.array(pairs).T
    served = sparse.csr_matrix((np.ones(len(pairs)), (task, row)), shape=(num_tasks, len(cost)))
    entries = np.concatenate([np.ones(len(pairs)), -np.ones(len(pairs))])
    places = (np.concatenate([row, row]), np.concatenate([row, len(pairs) + group]))
    is_open = sparse.csr_matrix((entries, places), shape=(len(pairs), len(cost)))
    count = sparse.csr_matrix([[0.0] * len(pairs) + [1.0] * len(groups)])
    found = optimize.milp(
        cost,
        constraints=[
            optimize.LinearConstraint(served, 1, 1),
            optimize.LinearConstraint(is_open, -np.inf, 0),
            optimize.LinearConstraint(count, 0, num_groups),
        ],
        integrality=np.arange(len(cost)) >= len(pairs),
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 1e-9},
    )
    return -found.fun / num_tasks


@pytest.mark.parametrize("alone", [None, 0.02])
@pytest.mark.parametrize(("num_tasks", "num_groups"), [(6, 4), (7, 3), (8, 2), (8, 5)])
def test_an_integer_program_finds_the_same_score(num_tasks, num_groups, alone):
    for seed in range(4):  # among them some where the bound of the prices is above the best score
        affinity = draw(seed, num_tasks)
        expected = solved_as_integer_program(affinity, num_groups, alone)
        assert choose_groups(affinity, num_groups, alone=alone).score == pytest.approx(expected, abs=ROUNDING)


sizes = st.integers(2, 7)
seeds = st.integers(0, 10_000)


@settings(max_examples=40, deadline=None)
@given(sizes, seeds, st.integers(1, 4), st.randoms(use_true_random=False))
def test_permuted_tasks_permute_the_groups(num_tasks, seed, num_groups, random):
    affinity, order = draw(seed, num_tasks), list(range(num_tasks))
    random.shuffle(order)
    found = choose_groups(affinity, num_groups)
    permuted = choose_groups(affinity[np.ix_(order, order)], num_groups)
    assert permuted.score == pytest.approx(found.score, abs=ROUNDING)
    assert {frozenset(order[t] for t in g) for g in permuted.groups} == {frozenset(g) for g in found.groups}


@settings(max_examples=40, deadline=None)
@given(sizes, seeds, st.integers(1, 4), st.floats(-3, 3))
def test_what_helps_a_task_whatever_the_source_moves_the_score_and_not_the_choice(num_tasks, seed, num_groups, shift):
    affinity = draw(seed, num_tasks)
    found = choose_groups(affinity, num_groups)
    affinity[:, seed % num_tasks] += shift
    shifted = choose_groups(affinity, num_groups)
    assert shifted.score == pytest.approx(found.score + shift / num_tasks, abs=ROUNDING)
    assert shifted.groups == found.groups


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 2, 3, 5, 8, MOST_TASKS_EXACT + 1, 25]), seeds, st.sampled_from([None, 0.03]))
def test_a_grouping_is_what_it_says(num_tasks, seed, alone):
    affinity = draw(seed, num_tasks)
    last = -np.inf
    for num_groups in sorted({1, 2, 3, num_tasks, num_tasks + 2}):
        found = choose_groups(affinity, num_groups, alone=alone)
        assert 1 <= len(found.groups) <= num_groups
        assert set().union(*found.groups) == set(range(num_tasks))
        assert found.groups == tuple(sorted(found.groups))
        assert set(found.served_by) == set(range(len(found.groups)))  # no group without a purpose
        assert all(task in found.groups[group] for task, group in enumerate(found.served_by))
        assert found.score == pytest.approx(np.mean(found.values), abs=ROUNDING)
        assert found.bound >= found.score
        assert found.is_exact == (found.bound <= found.score + ROUNDING)
        if num_tasks > 1:
            assert found.score == pytest.approx(score(affinity, found.groups, alone), abs=ROUNDING)
        assert num_tasks > MOST_TASKS_EXACT or (found.is_exact and found.score >= last - ROUNDING)
        last = found.score


def test_ten_tasks_in_three_groups_are_proven():
    for seed in range(5):
        assert choose_groups(draw(seed, 10), 3).is_exact


def test_integers_with_many_ties_are_proven():
    for seed in range(5):
        affinity = np.random.default_rng(seed).integers(-1, 2, (7, 7)).astype(float)
        found = [choose_groups(affinity, 3) for _ in range(2)]
        assert found[0] == found[1]
        assert found[0].is_exact
    assert choose_groups(np.zeros((6, 6)), 3).groups == ((0, 1, 2, 3, 4, 5),)


def test_without_time_the_choice_is_good_and_honest():
    affinity = draw(0, 12)
    proven = choose_groups(affinity, 3)
    found = choose_groups(affinity, 3, seconds=1e-9)
    assert not found.is_exact
    assert found.score <= proven.score <= found.bound
    assert found.score > member_values(affinity, np.ones((1, 12), dtype=bool)).mean()


@pytest.mark.parametrize("num_tasks", [25, 50])
def test_planted_groups_of_many_tasks_are_found(num_tasks):
    random = np.random.default_rng(0)
    group = random.permutation(np.arange(num_tasks) % 4)
    affinity = np.where(group[:, None] == group, 0.1, -0.1) + random.normal(0, 0.01, (num_tasks, num_tasks))
    found = choose_groups(affinity, 4)
    planted = {tuple(np.flatnonzero(group == g).tolist()) for g in range(4)}
    assert found.score >= score(affinity, tuple(planted)) - ROUNDING
    assert not found.is_exact
    assert found.score <= found.bound < 1.1 * found.score


@pytest.mark.parametrize("alone", [None, 0.0, 0.02])
@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_the_bound_and_the_search_for_many_tasks_hold_for_few(monkeypatch, num_groups, alone):
    for seed in range(5):
        affinity = draw(seed, 8)
        proven = choose_groups(affinity, num_groups, alone=alone)
        with monkeypatch.context() as patch:
            patch.setattr("mtrl.grouping.MOST_TASKS_EXACT", 0)
            found = choose_groups(affinity, num_groups, alone=alone)
        assert found.score <= proven.score + ROUNDING
        assert found.bound >= proven.score - ROUNDING
        assert set().union(*found.groups) == set(range(8))
        assert found.score >= choose_groups(affinity, 1).score - ROUNDING


def test_one_task_has_one_group():
    assert choose_groups(np.array([[0.7]]), 1).groups == ((0,),)
    assert choose_groups(np.array([[0.7]]), 3).score == 0
    assert choose_groups(np.array([[0.7]]), 3, alone=0.2).score == 0.2


def test_the_diagonal_may_be_anything():
    affinity = draw(0, 4)
    found = choose_groups(affinity, 2)
    np.fill_diagonal(affinity, np.nan)
    assert choose_groups(affinity, 2) == found


def test_bad_arguments_are_named():
    affinity = draw(0, 3)
    with pytest.raises(ValueError, match="num_groups must be at least 1, got 0"):
        choose_groups(affinity, 0)
    with pytest.raises(ValueError, match=r"got \(2, 3\)"):
        choose_groups(affinity[:2], 1)
    with pytest.raises(ValueError, match="alone must be finite"):
        choose_groups(affinity, 1, alone=float("nan"))
    with pytest.raises(ValueError, match="seconds must be positive"):
        choose_groups(affinity, 1, seconds=0.0)
    affinity[2, 1] = np.nan
    affinity[0, 2] = np.inf
    with pytest.raises(ValueError, match=r"from task 0 on 2, 2 on 1$"):
        choose_groups(affinity, 1)
