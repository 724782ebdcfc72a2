"""IT-MTL: values by hand, the closed form against a search over all subsets, and lookaheads on frozen losses."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mtrl
from mtrl import cli
from mtrl.agents.flat import flatten
from mtrl.aggregators import make
from mtrl.aggregators.it_mtl import ITMTL, helpful
from mtrl.aggregators.system import GradientSystem, gramian
from mtrl.gradients import aggregate, losses_at, task_gradients
from mtrl.timing import Stopwatch
from tests.agents.small_agent import batch_for, build, parameters
from tests.aggregators.jacobians import gaussian
from tests.aggregators.vectors import DATA, assert_close, read

profile = settings(max_examples=40, derandomize=True, deadline=None, database=None)


def it_mtl(**options):
    return make("it_mtl", **options)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------- values by hand

CONFLICT = torch.tensor([[1.0, 0.0], [-3.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        # G = [[1, -3], [-3, 10]], w = 1/2 each.
        ((1.0, 1.0), [1]),  # q = G (0.5, 0.5) = (-1, 3.5)
        ((1.0, 100.0), [0]),  # q = G (0.5, 0.005) = (0.485, -1.45)
        ((1.0, 3.2), [0, 1]),  # q = G (0.5, 0.15625) = (0.03, 0.06)
        ((-1.0, 100.0), [0]),  # a negative loss counts by its size
        ((-1.0, -1.0), [1]),
    ],
)
def test_choice_of_two(losses, kept):
    expected = CONFLICT[kept].sum(0) / 2
    assert torch.allclose(it_mtl()(CONFLICT, losses=doubles(*losses)), expected, rtol=1e-14)


def test_task_weights_enter_the_judgement_and_not_the_sum():
    # As losses (1, 100) above: values w / L = (0.5, 0.005).
    chosen = it_mtl(weights=(0.5, 0.005))(CONFLICT, losses=doubles(1.0, 1.0))
    assert torch.allclose(chosen, CONFLICT[0] / 2, rtol=1e-14)


def test_task_whose_loss_is_zero_counts_most_and_finitely():
    chosen = it_mtl(loss_eps=1.0)(CONFLICT, losses=doubles(0.0, 99.0))  # values (0.5, 0.005)
    assert torch.allclose(chosen, CONFLICT[0] / 2, rtol=1e-14)
    assert it_mtl()(CONFLICT, losses=doubles(0.0, 0.0)).isfinite().all()


def test_combined_direction_competes():
    # G = [[1, -0.5], [-0.5, 1.25]], q = (0.25, 0.375): both tasks, score (0.25 + 0.375) / 2. PCGrad: g1 + 0.4 g2 and
    # g2 + 0.5 g1, mean coefficients (0.75, 0.7), score 0.1875 + 0.2625 = 0.45 > 0.3125.
    jacobian = torch.tensor([[1.0, 0.0], [-0.5, 1.0]], dtype=torch.float64)
    losses = doubles(1.0, 1.0)
    assert torch.allclose(it_mtl()(jacobian, losses), jacobian.mean(0), rtol=1e-14)
    assert torch.allclose(it_mtl(combined=("pcgrad",))(jacobian, losses), doubles(0.75, 0.7) @ jacobian, rtol=1e-14)


def test_combined_direction_loses_where_a_subset_is_better():
    # PCGrad: g1 + 0.3 g2 and g2 + 3 g1, mean (2, 0.65): score -2 + 0.65 * 3.5 = 0.275 < 3.5 / 2.
    assert torch.equal(it_mtl(combined=("pcgrad",))(CONFLICT, losses=doubles(1.0, 1.0)), CONFLICT[1] / 2)


# ------------------------------------------------------------------------------------------- first order, properties


@profile
@given(num_tasks=st.integers(1, 8), seed=st.integers(0, 999), decades=st.floats(0, 3))
def test_closed_form_is_the_best_of_all_subsets(num_tasks, seed, decades):
    generator = torch.Generator().manual_seed(seed)
    jacobian = gaussian(num_tasks, 6, seed)
    values = 10 ** (decades * torch.randn(num_tasks, generator=generator, dtype=torch.float64))
    gains = jacobian @ (values @ jacobian)
    subsets = torch.tensor(list(itertools.product((0.0, 1.0), repeat=num_tasks)), dtype=torch.float64)
    best = subsets[(subsets @ gains).argmax()]
    assert torch.equal(helpful(gramian((jacobian,)), values), best)


@profile
@given(num_tasks=st.sampled_from([3, 5, 10]), seed=st.integers(0, 999))
def test_leave_one_out_is_the_best_of_its_candidates(num_tasks, seed):
    jacobian = gaussian(num_tasks, 4, seed)
    losses = torch.rand(num_tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    gains = jacobian @ (jacobian.T @ (1 / losses.abs()))
    every = set(range(num_tasks))
    subsets = [every, *[{task} for task in every], *[every - {task} for task in every]]
    best = max(subsets, key=lambda subset: float(gains[list(subset)].sum()))
    found = it_mtl(candidates="leave_one_out")(jacobian, losses)
    assert_close(found, jacobian[sorted(best)].sum(0) / num_tasks, rtol=1e-9, atol=0.0)


@profile
@given(seed=st.integers(0, 999), exponents=st.lists(st.floats(-4, 4), min_size=5, max_size=5))
def test_choice_does_not_depend_on_what_a_loss_is_measured_in(seed, exponents):
    jacobian, losses = gaussian(5, 4, seed), doubles(0.5, -2.0, 1.0, 3.0, -0.7)
    factors = 10 ** torch.tensor(exponents, dtype=torch.float64)

    def chosen(rows: Tensor, values: Tensor) -> Tensor:
        system = GradientSystem(num_tasks=5, losses=values, gramian=gramian((rows,)))
        method = it_mtl(loss_eps=1e-30)
        method.setup(5, [torch.Size([4])], torch.device("cpu"))
        weights = method.aggregate(system).weights
        assert weights is not None
        return weights

    assert torch.equal(chosen(factors[:, None] * jacobian, factors * losses), chosen(jacobian, losses))


@profile
@given(num_tasks=st.sampled_from([2, 4, 20]), seed=st.integers(0, 999))
def test_direction_descends_the_sum_of_relative_losses_of_either_sign(num_tasks, seed):
    jacobian = gaussian(num_tasks, 3, seed)
    losses = gaussian(num_tasks, 1, seed + 1)[:, 0]
    direction = it_mtl()(jacobian, losses)
    assert (1 / losses.abs()) @ jacobian @ direction > 0


def test_stationary_point_is_kept():
    jacobian = torch.tensor([[1.0, 0.3], [-0.5, 0.1], [-0.5, -0.4]], dtype=torch.float64)
    assert torch.equal(it_mtl()(jacobian, losses=doubles(2.0, 2.0, 2.0)), torch.zeros(2, dtype=torch.float64))


# ------------------------------------------------------------------------------------------------------- lookahead


def quadratic(shared, private, frozen):
    """Return 0.5 (theta - a)^T H (theta - a) + c."""
    del private
    goal, H, offset = frozen
    error = shared["theta"] - goal
    return 0.5 * error @ H @ error + offset, {}


def run(method, problem, theta) -> tuple[Tensor, Tensor]:
    """Return weights and direction of one update on quadratics."""
    method.setup(len(problem[0]), [theta.shape], torch.device("cpu"))
    update = aggregate(quadratic, {"theta": theta}, {}, problem, method, torch.Generator(), Stopwatch())
    assert update.weights is not None
    return update.weights, update.shared["theta"]


def random_problem(num_tasks: int, seed: int):
    factors = torch.stack([gaussian(4, 4, seed + 100 * task) for task in range(num_tasks)])
    offsets = gaussian(num_tasks, 1, seed + 7)[:, 0] * 3  # losses of either sign
    return (gaussian(num_tasks, 4, seed), factors @ factors.mT, offsets), gaussian(1, 4, seed + 9)[0]


QUADRATICS = read(DATA / "transference_quadratic.json")["vectors"]
quadratics = pytest.mark.parametrize("vector", QUADRATICS, ids=lambda vector: vector["name"])


def problem_of(vector):
    a, H, c, theta = (torch.tensor(vector["problem"][name], dtype=torch.float64) for name in ("a", "H", "c", "theta"))
    return (a, H, c), theta


def members(weights: Tensor) -> list[int]:
    return weights.nonzero().flatten().tolist()


@quadratics
def test_lookahead_equals_the_published_definition(vector):
    problem, theta = problem_of(vector)
    num_tasks = len(problem[0])
    # The definition steps along the sum of the subset's gradients, ours along their sum over T.
    step_size = num_tasks * vector["hyperparameters"]["lr"]
    subsets = it_mtl(evaluation="lookahead", candidates="subsets", step_size=step_size)
    weights, direction = run(subsets, problem, theta)
    assert members(weights) == vector["chosen_subset"]
    expected = torch.tensor(vector["gradient"], dtype=torch.float64) / num_tasks
    assert_close(direction, expected, rtol=vector["tolerance"]["rtol"], atol=vector["tolerance"]["atol"])
    leave_one_out = it_mtl(evaluation="lookahead", candidates="leave_one_out", step_size=step_size)
    assert members(run(leave_one_out, problem, theta)[0]) == vector["chosen_leave_one_out"]


@quadratics
def test_first_order_equals_the_published_definition(vector):
    problem, theta = problem_of(vector)
    assert members(run(it_mtl(), problem, theta)[0]) == vector["chosen_subset_first_order"]


@profile
@given(num_tasks=st.integers(2, 5), seed=st.integers(0, 999))
def test_short_lookahead_chooses_as_the_first_order(num_tasks, seed):
    problem, theta = random_problem(num_tasks, seed)
    short = it_mtl(evaluation="lookahead", candidates="subsets", step_size=1e-6)
    assert torch.equal(run(short, problem, theta)[0], run(it_mtl(), problem, theta)[0])


def test_lookahead_sees_curvature():
    # L1 = 50 x^2, L2 = x at x = 1: gradients 100 and 1. Both help to first order. A step of length one along their
    # mean, 50.5, overshoots to -49.5; along the second alone it ends at 1/2: L1 = 12.5, gain 3/4, L2 gain 1/2.
    def loss(shared, private, frozen):
        del private
        return (frozen * torch.stack([50 * shared["x"] ** 2, shared["x"]])).sum(), {}

    def weights(method):
        method.setup(2, [torch.Size([])], torch.device("cpu"))
        shared = {"x": torch.tensor(1.0, dtype=torch.float64)}
        found = aggregate(loss, shared, {}, torch.eye(2).double(), method, torch.Generator(), Stopwatch()).weights
        assert found is not None
        return found

    assert torch.equal(weights(it_mtl()), doubles(0.5, 0.5))
    assert torch.equal(weights(it_mtl(evaluation="lookahead", step_size=1.0)), doubles(0.0, 0.5))


def test_lookahead_is_the_best_by_direct_evaluation():
    for seed in range(20):
        problem, theta = random_problem(3, seed)
        method = it_mtl(evaluation="lookahead", combined=("pcgrad", "aligned"), step_size=0.3)
        weights, direction = run(method, problem, theta)
        rows = task_gradients(quadratic, {"theta": theta}, {}, problem).shared["theta"]
        here = losses_at(quadratic, {"theta": theta}, {}, problem)

        def gain(candidate: Tensor, theta=theta, problem=problem, here=here) -> float:
            there = losses_at(quadratic, {"theta": theta - 0.3 * candidate}, {}, problem)
            return float(((here - there) / (here.abs() + 1e-8)).sum())

        subsets = [set(s) for size in (1, 2, 3) for s in itertools.combinations(range(3), size)]
        best = max(gain(rows[sorted(subset)].sum(0) / 3) for subset in subsets)
        best = max(best, gain(make("aligned")(rows)))  # PCGrad draws its orders
        assert gain(direction) >= best - 1e-12
        assert torch.allclose(weights @ rows, direction)


def test_candidate_whose_losses_are_no_numbers_is_not_chosen():
    # exp(x) - exp(x) / 2 at x = 5 and -x. The second gradient alone leads to inf - inf, far up the exponential. The
    # first alone and both lead far down; both a little less far, which costs the second loss less.
    def loss(shared, private, frozen):
        del private
        return (frozen * torch.stack([shared["x"].exp() - shared["x"].exp() / 2, -shared["x"]])).sum(), {}

    shared = {"x": torch.tensor(5.0, dtype=torch.float64)}
    method = it_mtl(evaluation="lookahead", step_size=1e4)
    method.setup(2, [torch.Size([])], torch.device("cpu"))
    problem = torch.eye(2, dtype=torch.float64)
    assert losses_at(loss, {"x": torch.tensor(5005.0).double()}, {}, problem)[0].isnan()
    update = aggregate(loss, shared, {}, problem, method, torch.Generator(), Stopwatch())
    assert update.weights is not None
    assert torch.equal(update.weights, doubles(0.5, 0.5))


@pytest.mark.parametrize("network_name", ["mlp", "multi_head"])
def test_lookahead_trains_an_agent(network_name):
    agent = build(network_name, it_mtl(evaluation="lookahead", combined=("pcgrad",)))
    before = {path: leaf.clone() for path, leaf in parameters(agent).items()}
    found = agent.diagnose(batch_for(1))
    assert all(torch.equal(leaf, before[path]) for path, leaf in parameters(agent).items())
    assert found["condition_number/critic"].isfinite()
    for seed in range(3):
        metrics = agent.update(batch_for(seed))
        assert not (metrics["critic_nonfinite"] | metrics["actor_nonfinite"]).any()
    assert all(leaf.isfinite().all() for leaf in parameters(agent).values())
    assert any(not torch.equal(leaf, before[path]) for path, leaf in parameters(agent).items())


def test_lookahead_by_the_optimizer_takes_the_step_that_leads_furthest_down():
    # Subsets of one to three tasks, stepped for real on copies: gradients, clipping and Adam's moments as in training.
    chosen = set()
    for seed in range(4):
        agent = build("mlp", it_mtl(evaluation="lookahead", displacement="optimizer"), critic_lr=0.1, max_grad_norm=0.5)
        agent.update(batch_for(seed))
        inputs = agent._critic_inputs(batch_for(seed + 10), torch.Generator().manual_seed(0))
        critic, loss = agent.critic, agent._critic_loss
        gradients = task_gradients(loss, critic.shared, {}, inputs)
        gains = {}
        for subset in (s for size in (1, 2, 3) for s in itertools.combinations(range(3), size)):
            stepped = copy.deepcopy(critic)
            direction = [leaf[list(subset)].sum(0) / 3 for leaf in gradients.shared.values()]
            clip = (0.5 / torch.nn.utils.get_total_norm(direction)).clamp(max=1)
            stepped.adam.step(clip * flatten(direction), torch.tensor(True))
            after = losses_at(loss, stepped.shared, {}, inputs)
            gains[subset] = float(((gradients.losses - after) / gradients.losses).sum())
        update, _, _ = critic.descend(loss, inputs, torch.tensor(True))
        assert update.weights is not None
        found = tuple(members(update.weights))
        assert gains[found] >= max(gains.values()) - 1e-5
        chosen.add(found)
    assert len(chosen) > 1


def test_lookahead_by_the_optimizer_is_refused_where_there_is_none():
    theta = torch.zeros(3, requires_grad=True)
    losses = [theta.sum() + 1, theta[0] + 1]
    method = it_mtl(evaluation="lookahead", displacement="optimizer")
    with pytest.raises(ValueError, match="displacement='optimizer'"):
        mtrl.backward(losses, shared=[theta], aggregator=method, evaluate=lambda: losses)


def test_lookahead_in_backward_moves_the_parameters_and_puts_them_back():
    problem, start = random_problem(3, 4)
    theta = start.clone().requires_grad_()
    seen = []

    def evaluate() -> list[Tensor]:
        seen.append(theta.detach().clone())
        return [quadratic({"theta": theta}, {}, task)[0] for task in zip(*problem, strict=True)]

    losses = evaluate()
    method = it_mtl(evaluation="lookahead", step_size=0.3)
    mtrl.backward(losses, shared=[theta], aggregator=method, evaluate=evaluate)
    assert torch.equal(theta.detach(), start)
    assert len(seen) == 1 + 7
    assert theta.grad is not None
    assert torch.allclose(theta.grad, run(it_mtl(evaluation="lookahead", step_size=0.3), problem, start)[1], rtol=1e-12)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(("num_tasks", "count"), [(1, 1), (2, 3), (4, 15), (5, 11), (10, 21)])
def test_number_of_evaluations(num_tasks, count):
    method = it_mtl(evaluation="lookahead")
    method.setup(num_tasks, [torch.Size([3])], torch.device("cpu"))
    assert isinstance(method, ITMTL)
    assert len(method.members) == count
    assert torch.equal(method.members[0], torch.ones(num_tasks).double())
    assert len({tuple(row) for row in method.members.tolist()}) == count


def test_too_many_subsets_are_refused():
    method = it_mtl(evaluation="lookahead", candidates="subsets")
    with pytest.raises(ValueError, match=r"2\^11 - 1 evaluations"):
        method.setup(11, [torch.Size([3])], torch.device("cpu"))


def test_missing_losses_are_refused():
    with pytest.raises(ValueError, match="losses"):
        it_mtl()(gaussian(2, 3))


def test_lookahead_on_a_bare_jacobian_is_refused():
    with pytest.raises(ValueError, match="lookahead"):
        it_mtl(evaluation="lookahead")(gaussian(2, 3), torch.ones(2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"combined": ("pcgrd",)}, "pcgrad"),
        ({"combined": ("it_mtl",)}, "combined"),
        ({"step_size": 0.0}, "step_size"),
        ({"loss_eps": -1.0}, "loss_eps"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        it_mtl(**options)


def test_options_from_the_command_line():
    flags = "--aggregator it_mtl --aggregator.evaluation lookahead --aggregator.combined pcgrad aligned"
    settings_ = cli.parse(["--env", "toy", *flags.split()])
    assert settings_.configs()["critic.aggregator"] == ITMTL.Config(
        evaluation="lookahead", combined=("pcgrad", "aligned")
    )
