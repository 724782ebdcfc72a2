"""Measures how far our results are from the published ones of tests/data, where they differ on purpose."""

from collections.abc import Callable, Iterable
from statistics import median

import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.graddrop import keep_one_sign
from mtrl.aggregators.gradvac import turn
from mtrl.aggregators.pcgrad import project
from mtrl.aggregators.rlw import weights_from
from mtrl.aggregators.system import GradientSystem, gramian
from tests.aggregators.builders import BUILD, is_one_of
from tests.aggregators.sequences import Sequence, load_sequences, losses_of
from tests.aggregators.vectors import DATA, Vector, load, read

Pair = tuple[Tensor, Tensor | None]
"""Our result and the published one; None where that code failed."""


ROUNDING = 1e-6
"""What is smaller may be another number on another machine."""


def relative(pairs: Iterable[Pair]) -> str:
    """Describe norm(ours - published), relative to the longer of the two."""
    sizes, failed, total = [], 0, 0
    for ours, published in pairs:
        total += 1
        if published is None or not published.isfinite().all():
            failed += 1
            continue
        longest = max(float(ours.norm()), float(published.norm()))
        sizes.append(float((ours - published).norm()) / longest if longest else 0.0)
    largest = max(sizes, default=0.0)
    parts = [f"median {shown(median(sizes))}"] if len(sizes) > 2 and largest >= ROUNDING else []
    parts += [f"up to {shown(largest)}" if largest >= ROUNDING else shown(largest)] if sizes else []
    parts += [f"{failed} of {total} without a number"] if failed else []
    return ", ".join(parts)


def shown(size: float) -> str:
    """Return one digit."""
    return f"{size:.1g}" if size >= ROUNDING else f"below {ROUNDING:g}"


def multiple(pairs: Iterable[tuple[float, Tensor, Tensor | None]], word: str) -> str:
    """Say that the published results are `word` times ours; raise where they are not to 1e-6."""
    for factor, ours, published in pairs:
        if published is not None and published.isfinite().all():
            error = float((factor * ours - published).norm())
            assert error <= 1e-6 * float(published.norm()) + 1e-8, f"{word}: {error}"
    return f"{word} times ours"


def aligned_sum(file: str) -> str:
    """Compare with the sum of the aligned rows."""
    solved = [v for v in load(file) if v.status == "ok" and v.case.split("_")[0] not in {"stationary", "scaled6"}]
    return multiple(((len(v.jacobian), aligned_as(v), v.gradient) for v in solved), "T")


def aligned_as(vector: Vector, **changed: object) -> Tensor:
    """Return our default direction with the vector's options, or others."""
    names = ("scale_mode", "rank_eps")
    return make("aligned", **{name: vector.hyperparameters[name] for name in names} | changed)(vector.jacobian)


def aligned_rank(file: str) -> str:
    """Compare our tolerance with the official one, on rows of different lengths."""
    chosen = [v for v in load(file) if is_one_of(v, ("scaled*",)) and v.hyperparameters["rank_eps"] > 1e-8]
    return relative((len(v.jacobian) * aligned_as(v, rank_eps=None), v.gradient) for v in chosen)


def failures(file: str) -> str:
    """Count the vectors that the published code has no answer to."""
    vectors = load(file)
    failed = sum(vector.status != "ok" for vector in vectors)
    return f"{failed} of {len(vectors)} without a number"


def pcgrad_sum(file: str) -> str:
    """Compare with the sum of the projected gradients, in the given orders."""
    found = []
    for vector in (vector for vector in load(file) if vector.orders):
        coefficients = project(gramian((vector.jacobian,)), others(vector.orders or []))
        found.append((len(vector.jacobian), coefficients.mean(0) @ vector.jacobian, vector.gradient))
    return multiple(found, "T")


def pcgrad_constants(file: str) -> str:
    """Compare with codes that add a constant to lengths, and may take the task itself for another."""
    found = []
    for vector, raw in zip(load(file), read(DATA / f"{file}.json")["vectors"], strict=True):
        num_tasks = len(vector.jacobian)
        one_for_all = "order" in raw
        orders = others([raw["order"]] * num_tasks) if one_for_all else torch.tensor(raw["orders"])
        ours = project(gramian((vector.jacobian,)), orders).mean(0) @ vector.jacobian
        found.append((num_tasks * ours if one_for_all else ours, vector.gradient))
    return relative(found)


def others(orders: list[list[int]]) -> Tensor:
    """Return each task's order without the task itself."""
    found = [[other for other in order if other != task] for task, order in enumerate(orders)]
    return torch.tensor(found, dtype=torch.int64).reshape(len(orders), len(orders) - 1)


def graddrop_sum(file: str) -> str:
    """Compare with the sum of what the signs leave."""
    found = []
    for entry in load_sequences(file):
        jacobian = entry["jacobian"]
        leaks = torch.tensor(entry.options["leak"], dtype=torch.float64).expand(len(jacobian)).clone()
        found.append(
            (len(jacobian), keep_one_sign(jacobian, entry["uniforms"], leaks) / len(jacobian), entry["gradient"])
        )
    return multiple(found, "T")


def gradvac_pairs(file: str) -> list[Pair]:
    """Return the sum of the turned gradients of the first update, in the given orders, and the published one."""
    update = "adjusted" if file == "gradvac_samsung" else "always"
    found: list[Pair] = []
    for vector in (vector for vector in load(file) if len(vector.jacobian) > 1):
        num_tasks = len(vector.jacobian)
        targets = torch.zeros(num_tasks, num_tasks, dtype=torch.float64)
        orders = others(vector.entry["orders"][0])
        coefficients, _ = turn(gramian((vector.jacobian,)), orders, targets, 0.5, update)
        published = torch.tensor(vector.entry["gradients"][0]).double() if vector.status == "ok" else None
        found.append((coefficients.sum(0) @ vector.jacobian, published))
    return found


def gradvac_eps(file: str) -> str:
    """Compare the sums."""
    return "T times ours; beyond that " + relative(gradvac_pairs(file))


def gradnorm_sum(file: str) -> str:
    """Compare the weights of the first update."""
    found = []
    for vector in load(file):
        aggregator = make("gradnorm", alpha=vector.hyperparameters["alpha"])
        losses = torch.tensor(vector.entry["losses"][0], dtype=torch.float64)
        published = torch.tensor(vector.entry["trajectory"][0], dtype=torch.float64)
        found.append((len(vector.jacobian), weights(aggregator, vector.jacobian, losses), published))
    return multiple(found, "T")


def weights(aggregator: Aggregator, jacobian: Tensor, losses: Tensor) -> Tensor:
    """Let the method see one update, and return its weights."""
    aggregator.setup_once(len(jacobian), [jacobian.shape[1:]], jacobian.device)
    system = GradientSystem(num_tasks=len(jacobian), losses=losses, gramian=gramian((jacobian,)))
    found = aggregator.aggregate(system).weights
    assert found is not None
    return found.clone()


def loss_weights(file: str) -> str:
    """Compare the weights of the loss-weighting methods, where theirs do not depend on earlier updates."""
    del file
    found = [(len(e["normals"]), weights_from(e["normals"]), e["weights"]) for e in losses_of("rlw")]
    for method, name in (("si", "scale_invariant"), ("imtl_l", "imtl_l")):
        for entry in losses_of(method):
            (losses,) = entry["losses"]
            found.append((len(losses), weights(make(name), torch.eye(len(losses)), losses), entry["weights"]))
    return multiple(found, "T")


def dwa_start(file: str) -> str:
    """Say in how many updates our weights are still equal and theirs are not."""
    del file
    counts = []
    for entry in losses_of("dwa"):
        window, official = entry.options["window"], entry["trajectory"]
        different = (official[: 2 * window - 1] - 1).abs().amax(1) > 1e-6
        counts.append(int(different.sum()))
    return f"{max(counts)} updates"


def moco(entry: Sequence) -> Aggregator:
    """Build MoCo with the options of the sequence."""
    ours = {"beta": "beta", "beta_decay": "beta_sigma", "gamma": "gamma", "gamma_decay": "gamma_sigma", "rho": "rho"}
    return make("moco", **{name: entry.options[f"MoCo_{theirs}"] for name, theirs in ours.items()})


def last_updates(file: str, build: Callable[[Sequence], Aggregator]) -> list[tuple[str, Tensor, Tensor]]:
    """Return name, our direction and the published one of the last update of every sequence of Jacobians."""
    found = []
    for entry in load_sequences(file):
        aggregator = build(entry)
        directions = [aggregator(jacobian, losses=entry["losses"]) for jacobian in entry["jacobians"]]
        found.append((entry.name, directions[-1], entry["gradients"][-1]))
    return found


def moco_eps(file: str) -> str:
    """Compare where every task has a gradient."""
    found = last_updates(file, moco)
    return relative((ours, theirs) for name, ours, theirs in found if not name.startswith("zero_row"))


def moco_zero_row(file: str) -> str:
    """Compare where one has none."""
    found = last_updates(file, moco)
    return relative((ours, theirs) for name, ours, theirs in found if name.startswith("zero_row"))


def db_mtl_sum(file: str) -> str:
    """Compare the sums over tasks, but where the averages cancel."""
    found: list[Pair] = []
    for entry in load_sequences(file):
        aggregator = make("db_mtl", beta=entry.options["DB_beta"], beta_decay=entry.options["DB_beta_sigma"])
        for jacobian, theirs in zip(entry["jacobians"], entry["gradients"], strict=True):
            ours = len(jacobian) * aggregator(jacobian, losses=entry["losses"])
            if not entry.name.startswith("opposite_T2"):
                found.append((ours, theirs))
    return "T times ours; beyond that " + relative(found)


def db_mtl_variant(file: str) -> str:
    """Compare with the other variant, direction and length."""
    found: list[Pair] = []
    for entry in load_sequences(file):
        aggregator = make("db_mtl", beta=entry.options["beta"])
        found.append((aggregator(entry["jacobian"], losses=entry["losses"]), entry["gradients"][0]))
    return relative(found)


def dibs_constant(file: str) -> str:
    """Compare with the official constant times ours."""
    found: list[Pair] = []
    for vector in load(file):
        num_tasks, options = len(vector.jacobian), vector.hyperparameters
        if file == "dibs_single_mtl":
            ours = num_tasks * options["radius"] * options["step_size"] * make("dibs")(vector.jacobian)
        else:
            num_steps = vector.entry.get("inner_steps_recorded", options["max_steps"])
            step_size = num_tasks * options["radius"] / options["max_steps"]
            ours = make("dibs", num_steps=num_steps, step_size=step_size)(vector.jacobian) * options["radius"]
        if ours.norm() > 1e-12 * options["radius"]:  # the sum of the units is no rounding noise
            found.append((ours, vector.gradient if vector.status == "ok" else None))
    return relative(found)


def nash_unsolved(file: str) -> str:
    """Count the official solves whose residual is above 0.1."""
    residuals = []
    for entry in read(DATA / f"{file}.json")["vectors"]:
        steps = zip(entry["jacobians"], entry["weights_trajectory"], strict=True)
        for rows, found in list(steps)[:: entry["hyperparameters"]["update_weights_every"]]:
            jacobian, a = (torch.tensor(values, dtype=torch.float64) for values in (rows, found))
            residuals.append(float((a * (gramian((jacobian,)) @ a) - 1).abs().max()))
    return f"{sum(not residual < 0.1 for residual in residuals)} of {len(residuals)} solves"


def sdmgrad_second(file: str) -> str:
    """Compare the second update of the vector whose steps do not settle."""
    (vector,) = (vector for vector in load(file) if vector.name == "well_T10_P200")
    aggregator = BUILD[file](vector)
    aggregator(vector.jacobian)
    ours = aggregator(vector.jacobian)
    return relative([(ours, torch.tensor(vector.entry["second_call"]["gradient"], dtype=torch.float64))])


def stated(size: str) -> Callable[[str], str]:
    """Return a size that a test of the file finds."""
    return lambda file: size
