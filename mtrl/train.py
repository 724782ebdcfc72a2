"""Train one policy on many tasks: `python -m mtrl.train --env mt10 --aggregator aligned`.

Exit codes: 0 done, 2 usage, 3 a loss or gradient is not finite, 4 environments failed, 130 SIGINT, 143 SIGTERM.
"""

import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtrl.cli import error, parse

if TYPE_CHECKING:
    import torch

    from mtrl.aggregators.base import Aggregator
    from mtrl.cli import Settings
    from mtrl.trainer import Trainer

EXIT_NONFINITE, EXIT_WORKERS = 3, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    # Imported only after the command line was found right: torch takes seconds.
    from mtrl.envs.workers import WorkerError
    from mtrl.signals import StopRequest
    from mtrl.trainer import NonFiniteError

    stop = StopRequest()
    stop.install()
    try:
        trainer = build(settings)
    except ValueError as problem:
        error(str(problem))
    try:
        trainer.run(stop)
    except (NonFiniteError, WorkerError) as failure:
        sys.stderr.write(f"\nerror: {failure}\n")
        return EXIT_NONFINITE if isinstance(failure, NonFiniteError) else EXIT_WORKERS
    finally:
        trainer.close()
    return stop.exit_code


def build(settings: "Settings") -> "Trainer":
    """Join environments, networks, aggregators, agent and replay, by the names in `settings`.

    Raises:
        ValueError: The parts do not fit together or into memory.
    """
    import torch

    from mtrl import agents, aggregators, envs, networks, run_directory
    from mtrl.registry import resolve
    from mtrl.replay import Replay
    from mtrl.timing import Stopwatch
    from mtrl.trainer import Trainer

    config = settings.trainer
    if config.threads:
        torch.set_num_threads(config.threads)
    device = _device(config.device)
    make_env = functools.partial(envs.make, settings.env, goal_seed=config.goal_seed, workers=config.workers)
    env = make_env(seed=config.seed, envs_per_task=config.envs_per_task)
    replay_device = device if settings.replay.device == "auto" else torch.device(settings.replay.device)
    stopwatch = Stopwatch()

    def aggregator(name: str, method_config: object) -> "Aggregator":
        return resolve(aggregators.REGISTRY, "aggregator", name)(method_config)

    agent = resolve(agents.REGISTRY, "agent", settings.agent)(
        settings.agent_config,
        spec=env.spec,
        make_network=functools.partial(
            resolve(networks.REGISTRY, "network", settings.network), settings.network_config
        ),
        critic_aggregator=aggregator(settings.critic_aggregator, settings.critic_aggregator_config),
        actor_aggregator=aggregator(settings.actor_aggregator, settings.actor_aggregator_config),
        device=device,
        seed=config.seed,
        stopwatch=stopwatch,
    )
    return Trainer(
        config,
        env=env,
        eval_env=make_env(seed=config.seed),
        agent=agent,
        replay=Replay(env.spec, settings.replay.capacity, replay_device, config.seed),
        batch_size=settings.agent_config.batch_size,
        device=device,
        run_dir=run_directory.prepare(settings),
        stopwatch=stopwatch,
        resume_from=run_directory.checkpoint_to_resume(settings),
    )


def _device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


if __name__ == "__main__":
    sys.exit(main())
