"""Run directories whose numbers are chosen, as training would have written them."""

import json

CONFIG = {
    "env": "toy",
    "critic.aggregator": "mean",
    "actor.aggregator": "mean",
    "seed": 0,
    "goal_seed": 0,
    "total_steps": 20,
    "eval_goals": 5,
    "agent.gamma": 0.9,
}

START = {
    "command": ["python", "/somewhere/mtrl/train.py", "--env", "toy", "--seed", "7"],
    "versions": {"metaworld": "3.1.1", "mujoco": "3.3.0"},
    "commit": "0123456789abcdef",
    "cpu": "Some Processor",
    "cores": 2,
    "gpus": [],
}


def evaluation(step, **success):
    """Return a record of an evaluation, by task the success."""
    values = list(success.values())
    return {
        "kind": "evaluation",
        "step": step,
        **{f"success/{task}": value for task, value in success.items()},
        "success/mean": sum(values) / len(values),
        "success/worst": min(values),
    }


def write(path, records, *, starts=(START,), **config):
    """Write the folder of a run; settings are named with _ for the first point, as in critic_aggregator."""
    path.mkdir(parents=True)
    settings = CONFIG | {key.replace("_aggregator", ".aggregator"): value for key, value in config.items()}
    (path / "config.yaml").write_text(json.dumps(settings))  # which is YAML too
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (path / "environment.json").write_text(json.dumps(list(starts)))
    return path
