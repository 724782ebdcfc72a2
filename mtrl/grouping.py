"""Choose the groups of tasks that train together, from what a step on one task does to the losses of the others.

Source: Fifty, Amid, Zhao, Yu, Anil, Finn, "Efficiently Identifying Task Groupings for Multi-Task Learning" (TAG),
NeurIPS 2021, section 3.2: a group is worth to a member the mean affinity onto it from the other members, and at most K
groups, which may overlap, are chosen so that the mean over tasks of their best values is greatest.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

MOST_TASKS_EXACT = 16
"""Up to here all 2^T groups are listed: 65,536 of 16 tasks take 8 MB and a few seconds."""

_DUAL_STEPS, _DUAL_PATIENCE = 300, 10
"""Of the subgradient method; after so many steps without progress the steps are halved."""

_MOST_NAMED = 5
"""Pairs of tasks named in an error."""

_TOLERANCE = 1e-12
"""Scores closer than this times the greatest affinity are equal."""

Members = Bool[np.ndarray, "group task"]
Values = Float[np.ndarray, "group task"]


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The chosen groups, sorted, and what they are worth."""

    groups: tuple[tuple[int, ...], ...]
    score: float
    """Mean over tasks of `values`."""
    values: tuple[float, ...]
    """Of each task: the best that a chosen group gives it."""
    served_by: tuple[int, ...]
    """Of each task: the index in `groups` of the first that gives it that value."""
    bound: float
    """No choice scores more; the score itself where it is proven."""
    is_exact: bool
    """Whether no better choice exists, up to rounding."""


@dataclass(kw_only=True)
class _Search:
    """The best choice so far, of rows of `values`."""

    values: Values
    rows: list[int]
    total: float
    tolerance: float
    deadline: float
    is_stopped: bool = False


def choose_groups(
    affinity: Float[np.ndarray, "source target"],
    num_groups: int,
    *,
    alone: float | None = None,
    seconds: float = 60.0,
) -> Grouping:
    """Choose at most `num_groups` groups, which may overlap and cover all tasks, of the greatest score.

    Up to `MOST_TASKS_EXACT` tasks the choice is optimal, unless the time runs out. Beyond, it is a local optimum. It is
    found the same way every time, also among equally good ones; groups that serve nobody are left out.

    Args:
        affinity: What a step on the source does for the target, more is better. The diagonal is not used.
        num_groups: At least 1.
        alone: Value of a task in a group of its own; None: there are no such groups. Differs from TAG's code, which
            gives them -1e6. One task in all is worth 0 by itself.
        seconds: Time limit of the search for an optimum.

    Raises:
        ValueError: The affinity is not square, not finite or empty; or a number is out of range.
    """
    _check(affinity, num_groups, alone, seconds)
    num_tasks = len(affinity)
    tolerance = _TOLERANCE * float(np.abs(_others(affinity)).max())
    if num_tasks <= MOST_TASKS_EXACT:
        members = _all_groups(num_tasks, smallest=1 if alone is not None or num_tasks == 1 else 2)
        search = _start(member_values(affinity, members, alone), num_groups, tolerance, seconds)
        bound = _search(search, num_groups)
        chosen = members[search.rows]
    else:
        members = _grown_groups(_others(affinity))
        if alone is not None:
            members = np.concatenate([np.eye(num_tasks, dtype=bool), members])
        search = _start(member_values(affinity, members, alone), num_groups, tolerance, seconds)
        chosen = _refine(members[search.rows], lambda groups: member_values(affinity, groups, alone), tolerance)
        bound = _size_bound(affinity, num_groups, alone)
    return _grouping(affinity, chosen, alone, bound, tolerance)


def member_values(affinity: Float[np.ndarray, "source target"], members: Members, alone: float | None = None) -> Values:
    """Return what each group is worth to each task: the mean affinity from the other members; -inf to non-members."""
    others = members.sum(1, keepdims=True) - 1
    values = members @ _others(affinity) / np.maximum(others, 1)
    if len(affinity) > 1:
        values = np.where(others == 0, -np.inf if alone is None else alone, values)
    elif alone is not None:
        values[:] = alone
    return np.where(members, values, -np.inf)


# -------------------------------------------------------------------------------------------------- the exact search


def _search(search: _Search, num_groups: int) -> float:
    """Make the choice of `search` the best of all; return an upper bound of the sum over tasks, divided by them.

    Choosing K rows whose column maxima have the greatest sum is the facility location problem. Branch and bound: rows
    in decreasing order of what they can still add, each tried with those after it only.
    """
    bound, prices = _dual(search, num_groups)
    if bound > search.total + search.tolerance:
        unserved = np.full(search.values.shape[1], -np.inf)
        _branch(search, prices, unserved, np.arange(len(search.values)), num_groups, [])
    if not search.is_stopped:
        bound = search.total
    return max(bound, search.total) / search.values.shape[1]


def _dual(search: _Search, num_groups: int) -> tuple[float, Float[np.ndarray, " task"]]:
    """Return an upper bound of the sum over tasks and the prices of the tasks that prove it.

    A task pays its price and gets it back with what a group gives above: for any prices no choice is worth more than
    their sum and the K greatest sums of what a group gives above them. The prices of the least such bound come from the
    subgradient method with Polyak's steps.

    Source: Cornuejols, Fisher, Nemhauser, "Location of Bank Accounts to Optimize Float", 1977, section 3.
    """
    values, count = search.values, min(num_groups, len(search.values))
    prices = values[search.rows].max(0)
    best, best_prices, scale, since = np.inf, prices, 1.0, 0
    for _ in range(_DUAL_STEPS):
        above = np.maximum(values - prices, 0)
        gains = above.sum(1)
        top = np.argsort(-gains, kind="stable")[:count]
        bound = float(prices.sum() + gains[top].sum())
        since += 1
        if bound < best:
            best, best_prices, since = bound, prices, 0
        elif since == _DUAL_PATIENCE:
            scale, since, prices = scale / 2, 0, best_prices
            continue
        slope = 1.0 - (above[top] > 0).sum(0)
        is_done = bound <= search.total + search.tolerance or not slope.any()
        if is_done or time.monotonic() > search.deadline:
            break
        prices = prices - scale * (bound - search.total) / (slope @ slope) * slope
    return best, best_prices


def _branch(
    search: _Search,
    prices: Float[np.ndarray, " task"],
    served: Float[np.ndarray, " task"],
    rows: np.ndarray,
    num_left: int,
    chosen: list[int],
) -> None:
    """Try all choices of up to `num_left` of `rows` beside those `chosen`, which give the tasks `served`."""
    if time.monotonic() > search.deadline:
        search.is_stopped = True
        return
    if num_left == 1:
        totals = np.maximum(search.values[rows], served).sum(1)
        best = int(totals.argmax())
        if totals[best] > search.total + search.tolerance:
            search.total, search.rows = float(totals[best]), [*chosen, int(rows[best])]
        return
    prices_here = np.maximum(prices, served)  # valid prices too, and better ones
    gains = np.maximum(search.values[rows] - prices_here, 0).sum(1)
    order = np.argsort(-gains, kind="stable")
    rows, gains = rows[order], gains[order]
    start = float(prices_here.sum())
    for index, row in enumerate(rows):
        if start + gains[index : index + num_left].sum() <= search.total + search.tolerance:
            return
        # The row itself stays among those it is tried with: a choice may hold fewer groups than it may.
        _branch(search, prices, np.maximum(served, search.values[row]), rows[index:], num_left - 1, [*chosen, int(row)])


def _all_groups(num_tasks: int, smallest: int) -> Members:
    """Return all groups of at least `smallest` members, the small ones first, then those with the first tasks."""
    codes = np.arange(2**num_tasks - 1, 0, -1)
    members = (codes[:, None] >> np.arange(num_tasks - 1, -1, -1) & 1).astype(bool)
    members = members[np.argsort(members.sum(1), kind="stable")]
    return members[members.sum(1) >= smallest]


# ------------------------------------------------------------------------------------------------------ the heuristic


def _start(values: Values, num_groups: int, tolerance: float, seconds: float) -> _Search:
    """Choose rows one by one, the best each time, exchanging earlier ones as long as that helps."""
    rows = [int(values.sum(1).argmax())]  # the group of all is among them, and others lack a task
    total = float(values[rows[0]].sum())
    for _ in range(1, num_groups):
        totals = np.maximum(values, values[rows].max(0)).sum(1)
        rows.append(int(totals.argmax()))
        total, is_better = float(totals.max()), True
        while is_better:
            is_better = False
            for place in range(len(rows)):
                rest = values[rows[:place] + rows[place + 1 :]].max(0)
                totals = np.maximum(values, rest).sum(1)
                if totals.max() > total + tolerance:
                    rows[place], total, is_better = int(totals.argmax()), float(totals.max()), True
    deadline = time.monotonic() + seconds
    return _Search(values=values, rows=rows, total=total, tolerance=tolerance, deadline=deadline)


def _grown_groups(others: Float[np.ndarray, "source target"]) -> Members:
    """Return the group of all, and from every task on groups that grow by the task that keeps the mean value highest.

    Args:
        others: The affinity without its diagonal.
    """
    num_tasks = len(others)
    mutual = others + others.T  # what a pair adds to the sum of affinities inside a group
    groups = [np.ones(num_tasks, dtype=bool)]
    for first in range(num_tasks):
        members = np.arange(num_tasks) == first
        for _ in range(num_tasks - 2):
            members = members.copy()
            members[np.where(members, -np.inf, mutual[members].sum(0)).argmax()] = True
            groups.append(members)
    return np.array(groups)


def _refine(chosen: Members, value: Callable[[Members], Values], tolerance: float) -> Members:
    """Put single tasks into groups and out of them as long as that helps, the best change first."""
    num_groups, num_tasks = chosen.shape
    flips = np.eye(num_tasks, dtype=bool)
    values = value(chosen)
    while True:
        best = values.max(0).sum() + tolerance
        change = None
        for group in range(num_groups):
            rest = np.delete(values, group, axis=0).max(0, initial=-np.inf)
            changed = value(chosen[group] ^ flips)
            totals = np.maximum(changed, rest).sum(1)
            if totals.max() > best:
                best, change = totals.max(), (group, int(totals.argmax()))
        if change is None:
            return chosen
        chosen = chosen.copy()
        chosen[change] ^= True
        values = value(chosen)


def _size_bound(affinity: Float[np.ndarray, "source target"], num_groups: int, alone: float | None) -> float:
    """Return a score that no choice exceeds, however many tasks there are.

    Each task is served by one group, hence T tasks fall into at most K parts. A part of n tasks is served by a group of
    n or more, and gives a task at most the mean of its n - 1 best partners. Sizes are tried by dynamic programming; to
    each size the tasks that gain most by it, above what a part of mean size gives them, are allotted.
    """
    num_tasks = len(affinity)
    partners = -np.sort(-np.where(np.eye(num_tasks, dtype=bool), -np.inf, affinity), axis=0)[:-1]
    means = np.cumsum(partners, axis=0) / np.arange(1, num_tasks)[:, None]
    single = np.maximum(means[0], -np.inf if alone is None else alone)
    most = np.stack([single, *means])  # row n - 1: in a part of n tasks
    base = most[-(-num_tasks // num_groups) - 1]
    allotted = np.array([0.0] + [np.sort(row - base)[num_tasks - size :].sum() for size, row in enumerate(most, 1)])
    best = np.where(np.arange(num_tasks + 1) == 0, 0.0, -np.inf)  # by the number of tasks in the parts so far
    for _ in range(num_groups):
        best = np.array([(best[: size + 1] + allotted[size::-1]).max() for size in range(num_tasks + 1)])
    return min(float(base.sum() + best[-1]), float(single.sum())) / num_tasks


# --------------------------------------------------------------------------------------------------------- the result


def _grouping(
    affinity: Float[np.ndarray, "source target"], chosen: Members, alone: float | None, bound: float, tolerance: float
) -> Grouping:
    """Sort the groups, leave out those that serve nobody, and say who serves whom."""
    groups = sorted({tuple(map(int, np.flatnonzero(group))) for group in chosen if group.any()})
    members = np.array([[task in group for task in range(len(affinity))] for group in groups])
    values = member_values(affinity, members, alone)
    best = values.max(0)
    for index in reversed(range(len(groups))):
        rest = np.delete(values, index, axis=0)
        if len(rest) and rest.max(0).sum() >= best.sum() - tolerance:
            del groups[index]
            values = rest
    best = values.max(0)
    score = float(best.mean())
    return Grouping(
        groups=tuple(groups),
        score=score,
        values=tuple(map(float, best)),
        served_by=tuple(map(int, values.argmax(0))),
        bound=max(bound, score),
        is_exact=bound <= score + tolerance,
    )


def _others(affinity: np.ndarray) -> np.ndarray:
    """Return the affinity with zeros in the diagonal."""
    return np.where(np.eye(len(affinity), dtype=bool), 0.0, affinity)


def _check(affinity: np.ndarray, num_groups: int, alone: float | None, seconds: float) -> None:
    num_tasks = len(affinity)
    if num_tasks == 0 or affinity.shape != (num_tasks, num_tasks):
        raise ValueError(f"affinity must be (task, task) of one or more tasks, got {affinity.shape}")
    if num_groups < 1:
        raise ValueError(f"num_groups must be at least 1, got {num_groups}")
    if alone is not None and not np.isfinite(alone):
        raise ValueError(f"alone must be finite or None, got {alone}")
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds}")
    bad = np.argwhere(~np.isfinite(_others(affinity)))
    if len(bad):
        pairs = ", ".join(f"{source} on {target}" for source, target in bad[:_MOST_NAMED])
        more = " and others" if len(bad) > _MOST_NAMED else ""
        raise ValueError(f"affinity must be finite off its diagonal; it is not from task {pairs}{more}")
