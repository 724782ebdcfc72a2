"""What does a method do for a supervised model? Three tasks on scikit-learn's handwritten digits, through `backward`.

    python scripts/supervised_example.py mean aligned dibs it_mtl

One trunk reads 8x8 pictures, three heads say which digit it is, how much ink it took and where its centre lies. The
losses are a cross entropy, a squared error in grey levels, about 1000 times as large, and one in widths of the picture,
1000 times smaller. The table shows errors on held-out pictures: the share of wrong digits, 0.9 by guessing, and root
mean square errors in those of a constant answer.
Needs scikit-learn, which brings the pictures (extra `test`).
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mtrl import backward
from mtrl.aggregators import make, names
from mtrl.aggregators.base import Aggregator
from mtrl.registry import check_name

TASKS = ("digit", "ink", "centre")
UNITS = (1.0, 40.0, 0.03)
"""Standard deviations of the targets: of the ink in grey levels, of the centre in widths of the picture."""
LOSSES = (nn.functional.cross_entropy, nn.functional.mse_loss, nn.functional.mse_loss)
NUM_OUTPUTS = (10, 1, 2)
NUM_TEST = 450  # a quarter
WIDTH = 64
BATCH_SIZE = 64
LEARNING_RATE = 3e-3


class Pictures(NamedTuple):
    """Pictures and what is to be said about them."""

    x: Tensor
    targets: tuple[Tensor, ...]


def main() -> None:
    """Print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["mean", "aligned", "dibs", "it_mtl"], help=", ".join(names()))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        for name in args.methods:
            check_name(names(), "aggregator", name)
    except ValueError as problem:
        parser.error(str(problem))
    torch.set_num_threads(1)  # the networks are small
    train, test = load()
    print(f"test error after {args.epochs} epochs, seed {args.seed}")
    print("method".ljust(16) + "".join(task.rjust(8) for task in TASKS))
    for name in args.methods:
        errors = fit(build(name), train, test, args.epochs, args.seed)
        print(name.ljust(16) + "".join(f"{error:8.3f}" for error in errors), flush=True)


def build(name: str) -> Aggregator:
    """Return the method; `it_mtl` in its form that evaluates every candidate."""
    return make(name, evaluation="lookahead") if name == "it_mtl" else make(name)


def fit(aggregator: Aggregator, train: Pictures, test: Pictures, epochs: int, seed: int) -> list[float]:
    """Train trunk and heads, and return the errors of the tasks on `test`."""
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    heads = nn.ModuleList([nn.Linear(WIDTH, size) for size in NUM_OUTPUTS])
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=LEARNING_RATE)
    for x, targets in batches(train, epochs):
        features = trunk(x)
        again = partial(evaluate, trunk, heads, x, targets)  # the same losses, wherever the parameters are by then
        optimizer.zero_grad()
        backward(
            task_losses(heads, features, targets),
            shared=trunk.parameters(),
            private=heads.parameters(),
            aggregator=aggregator,
            representation=[features],  # for aligned_ub
            evaluate=again,  # for it_mtl
        )
        optimizer.step()
        if aggregator.observes:  # for famo
            aggregator.observe(torch.stack(again()))
    return errors_of(trunk, heads, test)


def task_losses(heads: nn.ModuleList, features: Tensor, targets: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the loss of each task, in its own unit."""
    tasks = zip(UNITS, LOSSES, heads, targets, strict=True)
    return [unit**2 * loss(head(features), target) for unit, loss, head, target in tasks]


@torch.no_grad()
def evaluate(trunk: nn.Module, heads: nn.ModuleList, x: Tensor, targets: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the loss of each task without a graph."""
    return task_losses(heads, trunk(x), targets)


def batches(pictures: Pictures, epochs: int) -> Iterator[Pictures]:
    """Yield all pictures once per epoch, in random order."""
    for _ in range(epochs):
        for rows in torch.randperm(len(pictures.x)).split(BATCH_SIZE):
            yield Pictures(pictures.x[rows], tuple(target[rows] for target in pictures.targets))


@torch.no_grad()
def errors_of(trunk: nn.Module, heads: nn.ModuleList, test: Pictures) -> list[float]:
    """Return the share of wrong digits, and root mean square errors in those of a constant answer."""
    digit, *numbers = [head(trunk(test.x)) for head in heads]
    wrong = (digit.argmax(1) != test.targets[0]).double().mean()
    rest = [
        ((found - y).square().mean() / (y - y.mean(0)).square().mean()).sqrt()
        for found, y in zip(numbers, test.targets[1:], strict=True)
    ]
    return [float(error) for error in (wrong, *rest)]


def load() -> tuple[Pictures, Pictures]:
    """Return the pictures to train and to test on: 1,797 real digits in a fixed random order."""
    pixels, digit = load_digits(return_X_y=True)
    grey = torch.from_numpy(pixels).float().unflatten(1, (8, 8))  # 0 to 16
    ink = grey.sum((1, 2))
    place = torch.arange(8.0) / 8  # in widths of the picture
    centre = torch.stack([(grey.sum(2) @ place) / ink, (grey.sum(1) @ place) / ink], dim=1)
    numbers = [
        (ink[:, None] - ink.mean()) / UNITS[1],
        (centre - centre.mean(0)) / UNITS[2],
    ]
    targets = (torch.from_numpy(digit).long(), *numbers)
    order = torch.randperm(len(grey), generator=torch.Generator().manual_seed(0))
    test, train = (
        Pictures(grey[rows].flatten(1) / 16, tuple(target[rows] for target in targets))
        for rows in order.tensor_split([NUM_TEST])
    )
    return train, test


if __name__ == "__main__":
    main()
