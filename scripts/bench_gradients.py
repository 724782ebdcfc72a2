"""What do per-task gradients cost, beside one summed backward pass and beside a loop over tasks?

Times the gradient of the full-size critic loss (twin critics, 3x400, 128 transitions per task) three ways in one run:
    summed   one forward and backward of the sum of all task losses (what a method without per-task gradients pays)
    per task the engine's vmap: every task's gradient on its own
    loop     one backward per task over a shared graph (what most codes do)
The variants take turns, so that a change of the machine's speed hits all alike; the table shows medians and ratios.

    python scripts/bench_gradients.py --tasks 10 50 --threads 1
"""

import argparse
import functools
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import vmap

from mtrl.agents.component import MakeNetwork
from mtrl.agents.mtsac import MTSAC, CriticInputs
from mtrl.aggregators import make
from mtrl.gradients import task_gradients
from mtrl.interfaces import EnvSpec
from mtrl.memory import keep_freed_memory
from mtrl.networks.mlp import MLP
from mtrl.networks.multi_head import MultiHead
from mtrl.run_directory import describe_environment

OBS_DIM, ACTION_DIM, BATCH_SIZE = 39, 4, 128
NETWORKS = {"mlp": MLP, "multi_head": MultiHead}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--network", choices=NETWORKS, default="mlp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--default-malloc", action="store_true", help="leave glibc as it is, unlike mtrl.train")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.default_malloc:
        keep_freed_memory()
    about = describe_environment()
    print(f"{about['cpu']}, {args.threads} thread(s), device {args.device}, commit {about['commit']}, {about['time']}")
    print("| tasks | network | summed ms | per task ms | loop ms | per task / summed | loop / summed |")
    print("|---|---|---|---|---|---|---|")
    for num_tasks in args.tasks:
        summed, per_task, loop = measure(num_tasks, NETWORKS[args.network], args.device, args.rounds)
        print(
            f"| {num_tasks} | {args.network} | {1e3 * summed:.1f} | {1e3 * per_task:.1f} | {1e3 * loop:.1f} "
            f"| {per_task / summed:.2f} | {loop / summed:.1f} |"
        )


def measure(num_tasks: int, network: type, device: str, rounds: int) -> list[float]:
    """Return the median seconds of the three variants."""
    agent = make_agent(num_tasks, functools.partial(network, network.Config()), torch.device(device))
    inputs = random_inputs(num_tasks, device)
    shared = {name: leaf.clone().requires_grad_() for name, leaf in agent.critic.shared.items()}
    private = {name: leaf.clone().requires_grad_() for name, leaf in agent.critic.private.items()}

    leaves = [*shared.values(), *private.values()]
    critic_loss = agent._critic_loss  # noqa: SLF001 - the very loss that training differentiates

    def losses() -> Tensor:
        if private:  # every task has a head of its own, so even the plain network is mapped over the tasks
            return vmap(critic_loss, in_dims=(None, 0, 0))(shared, private, inputs)[0]
        flat = [leaf.flatten(0, 1) for leaf in (inputs.obs, inputs.action, inputs.task)]
        q = agent.critic.network(shared, private, torch.cat(flat[:2], dim=1), flat[2])
        return (q.unflatten(0, inputs.target.shape) - inputs.target[..., None]).square().mean(1).sum(1)

    def summed() -> None:
        torch.autograd.grad(losses().sum(), leaves)

    def per_task() -> None:
        task_gradients(critic_loss, agent.critic.shared, agent.critic.private, inputs)

    def loop() -> None:
        for loss in losses().unbind():
            torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)

    return time_in_turns([summed, per_task, loop], rounds, device)


def time_in_turns(variants: Sequence[Callable[[], object]], rounds: int, device: str) -> list[float]:
    """Run all variants once to warm up, then in turns; return each one's median seconds."""
    seconds: list[list[float]] = [[] for _ in variants]
    for _ in range(rounds + 1):
        for variant, times in zip(variants, seconds, strict=True):
            start = time.perf_counter()
            variant()
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return [sorted(times[1:])[rounds // 2] for times in seconds]


def make_agent(num_tasks: int, make_network: MakeNetwork, device: torch.device, method: str = "mean") -> MTSAC:
    """Build the agent with networks of the given architecture; critics and actor use the method."""
    spec = EnvSpec(
        task_names=tuple(f"task-{index}" for index in range(num_tasks)),
        envs_per_task=1,
        obs_dim=OBS_DIM,
        action_dim=ACTION_DIM,
        max_episode_steps=500,
        num_goals=50,
    )
    return MTSAC(
        MTSAC.Config(),
        spec=spec,
        make_network=make_network,
        critic_aggregator=make(method),
        actor_aggregator=make(method),
        device=device,
        seed=0,
    )


def random_inputs(num_tasks: int, device: str) -> CriticInputs:
    """Draw a batch and targets."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (num_tasks, BATCH_SIZE)
    draw = functools.partial(torch.randn, generator=generator, device=device)
    task = torch.arange(num_tasks, device=device)[:, None].expand(shape)
    return CriticInputs(draw(*shape, OBS_DIM), draw(*shape, ACTION_DIM).tanh(), draw(*shape), task)


if __name__ == "__main__":
    main()
