"""The comparison of training with both engines."""

from scripts import compare_training
from scripts.compare_training import learned, main, row

TOY = "--env toy --total-steps 400 --warmup-steps 50 --eval-every 200 --eval-goals 1 --log-every 200 --device cpu"


def test_two_runs_are_compared_and_timed(capsys):
    assert main(["--flags", f"{TOY} --network.hidden-dims 8 --agent.batch-size 8"]) == 0
    output = capsys.readouterr().out
    assert "| stock | " in output
    assert "| native | " in output
    assert "4 records of each run: equal" in output


def test_a_difference_is_found(capsys, monkeypatch):
    seeds = iter("01")
    train = compare_training.train
    monkeypatch.setattr(
        compare_training, "train", lambda folder, engine, flags: train(folder, engine, [*flags, "--seed", next(seeds)])
    )
    assert main(["--flags", f"{TOY} --network.hidden-dims 8 --agent.batch-size 8"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_speed_is_no_difference():
    record = {"step": 10, "critic_loss/a": 1.0}
    assert learned(record | {"time": 3.0, "speed/env_steps_per_second": 5.0, "time_share/replay": 0.1}) == record


def test_a_row_adds_up_what_the_records_tell():
    def record(step, speed, environments):
        return {
            "step": step,
            "speed/env_steps_per_second": speed,
            "time_share/environments": environments,
            "time_share/evaluation": 0.25,
        }

    # 10 s for 100 steps, then 20 s for 100: 5 + 5 s in environments, 2.5 + 5 in evaluations.
    assert row("native", [record(100, 10.0, 0.5), record(200, 5.0, 0.25)]) == "| native | 30 | 7 | 10 | 8 | 12 |"
