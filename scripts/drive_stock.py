"""Does an exported policy drive a stock Meta-World environment? Needs torch, metaworld and nothing of mtrl.

python scripts/drive_stock.py runs/mt10-aligned-0/export reach-v3
"""

import sys
from pathlib import Path

import metaworld
import torch
import yaml


def drive(folder: Path, task_name: str, goal: int = 0) -> list[tuple[torch.Tensor, torch.Tensor, bool]]:
    """Return observation, action and success of every step of one episode."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    policy = torch.export.load(folder / "policy.pt2").module()
    task = torch.tensor([config["task_names"].index(task_name)])
    benchmark = metaworld.MT1(task_name, seed=config["goal_seed"])
    env = benchmark.train_classes[task_name]()
    env.set_task(benchmark.train_tasks[goal])
    obs, _ = env.reset()
    steps, truncated = [], False
    while not truncated:
        row = torch.as_tensor(obs, dtype=torch.float32)[None]
        action = policy(row, task)[0]
        obs, _, _, truncated, info = env.step(action.numpy())
        steps.append((row[0], action, bool(info["success"])))
    return steps


if __name__ == "__main__":
    found = drive(Path(sys.argv[1]), sys.argv[2])
    print(f"{sys.argv[2]}: {len(found)} steps, {'solved' if any(success for *_, success in found) else 'not solved'}")
