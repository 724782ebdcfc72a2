"""`mtrl.backward`: aggregation for any torch model and losses, as `loss.backward()` for several losses at once."""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Need, all_finite, apply
from mtrl.aggregators.system import GradientSystem, LossesAhead, Rows, combine, gramian


def backward(
    losses: Sequence[Tensor] | Tensor,
    *,
    shared: Iterable[Tensor],
    private: Iterable[Tensor] = (),
    representation: Iterable[Tensor] = (),
    aggregator: Aggregator,
    generator: torch.Generator | None = None,
    evaluate: Callable[[], Sequence[Tensor]] | None = None,
) -> None:
    """Accumulate into `.grad` what `aggregator` makes of the task gradients: `loss.backward()` for several losses.

        losses = [criterion(head(trunk(x)), y) for head, y in zip(heads, targets)]
        backward(losses, shared=trunk.parameters(), private=heads.parameters(), aggregator=make("aligned"))
        optimizer.step()

    Where a loss, a private gradient or a gradient that the method looks at is not finite, the shared parameters receive
    NaN and the method's state stays as it was, so a check of the gradients, such as that of `torch.amp.GradScaler`,
    throws the step away as usual. Methods whose direction does not follow the scale of the losses (`nash`, `dibs`,
    `fairgrad`) want losses without a scaler's factor: it would be divided out of a direction that never had it.

    To go on from a method's `state_dict`, call its `setup` as for the losses to come, then `load_state_dict`.

    Args:
        losses: One scalar per task, from one graph of any torch model.
        shared: Parameters all tasks use: they receive the aggregated direction. Those that are frozen, here and among
            the private ones, are left out.
        private: Parameters of which each serves one task: they receive that task's own gradient, without a weight;
            where a published method weights whole losses, its heads follow weighted gradients.
        representation: What the encoder, whose parameters are `shared`, hands to the heads, for methods that look at
            its gradients.
        aggregator: Any method of `mtrl.aggregators`.
        generator: Source of the aggregator's randomness; by default the aggregator's own.
        evaluate: Computes the losses again, on the same batch, at the values that the shared parameters have when it
            is called. For methods that look ahead; those parameters are moved for it and put back.

    Raises:
        ValueError: A loss is not a scalar, there are no losses or no shared parameters that train, a parameter is both
            shared and private, or the method needs a representation, or to look ahead, and cannot.
    """
    losses, representation = list(losses), list(representation)
    shared, private = ([leaf for leaf in leaves if leaf.requires_grad] for leaves in (shared, private))
    _check_backward_arguments(losses, shared, private)
    seen = representation if aggregator.need == Need.REPRESENTATION else shared
    if not seen:
        raise ValueError("representation is empty: this method looks at the gradients of the encoder's output")
    if aggregator.need == Need.LOSSES:
        rows: Rows = ()
    else:
        gradients = [torch.autograd.grad(loss, seen, retain_graph=True, materialize_grads=True) for loss in losses]
        rows = tuple(torch.stack(leaf) for leaf in zip(*gradients, strict=True))
    aggregator.setup_once(len(losses), [leaf.shape for leaf in shared], shared[0].device)
    values = torch.stack(losses)
    # Before a method may look ahead, which moves the parameters that the graph refers to.
    own = torch.autograd.grad(values.sum(), private, retain_graph=True, materialize_grads=True) if private else ()
    _accumulate(private, own)
    products = gramian(rows) if aggregator.need.has_gramian else None
    seen = [values, *own, *(rows if products is None else [products.diagonal()])]
    aggregator.was_thrown_away = not all_finite(seen)
    if aggregator.was_thrown_away:
        _accumulate(shared, [torch.full_like(leaf, torch.nan) for leaf in shared])
        return
    aggregation = aggregator.aggregate(
        GradientSystem(
            num_tasks=len(losses),
            losses=values.detach(),
            gramian=products,
            rows=rows if aggregator.need == Need.ROWS else None,
            generator=generator or aggregator.own_generator(shared[0].device),
            losses_ahead=_look_ahead_in_place(evaluate, shared, rows) if evaluate is not None and rows else None,
        )
    )
    if aggregator.need == Need.REPRESENTATION:
        cotangents = apply(aggregation, rows)
        _accumulate(shared, torch.autograd.grad(representation, shared, cotangents, materialize_grads=True))
    elif rows:
        _accumulate(shared, apply(aggregation, rows))
    else:
        assert aggregation.weights is not None, "a method that sees only losses returns weights"
        weighted = (values * aggregation.weights.to(values.dtype)).sum()
        _accumulate(shared, torch.autograd.grad(weighted, shared, materialize_grads=True))


def _look_ahead_in_place(evaluate: Callable[[], Sequence[Tensor]], shared: Sequence[Tensor], rows: Rows) -> LossesAhead:
    """Do what `look_ahead` does, for losses that are no function of the parameters but read them."""

    @torch.no_grad()
    def losses_ahead(steps: Float[Tensor, "candidate task"]) -> Float[Tensor, "candidate task"]:
        before = [parameter.clone() for parameter in shared]
        losses = []
        try:
            for step in steps:
                for parameter, start, move in zip(shared, before, combine(rows, step), strict=True):
                    parameter.copy_(start - move)
                losses.append(torch.stack(list(evaluate())))
        finally:
            for parameter, start in zip(shared, before, strict=True):
                parameter.copy_(start)
        return torch.stack(losses)

    return losses_ahead


def _accumulate(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Add to `.grad`, as torch's own backward does."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            # In the parameter's memory order, on which fused optimisers rely.
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad += gradient


def _check_backward_arguments(losses: list[Tensor], shared: list[Tensor], private: list[Tensor]) -> None:
    """Raise a ValueError for what a caller can get wrong."""
    if not losses:
        raise ValueError("losses is empty: expected one scalar loss per task")
    for index, loss in enumerate(losses):
        if loss.dim() != 0:
            raise ValueError(f"losses[{index}] must be a scalar, got shape {tuple(loss.shape)}")
    if not shared:
        raise ValueError("shared holds no parameter that trains: expected those all tasks use")
    both = {id(parameter) for parameter in shared} & {id(parameter) for parameter in private}
    if both:
        raise ValueError(f"{len(both)} parameters are both shared and private; each must be one or the other")
