"""The landscape is the published one, and the methods end where they must."""

import math

import numpy as np
import pytest
import torch

from mtrl import landscape
from mtrl.aggregators import make, names
from mtrl.aggregators.base import Aggregator
from mtrl.landscape import STARTS, Method, losses_and_gradients, pareto_front, transform_first, walk
from tests.aggregators.doubles import LossShare, SignVote

NOMINAL = np.zeros(5, dtype=bool)
PREFERENCES = (" weights=(0.3, 0.7)", " weights=(0.7, 0.3)")
BALANCED = (0.0, -8.355)
GENERATOR = np.random.default_rng(0)


def published_losses(x: torch.Tensor) -> torch.Tensor:
    """Return both losses of one point as the published code writes them."""
    x1, x2 = x
    f1 = torch.clamp((0.5 * (-x1 - 7) - torch.tanh(-x2)).abs(), 5e-6).log() + 6
    f2 = torch.clamp((0.5 * (-x1 + 3) + torch.tanh(-x2) + 2).abs(), 5e-6).log() + 6
    c1 = torch.maximum(torch.tanh(x2 * 0.5), torch.zeros(()).double())
    f1_sq = ((-x1 + 7).pow(2) + 0.1 * (-x2 - 8).pow(2)) / 10 - 20
    f2_sq = ((-x1 - 7).pow(2) + 0.1 * (-x2 - 8).pow(2)) / 10 - 20
    c2 = torch.maximum(torch.tanh(-x2 * 0.5), torch.zeros(()).double())
    return torch.stack([f1 * c1 + f1_sq * c2, f2 * c1 + f2_sq * c2])


@pytest.mark.parametrize(
    "points", [GENERATOR.uniform(-10, 10, (50, 2)), STARTS, np.array([[2.0, 0.0]])], ids=["random", "starts", "border"]
)
def test_losses_and_gradients_are_those_of_the_published_code(points):
    losses, gradients = losses_and_gradients(points)
    for point, found, rows in zip(torch.from_numpy(points), losses, gradients, strict=True):
        assert found == pytest.approx(published_losses(point).numpy(), rel=1e-12, abs=1e-12)
        expected = torch.autograd.functional.jacobian(published_losses, point)
        assert rows == pytest.approx(expected.numpy(), rel=1e-10, abs=1e-12)


def test_losses_by_hand():
    # At (0, -8): q = 49 / 10 - 20 = -15.1 for both, times tanh(4) = 0.99933.
    losses, _ = losses_and_gradients(np.array([[0.0, -8.0]]))
    assert losses[0] == pytest.approx([-15.1 * math.tanh(4)] * 2, rel=1e-12)


def test_transform_is_increasing_and_differentiated():
    points = GENERATOR.uniform(-10, 10, (20, 2))
    losses, gradients = losses_and_gradients(points)
    is_transformed = np.arange(20) % 2 == 1
    found, rows = transform_first(losses, gradients, is_transformed)
    assert np.array_equal(found[::2], losses[::2])
    assert np.array_equal(rows[::2], gradients[::2])
    assert np.array_equal(found[:, 1], losses[:, 1])
    assert found[1::2, 0] == pytest.approx(np.sign(losses[1::2, 0]) * losses[1::2, 0] ** 4)
    step = 1e-6 * np.array([0.6, 0.8])
    ends = [transform_first(*losses_and_gradients(points + sign * step), is_transformed)[0] for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2 == pytest.approx(rows @ step, rel=1e-5, abs=1e-9)


def test_pareto_front_has_the_known_points():
    front = pareto_front(3)
    assert front == pytest.approx(np.array([[-7.0, -8.43], [0.0, -8.355], [7.0, -8.43]]), abs=5e-3)
    assert losses_and_gradients(front)[0][1:] == pytest.approx(np.array([[-15.09, -15.09], [-19.99, -0.40]]), abs=1e-2)


def draws_random_numbers(name: str) -> bool:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    make(name)(torch.eye(2).double(), torch.ones(2).double(), generator)
    return not torch.equal(before, generator.get_state())


@pytest.mark.parametrize("name", [name for name in names() if not draws_random_numbers(name)])
def test_walks_together_are_walks_alone(name):
    together = walk(Method(name, {}), STARTS, NOMINAL, num_steps=4, lr=0.1)
    alone = [walk(Method(name, {}), start[None], NOMINAL[:1], num_steps=4, lr=0.1) for start in STARTS]
    assert together == pytest.approx(np.concatenate(alone, axis=1), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("double", [SignVote, LossShare])
def test_methods_with_a_state_or_a_direction_walk_too(double, monkeypatch):
    # In turn each walk must have its own state: together as alone.
    monkeypatch.setattr(Method, "build", lambda self: set_up(double(double.Config())))
    together = walk(Method("double", {}), STARTS, NOMINAL, num_steps=3, lr=0.1)
    alone = [walk(Method("double", {}), start[None], NOMINAL[:1], num_steps=3, lr=0.1) for start in STARTS]
    assert together == pytest.approx(np.concatenate(alone, axis=1), rel=1e-9, abs=1e-9)
    assert not np.array_equal(together[-1], together[0])


def set_up(method: Aggregator) -> Aggregator:
    method.setup(2, [torch.Size([2])], torch.device("cpu"))
    return method


def test_walk_is_that_of_torch_adam():
    found = walk(Method("mean", {}), STARTS, NOMINAL, num_steps=30, lr=0.01)
    assert len(found) == 31
    for index, start in enumerate(STARTS):
        point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([point], lr=0.01)
        for _ in range(30):
            optimizer.zero_grad()
            published_losses(point).mean().backward()
            optimizer.step()
        assert found[-1, index] == pytest.approx(point.detach().numpy(), rel=1e-9)


# ---- where methods end; first shortened, then over the published 35,000 steps


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_aligned_goes_to_the_preferred_point_once_it_is_near_the_front(share):
    starts = np.array([[-6.0, -7.0], [5.0, -9.0]])
    method = Method("aligned", {"weights": (share, 1 - share), "rank_eps": landscape.PUBLISHED_RANK_EPS})
    end = walk(method, starts, NOMINAL[:2], num_steps=300, lr=8e-2)[-1]
    assert end[:, 0] == pytest.approx([7 * (2 * share - 1)] * 2, abs=0.1)


def test_dibs_takes_the_same_way_whatever_the_first_loss_is_measured_in():
    path = landscape.from_all_starts(Method("dibs", {}), num_steps=150)
    assert path[:, 0] == pytest.approx(path[:, 1], abs=1e-9)
    other = landscape.from_all_starts(Method("mean", {}), num_steps=150)
    assert np.abs(other[-1, 0] - other[-1, 1]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_aligned_reaches_the_preferred_optimum_from_all_starts(share):
    method = Method("aligned", {"weights": (share, 1 - share), "rank_eps": landscape.PUBLISHED_RANK_EPS})
    ends = walk(method, STARTS, NOMINAL)[-1]
    assert ends[:, 0] == pytest.approx([7 * (2 * share - 1)] * 5, abs=0.05)
    assert ends[:, 1] == pytest.approx([-8.36] * 5, abs=0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_aligned_with_the_finer_default_takes_longer_and_ends_at_the_balanced_optimum_itself():
    # After 35,000 steps the last of the five is still at x1 = 1.1.
    ends = walk(Method("aligned", {}), STARTS, NOMINAL, num_steps=60_000)[-1]
    assert ends == pytest.approx(np.tile(BALANCED, (5, 1)), abs=5e-3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dibs_ends_on_the_front_and_in_the_same_place_under_the_transform():
    nominal, transformed = landscape.from_all_starts(Method("dibs", {}))[-1]
    assert nominal == pytest.approx(transformed, abs=1e-2)
    # Final points of an independent implementation; the published code's differ by up to 0.2 along the front.
    assert nominal[:, 0] == pytest.approx([-2.41, 0.0, 2.50, -3.45, 4.98], abs=0.3)
    assert nominal[:, 1] == pytest.approx([-8.38] * 5, abs=0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mean_is_stuck_from_two_starts_and_dominated_under_the_transform():
    nominal, transformed = landscape.from_all_starts(Method("mean", {}))[-1]
    assert nominal == pytest.approx(np.array([[-5.0, 2.7], BALANCED, [5.0, 3.1], BALANCED, BALANCED]), abs=0.3)
    assert transformed[1:] == pytest.approx(np.array([[7.0, -8.43]] * 4), abs=0.3)
    # The first walk leaves its valley late or never, which hangs on rounding: it is not asserted.


# ---- the command line


def test_table_and_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "made" / "walks.png"
    assert landscape.main(["--methods", "mean", "--steps", "3", "--plot", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["method", "mean", "transformed", "drawn"]
    # Adam's first steps have length lr in each coordinate: 3 of them move by 0.003.
    assert "(-8.50, 7.50)" in lines[1]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_aligned_is_walked_with_preferences_too():
    labels = [str(method) for method in landscape._chosen(["aligned", "mean"])]
    assert labels[0] == "aligned"
    assert labels[1:4] == [f"aligned rank_eps=1.2e-07{weights}" for weights in ("", *PREFERENCES)]
    assert labels[4:] == ["mean"]


def test_unknown_method_is_refused_before_anything_is_walked(capsys):
    assert landscape.main(["--methods", "mean", "algned"]) == 2
    assert "'aligned'" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--plot", "walks.pdff"], ["--steps", "0"]])
def test_a_wrong_flag_is_refused_before_anything_is_walked(capsys, flags):
    with pytest.raises(SystemExit) as caught:
        landscape.main(["--methods", "mean", *flags])
    assert caught.value.code == 2
    assert flags[0] in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_matplotlib_is_said_before_anything_is_walked(capsys, monkeypatch):
    monkeypatch.setattr(landscape, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        landscape.main(["--methods", "mean"])
    assert caught.value.code == 2
    assert "extra 'plots'" in capsys.readouterr().err
