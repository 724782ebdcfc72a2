"""IT-MTL: at every step, combine those task gradients that together lower the losses most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mtrl.aggregators import REGISTRY, make
from mtrl.aggregators.base import Aggregator, Need, WeightedAggregator, check_task_weights
from mtrl.aggregators.system import Aggregation, GradientSystem
from mtrl.registry import check_name

Evaluation = Literal["first_order", "lookahead"]
Candidates = Literal["subsets", "leave_one_out"]
Displacement = Literal["gradient", "optimizer"]

# Candidates are forward passes of all tasks in a lookahead: 15 subsets of four tasks, 1023 of ten.
_FEW_TASKS, _MOST_TASKS = 4, 10


class ITMTL(WeightedAggregator):
    """Combine the subset of task gradients that has the greatest total transference (IT-MTL).

    A candidate direction d, such as sum_{i in S} g_i / T for a subset S of the tasks, is worth

        sum_j w_j (L_j(theta) - L_j(theta - step_size d)) / (|L_j(theta)| + loss_eps)

    with the batch, targets and noise of the losses frozen. To first order in the step this is linear in the Gramian G
    and the best of all subsets is S = {i : q_i > 0} with q = G (w / (|L| + loss_eps)): no search, no evaluation. Where
    no subset helps, at stationary points, the direction is zero then. `lookahead` evaluates the losses for every
    candidate instead, which sees curvature and costs one forward pass each.

    Source: Fifty, Amid, Zhao, Yu, Anil, Finn, "Measuring and Harnessing Transference in Multi-Task Learning", 2020,
    sections 3 and 4; the first-order form is ours. Differs from the paper in the denominator, |L_j| instead of L_j, for
    losses that may be negative, such as an actor's; and in the private parameters, which stay where they are during
    the lookahead. The point judged is a plain gradient step away, or (`displacement=optimizer`) where the training's
    own optimiser would go from its present moments.

    Cost: first order T^2; `lookahead` a forward pass of all tasks per candidate: 2^T - 1 subsets up to four tasks, 2 T
    + 1 beyond.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """IT-MTL (Fifty et al. 2020): the subset of gradients that lowers the losses most, chosen at every step."""

        evaluation: Evaluation = "first_order"
        """How candidates are judged: by the inner products of the gradients, or by evaluating the losses ahead."""
        candidates: Candidates | None = None
        """All subsets, or all tasks, all but one, and single ones. By default all subsets where they cost nothing (to
        first order) or are few (up to four tasks)."""
        combined: tuple[str, ...] = ()
        """Methods whose directions compete too, such as pcgrad; they must be decided by the Gramian. Each competes
        at the length it has, and to first order a longer direction lowers the losses more: scaling a method's
        direction, which an optimiser may never notice, changes whether it is chosen."""
        displacement: Displacement = "gradient"
        """Lookahead: judge the point `step_size` along a direction, or the one the optimiser would go to with it."""
        step_size: float = 0.01
        """Lookahead by the gradient: distance to the point judged, in lengths of the direction. In float32 a loss shows
        changes above 1e-7 of itself."""
        loss_eps: float = 1e-8
        """Added to the loss that a change is relative to."""
        weights: tuple[float, ...] | None = None
        """Weight of each task's change in the judgement; by default 1/T each."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            check_task_weights(self.weights)
            for name in ("step_size", "loss_eps"):
                if not 0 < getattr(self, name) < float("inf"):
                    raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")

    members: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config
        self.need = Need.LOOKAHEAD if config.evaluation == "lookahead" else Need.GRAMIAN
        self.combined = nn.ModuleList([_competitor(name) for name in config.combined])

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Place the task weights and the subsets on the device."""
        super().setup(num_tasks, shapes, device)
        members = torch.zeros(0, num_tasks) if self._finds_the_best_subset() else self._subsets(num_tasks)
        self.register_buffer("members", members.to(device, torch.float64), persistent=False)
        for method in self._competitors():
            method.setup(num_tasks, shapes, device)

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weights of the best candidate."""
        assert system.gramian is not None, "the need of this method covers the Gramian"
        if system.losses is None:
            raise ValueError("losses must be given: this method judges by relative changes of the losses")
        losses = system.losses.double()
        values = self.task_weights / (losses.abs() + self.config.loss_eps)
        gains = system.gramian @ values
        members = helpful(system.gramian, values)[None] if self._finds_the_best_subset() else self.members
        others = [method.aggregate(system).weights for method in self._competitors()]
        candidates = torch.stack([*members / system.num_tasks, *[w for w in others if w is not None]])
        if self.config.evaluation == "first_order":
            scores = candidates @ gains
        else:
            ahead = self._losses_ahead(system, candidates).double()
            scores = ((losses - ahead) @ values.diag()).sum(1).nan_to_num(-torch.inf)
        best = scores.argmax(0, keepdim=True)
        return Aggregation(candidates.index_select(0, best)[0])

    def _losses_ahead(
        self, system: GradientSystem, candidates: Float[Tensor, "candidate task"]
    ) -> Float[Tensor, "candidate task"]:
        """Return the losses where each candidate leads."""
        if self.config.displacement == "gradient" and system.losses_ahead is not None:
            return system.losses_ahead(self.config.step_size * candidates)
        if self.config.displacement == "optimizer" and system.losses_after_step is not None:
            return system.losses_after_step(candidates)
        raise ValueError(
            f"evaluation='lookahead' with displacement={self.config.displacement!r} needs the losses at other "
            "parameters, which cannot be had here"
        )

    def _finds_the_best_subset(self) -> bool:
        return self.config.evaluation == "first_order" and self.config.candidates != "leave_one_out"

    def _subsets(self, num_tasks: int) -> Float[Tensor, "candidate task"]:
        """Return the members of each candidate subset as ones, all tasks first."""
        chosen = self.config.candidates or ("subsets" if num_tasks <= _FEW_TASKS else "leave_one_out")
        if chosen == "leave_one_out":
            every = torch.ones(1, num_tasks)
            single = torch.eye(num_tasks)
            return torch.cat([every, single, 1 - single][: min(num_tasks, 3)])
        if num_tasks > _MOST_TASKS:
            raise ValueError(
                f"candidates='subsets' means 2^{num_tasks} - 1 evaluations of {num_tasks} tasks; expected at most "
                f"{_MOST_TASKS} tasks, or candidates='leave_one_out', or evaluation='first_order'"
            )
        numbers = torch.arange(2**num_tasks - 1, 0, -1)
        return (numbers[:, None] >> torch.arange(num_tasks) & 1).float()

    def _competitors(self) -> list[Aggregator]:
        return [method for method in self.combined if isinstance(method, Aggregator)]


def helpful(gramian: Float[Tensor, "task task"], values: Float[Tensor, " task"]) -> Float[Tensor, " task"]:
    """Return 1 for the tasks whose gradient lowers sum_j values[j] L_j to first order, else 0.

    Of all subsets of the gradients, their sum lowers it most. What is lost in rounding does not count as help.
    """
    rounding = len(values) * torch.finfo(gramian.dtype).eps * (gramian.abs() @ values)
    is_helpful: Bool[Tensor, " task"] = gramian @ values > rounding
    return is_helpful.to(gramian.dtype)


def _competitor(name: str) -> Aggregator:
    """Build a method that competes with the subsets; one of the package's, as the name may stand in a file."""
    check_name(REGISTRY, "aggregator", name)
    method = make(name)
    if method.need not in (Need.LOSSES, Need.GRAMIAN) or method.observes or isinstance(method, ITMTL):
        raise ValueError(f"combined must name methods that are decided by the Gramian, got {name!r}")
    return method
