"""Write what a run has learned for use elsewhere: `python -m mtrl.export RUN`.

policy.safetensors  the actor's parameters and what observations are standardised by
policy.pt2          the deterministic policy for `torch.export.load`; needs torch and nothing of this package
policy.onnx         the same for ONNX runtimes
config.yaml         tasks in the order of their indices, sizes, network, versions, how far the files differ

Inputs are obs, float32 (batch, obs_dim), and task, int64 (batch,), indices into task_names; the output is action,
float32 (batch, action_dim), in [-1, 1]. Files appear only when their actions were found equal to the agent's.

Exit codes: 0 done, 2 usage.
"""

import dataclasses
import importlib.util
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tyro
import yaml

from mtrl import arguments, evaluate_options
from mtrl.cli import UsageError, error

if TYPE_CHECKING:
    from torch import Tensor

    from mtrl.agents.mtsac import MTSAC
    from mtrl.agents.policy import Policy

PACKAGES = ("safetensors", "onnx", "onnxscript", "onnxruntime")
"""What the extra `export` installs."""

TOLERANCE = 1e-5
"""Between actions computed by different code or in batches of another shape; actions are in [-1, 1]."""

_CHECKED_ROWS = 64

Act = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write the policy of a run as safetensors, torch.export program and ONNX, each checked against the agent."""

    run: tyro.conf.Positional[Path]
    """Run directory, as training leaves it; also while it trains."""
    output: Path | None = None
    """Folder for the files; by default RUN/export."""
    checkpoint: int | None = None
    """Step of the checkpoint to export; by default the newest."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = arguments.read(Options, argv, "python -m mtrl.export")
    try:
        _check_packages()
        output, differences = export(options)
    except UsageError as problem:
        error(str(problem))
    found = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    sys.stdout.write(f"written to {output}; largest difference of an action: {found}\n")
    return 0


def export(options: Options) -> tuple[Path, dict[str, float]]:
    """Write the files; return their folder and by how much each one's actions differ.

    Raises:
        UsageError: There is no such run or checkpoint, the files cannot be written, or one acts otherwise.
    """
    from mtrl.assembly import load_agent

    plan = evaluate_options.plan(
        evaluate_options.Options(run=options.run, checkpoint=options.checkpoint, device="cpu", workers=1)
    )
    try:
        agent = cast("MTSAC", load_agent(plan.settings, plan.checkpoint))
    except (ValueError, FileNotFoundError) as problem:
        raise UsageError(f"cannot load {plan.checkpoint}: {problem}") from problem
    output = options.output or options.run / "export"
    if (output / "checkpoints").exists() or output.resolve() == options.run.resolve():
        raise UsageError(f"--output: {output} is the folder of a run, whose files have the same names; name another")
    partial = output / f".partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        differences = _write(agent, partial)
        about = _about(plan, agent, differences)
        (partial / "config.yaml").write_text(yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
        for file in partial.iterdir():
            file.replace(output / file.name)
    except OSError as problem:
        raise UsageError(f"--output: cannot write {problem.filename or output}: {problem.strerror}") from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output, differences


def _check_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f'export needs {", ".join(missing)}: pip install "mtrl-aligned[export]"')


def _write(agent: "MTSAC", folder: Path) -> dict[str, float]:
    """Write the policy in all formats; return the largest difference between the actions of each and of the agent.

    Raises:
        UsageError: A file acts otherwise than the agent.
    """
    import torch
    from safetensors.torch import save

    from mtrl.agents.policy import policy_of

    policy = policy_of(agent)
    (folder / "policy.safetensors").write_bytes(save(policy.tensors))  # `save_file` lets no other user read it
    num_tasks, obs_dim = len(agent.tasks), len(policy.tensors["standardizer.mean"])
    batch = torch.export.Dim("batch", min=1)
    example = torch.zeros(3, obs_dim), torch.zeros(3, dtype=torch.int64)  # of no size that torch would take for fixed
    program = torch.export.export(policy, example, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, folder / "policy.pt2")
    _write_onnx(program, folder / "policy.onnx")

    generator = torch.Generator().manual_seed(0)
    task = torch.arange(num_tasks).repeat(-(-_CHECKED_ROWS // num_tasks))
    obs = torch.randn(len(task), obs_dim, generator=generator)
    obs = policy.tensors["standardizer.mean"] + policy.tensors["standardizer.std"] * obs
    per_task = obs.view(-1, num_tasks, obs_dim).transpose(0, 1)
    by_agent = agent.act_deterministic(per_task).transpose(0, 1).flatten(0, 1)
    differences = {
        name: _largest(*_differences(act, policy, obs, task), act(obs, task) - by_agent)
        for name, act in (
            ("policy.pt2", torch.export.load(folder / "policy.pt2").module()),
            ("policy.onnx", _load_onnx(folder / "policy.onnx")),
        )
    }
    for name, value in differences.items():
        if not value <= TOLERANCE:  # also where it is not a number
            raise UsageError(f"{name} differs from the agent's actions by {value}; nothing was written")
    return differences


def _differences(act: Act, policy: "Policy", obs: "Tensor", task: "Tensor") -> "list[Tensor]":
    """Return the differences in batches of one, two and all rows."""
    return [act(obs[:n], task[:n]) - policy(obs[:n], task[:n]) for n in (1, 2, len(obs))]


def _largest(*differences: "Tensor") -> float:
    """Return the largest absolute entry; NaN where there is one, which Python's `max` may pass over."""
    import torch

    return float(torch.cat([difference.flatten() for difference in differences]).abs().max())


def _write_onnx(program: Any, file: Path) -> None:
    import torch

    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    registry.addFilter(others := lambda entry: "torchvision" not in entry.getMessage())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own use of what torch deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        onnx = torch.onnx.export(
            program, dynamo=True, input_names=["obs", "task"], output_names=["action"], verbose=False
        )
    registry.removeFilter(others)
    assert onnx is not None
    onnx.save(file)


def _load_onnx(file: Path) -> Act:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def act(obs: "Tensor", task: "Tensor") -> "Tensor":
        return torch.from_numpy(session.run(None, {"obs": obs.numpy(), "task": task.numpy()})[0])

    return act


def _about(plan: evaluate_options.Plan, agent: "MTSAC", differences: dict[str, float]) -> dict[str, Any]:
    """Return what a user of the files must know."""
    from mtrl import envs
    from mtrl.run_directory import describe_environment

    settings, environment = plan.settings, describe_environment()
    return {
        "env": settings.env,
        "goal_seed": settings.trainer.goal_seed,
        "task_names": list(envs.task_names(settings.env)),
        "obs_dim": len(agent.standardize.state_dict()["mean"]),
        "action_dim": agent.action_dim,
        "network": settings.network,
        "network_config": _plain(dataclasses.asdict(settings.network_config)),
        "is_standardized": settings.agent_config.min_obs_std is not None,
        "run": plan.checkpoint.parents[1].resolve().name,
        "step": plan.step,
        "largest_difference": differences,
        "versions": environment["versions"],
        "commit": environment["commit"],
        "time": environment["time"],
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main())
