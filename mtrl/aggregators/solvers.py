"""Small convex problems between T tasks, solved to the last digits, on the CPU.

Every loop ends when it has settled; its greatest length is enough for fifty tasks and twelve decades between the
lengths of their gradients. Where a problem is to find which of its variables are positive, that is guessed first: most
often a few linear systems are all it takes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mtrl.aggregators.host import on_host

# Gradients shorter than this count as zero: their weights may not fit into float32, the dtype of the rows.
_SHORTEST = 1e-18
# Eigenvalues of a cosine matrix below this times the largest count as zero: angles of 1e-6, ten times float32's.
_RANK_EPS = 1e-12
_GUESSES = 20  # of what is positive; 1 to 9 suffice, or it may never end
_GUESSED_RESIDUAL = 1e-13  # of the conditions of a minimum, relative to its largest variable
_QUADRATIC_STEPS = 35  # 20 reach the last digit; where a bound holds without pressing, each step halves the error
_SETTLED_GAP = 1e-26  # product of a variable and its slack, so 1e-13 in each where neither presses
_HALVINGS = 20  # of a Newton step; the bend of the CAGrad objective needs most


class UnitSystem(NamedTuple):
    """The Gramian taken apart into angles and lengths, so that no problem sees the scale of a gradient twice."""

    cosines: Float[Tensor, "task task"]
    """Diagonal 1; a zero gradient is orthogonal to all others."""
    norms: Float[Tensor, " task"]
    """Lengths of the gradients; 1 for a zero gradient, to be divided by."""
    is_nonzero: Bool[Tensor, " task"]


def unit_system(gramian: Float[Tensor, "task task"]) -> UnitSystem:
    """Take the Gramian of the task gradients apart into angles and lengths."""
    norms = gramian.diagonal().clamp(min=0).sqrt()
    is_nonzero = norms > _SHORTEST
    norms = torch.where(is_nonzero, norms, 1.0)
    cosines = gramian / norms[:, None] / norms[None, :]
    cosines = torch.where(is_nonzero[:, None] & is_nonzero[None, :], cosines, 0.0).clamp(-1, 1)
    return UnitSystem(cosines.fill_diagonal_(1.0), norms, is_nonzero)


@on_host
def solve_cosines(cosines: Float[Tensor, "task task"], right: Float[Tensor, " task"]) -> Float[Tensor, " task"]:
    """Return the shortest least-squares solution x of cosines x = right."""
    eigenvalues, V = torch.linalg.eigh(cosines)
    keep = eigenvalues > eigenvalues[-1] * _RANK_EPS
    return V @ (torch.where(keep, 1 / torch.where(keep, eigenvalues, 1.0), 0.0) * (V.T @ right))


@on_host
def nearest_point(gramian: Float[Tensor, "task task"], is_vertex: Bool[Tensor, " task"]) -> Float[Tensor, " task"]:
    """Return the weights, summing to 1, of the shortest vector in the convex hull of some gradients.

    With y_i = w_i n_i and b_i = min(n) / n_i the problem is min ||sum_i y_i u_i||^2 + (b^T y - 1)^2 over y >= 0,
    bounded also where the hull contains zero, and well conditioned however different the lengths n are.

    Args:
        gramian: Inner products of all gradients.
        is_vertex: Those that span the hull; the others get weight 0. If none does, all weights are 0.
    """
    norms = gramian.diagonal().clamp(min=0).sqrt()
    norms = torch.where(is_vertex, norms.clamp(min=_SHORTEST), torch.inf)
    cosines = (gramian / norms[:, None] / norms[None, :]).clamp(-1, 1).fill_diagonal_(1.0)
    inverse = torch.where(is_vertex, norms.amin() / norms, 0.0)
    # The slope 1 keeps the variables of those that are no vertices at 0.
    lengths = minimize_quadratic(cosines + torch.outer(inverse, inverse), torch.where(is_vertex, -inverse, 1.0))
    weights = lengths * inverse
    total = weights.sum()
    return weights / torch.where(total > 0, total, 1.0)


def minimize_quadratic(
    Q: Float[Tensor, "task task"], slope: Float[Tensor, "*batch task"]
) -> Float[Tensor, "*batch task"]:
    """Minimise x^T Q x / 2 + slope^T x over x >= 0, for several slopes at once.

    Args:
        Q: Symmetric, positive semidefinite, entries about 1.
        slope: Entries about 1; the minimum must exist.
    """
    identity = torch.eye(len(Q), dtype=Q.dtype, device=Q.device)

    def solve(is_positive: Tensor) -> tuple[Tensor, Tensor]:
        both = is_positive[..., None] & is_positive[..., None, :]
        factor, _ = torch.linalg.cholesky_ex(torch.where(both, Q, identity))
        x = torch.cholesky_solve(torch.where(is_positive, -slope, 0.0)[..., None], factor)[..., 0]
        return x, x @ Q + slope

    x, is_found = guess_positive(solve, slope < 0)
    if not is_found.all():
        x[~is_found] = interior_point(Q, slope[~is_found])
    return x


def guess_positive(
    solve: Callable[[Bool[Tensor, "*batch task"]], tuple[Tensor, Tensor]], is_positive: Bool[Tensor, "*batch task"]
) -> tuple[Float[Tensor, "*batch task"], Bool[Tensor, "*batch"]]:
    """Find the x >= 0 with slope z >= 0 and x z = 0 by guessing where x is positive and correcting the guess.

    A coordinate whose x comes out negative is taken to be zero next, one whose slope comes out negative to be positive.
    Where nothing is left to correct, x is the minimum.

    Args:
        solve: From where x is positive to x, with zeros elsewhere, and z, up to rounding with zeros there.
        is_positive: The first guess.

    Returns:
        x, and which problems of the batch are solved.

    Source: Hintermueller, Ito, Kunisch, "The Primal-Dual Active Set Strategy as a Semismooth Newton Method", SIAM J.
    Optimization 2002, algorithm 1.
    """
    x, z = solve(is_positive)
    for _ in range(_GUESSES):
        is_wrong = torch.where(is_positive, x, z) < -_rounding(x)
        if not is_wrong.any():
            break
        is_positive = is_positive ^ is_wrong
        x, z = solve(is_positive)
    # Not so where the guesses ran out or a linear system had no solution, which may show as NaN.
    is_right = torch.where(is_positive, x, z) >= -_rounding(x)
    is_solved = torch.where(is_positive, z, x).abs() <= _rounding(x)
    return x.clamp(min=0), (is_right & is_solved).all(-1)


def _rounding(x: Tensor) -> Tensor:
    """Return (..., 1) below what x and its slope count as zero."""
    return _GUESSED_RESIDUAL * x.abs().amax(-1, keepdim=True).clamp(min=1)


def interior_point(Q: Float[Tensor, "task task"], slope: Float[Tensor, "*batch task"]) -> Float[Tensor, "*batch task"]:
    """Do what `minimize_quadratic` does, whatever the rank of Q.

    Source: Mehrotra, "On the Implementation of a Primal-Dual Interior Point Method", SIAM J. Optimization 1992.
    """
    x, slack = torch.ones_like(slope), torch.ones_like(slope)
    for _ in range(_QUADRATIC_STEPS):
        gap = (x * slack).mean(-1, keepdim=True)
        if (gap <= _SETTLED_GAP).all():
            break
        residual = x @ Q + slope - slack
        factor, failed = torch.linalg.cholesky_ex(Q + torch.diag_embed(slack / x))
        running = (gap > _SETTLED_GAP) & (failed == 0)[..., None]
        # Predictor: straight to the solution. Corrector: as much towards the centre as the predictor fell short.
        step_x, step_slack = _quadratic_step(factor, x, slack, residual, -x * slack)
        length = torch.minimum(_to_border(x, step_x), _to_border(slack, step_slack)).clamp(max=1)
        reached = ((x + length * step_x) * (slack + length * step_slack)).mean(-1, keepdim=True)
        centre = (reached / gap) ** 3 * gap
        step_x, step_slack = _quadratic_step(factor, x, slack, residual, centre - x * slack - step_x * step_slack)
        length = torch.minimum(_to_border(x, step_x), _to_border(slack, step_slack))
        length = torch.where(running, (0.995 * length).clamp(max=1), 0.0)
        x, slack = _move(x, step_x, length), _move(slack, step_slack, length)
    return x


def _quadratic_step(
    factor: Tensor, x: Tensor, slack: Tensor, residual: Tensor, complement: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve the linearised optimality conditions: Q dx - dslack = -residual, slack dx + x dslack = complement."""
    step_x = torch.cholesky_solve((complement / x - residual)[..., None], factor)[..., 0]
    return step_x, (complement - slack * step_x) / x


def _to_border(position: Tensor, step: Tensor) -> Tensor:
    """Return (..., 1) how many steps away the first coordinate reaches zero."""
    return torch.where(step < 0, -position / step, torch.inf).amin(-1, keepdim=True)


def _move(position: Tensor, step: Tensor, length: Tensor) -> Tensor:
    """Move, and stay inside; a step of length 0 may hold anything."""
    return torch.where(length > 0, position + length * step, position).clamp(min=1e-60)


def newton_step(
    y: Float[Tensor, " task"],
    gradient: Callable[[Float[Tensor, "*batch task"]], Float[Tensor, "*batch task"]],
    hessian: Float[Tensor, "task task"],
) -> tuple[Float[Tensor, " task"], Float[Tensor, ""]]:
    """Make one damped Newton step of a convex function of y > 0 that rises to infinity, or steeply, at the border.

    The step is the longest of 20 halvings after which the slope along it has fallen by half, or still points on. All
    are tried at once. Slopes, unlike values, still tell steps apart in the last digits.

    Returns:
        The new point, and the squared Newton decrement before the step: twice what a quadratic would still fall by.
    """
    slope = gradient(y)
    factor, failed = torch.linalg.cholesky_ex(hessian)
    step = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
    decrement = -(slope * step).sum()
    is_descent = (failed == 0) & step.isfinite().all() & (decrement > 0)
    step = torch.where(is_descent, step, 0.0)
    longest = (0.95 * _to_border(y, step)).clamp(max=1)
    lengths = longest * 0.5 ** torch.arange(_HALVINGS, dtype=y.dtype, device=y.device)
    slopes = (gradient(y + lengths[:, None] * step) * step).sum(1)
    chosen = (slopes <= 0.5 * decrement).to(torch.uint8).argmax(0, keepdim=True)
    return y + lengths.gather(0, chosen) * step, torch.where(is_descent, decrement, 0.0)


def clip_weights(
    weights: Float[Tensor, " task"], gramian: Float[Tensor, "task task"], max_norm: float | None
) -> Float[Tensor, " task"]:
    """Scale the weights down so that the direction is not longer than `max_norm`; None: leave them."""
    if max_norm is None:
        return weights
    norm = (weights @ gramian @ weights).clamp(min=0).sqrt()
    return weights * (max_norm / norm.clamp(min=max_norm))
