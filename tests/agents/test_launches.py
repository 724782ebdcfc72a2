"""How much a GPU would be given to do, counted on the device "meta": one kernel is one operation that is no view.

A kernel of these sizes takes a GPU a few microseconds, whatever it computes: their number is the time of an update.
"""

import functools
import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from mtrl.agents import component, mtsac
from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators import make, names
from mtrl.aggregators.base import Need
from mtrl.aggregators.host import Mend, Solver, example, recorded_by
from mtrl.interfaces import Batch, EnvSpec
from mtrl.networks.multi_head import MultiHead
from mtrl.seeding import torch_generator

META = torch.device("meta")
NO_KERNEL = {
    *("_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "expand", "permute", "select"),
    *("slice", "split", "split_with_sizes", "squeeze", "squeeze_", "t", "transpose", "unbind", "unsqueeze", "view"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("_record_function_enter_new", "_record_function_exit", "lift_fresh"),
}


class Launches(TorchDispatchMode):
    """Counts kernels; what is solved on the CPU in between is none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.visits = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.count += operation.overloadpacket.__name__ not in NO_KERNEL
        return operation(*args, **(kwargs or {}))

    def call(self, solver: Solver, arguments: tuple[Any, ...]) -> Any:
        self.visits += 1
        with _disable_current_modes():
            solution = example(solver, arguments)
            return tuple(leaf.to(META) for leaf in solution) if isinstance(solution, tuple) else solution.to(META)

    def unless(self, flag: torch.Tensor, mend: Mend, arguments: tuple[Any, ...]) -> None:
        mend(flag, *arguments)


@pytest.fixture
def launches(monkeypatch):
    """Return the function that counts kernels of a second update and visits to the CPU."""
    adam = sys.modules["torch.optim.adam"]
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda leaf: None)  # which knows no "meta"

    def generator(seed: int, *name: str | int, device: Any = None) -> torch.Generator:
        del device  # there are none for "meta"
        return torch_generator(seed, *name)

    for module in (component, mtsac):
        monkeypatch.setattr(module, "torch_generator", generator)

    def count(method: str, num_tasks: int) -> tuple[int, int]:
        spec = EnvSpec(
            task_names=tuple(map(str, range(num_tasks))),
            envs_per_task=1,
            obs_dim=39,
            action_dim=4,
            max_episode_steps=500,
            num_goals=50,
        )
        agent = MTSAC(
            MTSAC.Config(),
            spec=spec,
            make_network=functools.partial(MultiHead, MultiHead.Config(hidden_dims=(400, 400, 400))),
            critic_aggregator=make(method),
            actor_aggregator=make(method),
            device=META,
            seed=0,
        )

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(num_tasks, 128, *shape, device=META)

        batch = Batch(empty(39), empty(4), empty(), empty(39), empty(), agent.tasks.expand(-1, 128))
        found = Launches()
        with recorded_by(found):
            agent.update(batch)
            found.visits = 0
            with found:
                agent.update(batch)
        return found.count, found.visits

    return count


def test_an_update_of_the_mean_is_a_few_hundred_kernels(launches):
    assert 200 < launches("mean", 10)[0] < 500


@pytest.mark.parametrize("method", names())
def test_no_method_launches_more_for_more_tasks_and_it_visits_the_cpu_at_most_twice(launches, method):
    ten, visits = launches(method, 10)
    fifty, more_visits = launches(method, 50)
    assert visits == more_visits <= 2  # critic and actor
    assert fifty - ten <= 24  # long rows are taken in more pieces; a loop over the tasks would launch 40 more at least


@pytest.mark.parametrize("method", [name for name in names() if make(name).need == Need.GRAMIAN])
def test_gramian_methods_launch_little_more_than_the_mean(launches, method):
    assert launches(method, 10)[0] <= 1.5 * launches("mean", 10)[0]
