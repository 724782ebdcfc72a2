"""A method the package does not know works everywhere: called on a Jacobian, in the engine, and in `mtrl.backward`."""

import torch
from torch import Tensor

import mtrl
from mtrl.gradients import Update, aggregate, task_gradients
from mtrl.timing import Stopwatch
from tests.aggregators.doubles import LossShare, SignVote


def sign_vote(**options):
    return SignVote(SignVote.Config(**options))


def loss_share(**options):
    return LossShare(LossShare.Config(**options))


def grad_of(parameter: Tensor) -> Tensor:
    """Return the gradient, which must be there."""
    assert parameter.grad is not None
    return parameter.grad


def weights_of(update: Update) -> Tensor:
    """Return the weights, which must be there."""
    assert update.weights is not None
    return update.weights


def quadratic(shared, private, frozen):
    """Return |slope * shared - frozen|^2 of one task."""
    error = private["slope"] * shared["position"] - frozen
    return error.square().sum(), {"error": error.norm()}


SHARED = {"position": torch.tensor([1.0, -1.0])}
PRIVATE = {"slope": torch.tensor([1.0, 2.0, 3.0])}
GOALS = torch.tensor([[0.0, 0.0], [3.0, 5.0], [4.0, -9.0]])
# Gradients 2 slope (slope position - goal): 2 (1, -1) = (2, -2); 4 (-1, -7) = (-4, -28); 6 (-1, 6) = (-6, 36).
# Signs (+, -), (-, -), (-, +): the vote is (-, -).


def run(aggregator):
    aggregator.setup(3, [torch.Size([2])], torch.device("cpu"))
    return aggregate(quadratic, SHARED, PRIVATE, GOALS, aggregator, torch.Generator(), Stopwatch())


def test_rows_method_on_a_jacobian():
    jacobian = torch.tensor([[2.0, -2.0], [-4.0, -28.0], [-6.0, 36.0]])
    assert torch.equal(sign_vote(length=0.5)(jacobian), torch.tensor([-0.5, -0.5]))


def test_rows_method_in_the_engine():
    update = run(sign_vote())
    assert torch.equal(update.shared["position"], torch.tensor([-1.0, -1.0]))
    assert update.weights is None
    gradients = task_gradients(quadratic, SHARED, PRIVATE, GOALS)
    assert torch.equal(update.private["slope"], gradients.private["slope"])
    assert torch.equal(update.losses, gradients.losses)
    assert not update.nonfinite.any()


def test_rows_method_in_backward():
    position = SHARED["position"].clone().requires_grad_()
    slopes = [slope.clone().requires_grad_() for slope in PRIVATE["slope"]]
    losses = [(slope * position - goal).square().sum() for slope, goal in zip(slopes, GOALS, strict=True)]
    mtrl.backward(losses, shared=[position], private=slopes, aggregator=sign_vote())
    assert torch.equal(grad_of(position), torch.tensor([-1.0, -1.0]))
    expected = task_gradients(quadratic, SHARED, PRIVATE, GOALS).private["slope"]
    assert torch.allclose(torch.stack([grad_of(slope) for slope in slopes]), expected)


# Losses: 1 + 1 = 2; 1 + 49 = 50; 1 + 36 = 37. Averages (1 + 2) / 2 = 1.5; 25.5; 19: sum 46.
SHARES = torch.tensor([1.5, 25.5, 19.0]) / 46


def test_losses_method_on_a_jacobian():
    jacobian = torch.tensor([[2.0, -2.0], [-4.0, -28.0], [-6.0, 36.0]])
    found = loss_share()(jacobian, losses=torch.tensor([2.0, 50.0, 37.0]))
    assert torch.allclose(found, SHARES @ jacobian)


def test_losses_method_in_the_engine():
    update = run(loss_share())
    assert torch.allclose(weights_of(update), SHARES.double())
    assert torch.allclose(update.shared["position"], SHARES @ torch.tensor([[2.0, -2.0], [-4.0, -28.0], [-6.0, 36.0]]))


def test_losses_method_in_backward():
    position = SHARED["position"].clone().requires_grad_()
    losses = [(slope * position - goal).square().sum() for slope, goal in zip(PRIVATE["slope"], GOALS, strict=True)]
    mtrl.backward(losses, shared=[position], aggregator=loss_share())
    assert torch.allclose(grad_of(position), SHARES @ torch.tensor([[2.0, -2.0], [-4.0, -28.0], [-6.0, 36.0]]))


def test_state_of_a_method_travels_in_its_state_dict():
    used = loss_share()
    run(used)
    used.observe(torch.tensor([1.0, 2.0, 5.0]))
    fresh = loss_share()
    fresh.setup(3, [torch.Size([2])], torch.device("cpu"))
    fresh.load_state_dict(used.state_dict(), strict=True)
    assert torch.equal(fresh.average, torch.tensor([1.0, 2.0, 5.0]).double())
    update = aggregate(quadratic, SHARED, PRIVATE, GOALS, fresh, torch.Generator(), Stopwatch())
    # (1 + 2) / 2 = 1.5; (2 + 50) / 2 = 26; (5 + 37) / 2 = 21: sum 48.5.
    assert torch.allclose(weights_of(update), torch.tensor([1.5, 26.0, 21.0]).double() / 48.5)
