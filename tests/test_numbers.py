"""A number that is not finite, wherever it arises: noticed at once, named, never learned from, and to be repeated."""

import copy

import numpy as np
import pytest
import torch

from mtrl.agents.losses import td_target
from mtrl.agents.mtsac import MTSAC
from mtrl.checkpoint import latest, load
from mtrl.nonfinite import NonFiniteError, repeat_update
from mtrl.signals import StopRequest
from tests.small_runs import CPU, assert_same_state, build

SECOND = 1
"""The task that is spoilt: reach-west."""


def spoil_action(patch, trainer):
    act = trainer.agent.act

    def spoilt(obs):
        action = act(obs)
        action[SECOND, 0, 1] = torch.nan
        return action

    patch.setattr(trainer.agent, "act", spoilt)


def spoil_step(field):
    def inject(patch, trainer):
        step_wait = trainer.env.step_wait

        def spoilt():
            found = step_wait()
            values = getattr(found, field).copy()
            values[SECOND, 1] = np.inf
            return found._replace(**{field: values})

        patch.setattr(trainer.env, "step_wait", spoilt)

    return inject


def spoil_critic_loss(patch, trainer):
    def spoilt(*args):
        target = td_target(*args)
        target[SECOND, 3] = torch.nan
        return target

    patch.setattr("mtrl.agents.mtsac.td_target", spoilt)


def spoil_actor_loss(patch, trainer):
    inputs = MTSAC._actor_inputs

    def spoilt(self, batch, generator):
        found = inputs(self, batch, generator)
        found.noise[SECOND] = torch.inf
        return found

    patch.setattr(MTSAC, "_actor_inputs", spoilt)


def spoil_gradient(part):
    def inject(patch, trainer):
        loss = getattr(MTSAC, f"_{part}_loss")

        def spoilt(self, shared, private, inputs, /):
            value, metrics = loss(self, shared, private, inputs)
            constant = 0 * value + (inputs.task[0] != SECOND)  # 0 for that task: the root has a value and no slope
            return value + constant.sqrt(), metrics

        patch.setattr(MTSAC, f"_{part}_loss", spoilt)

    return inject


IN_STEPS = {
    "action": (spoil_action, "action of task 'reach-west', environment 0, component 1 is nan"),
    "observation": (spoil_step("obs"), "observation of task 'reach-west', environment 1, component 0 is inf"),
    "reward": (spoil_step("reward"), "reward of task 'reach-west', environment 1 is inf"),
}
IN_UPDATES = {
    "critic loss": (spoil_critic_loss, "critic loss of reach-west"),
    "actor loss": (spoil_actor_loss, "actor loss of reach-west"),
    "critic gradient": (spoil_gradient("critic"), "critic gradient of reach-west"),
    "actor gradient": (spoil_gradient("actor"), "actor gradient of reach-west"),
}
POINTS = IN_STEPS | IN_UPDATES


def learning(run_dir, **options):
    """Return a trainer that has taken 30 vector steps and 6 updates: the first 24 are random.

    It learns after its steps, so that a bad step comes before an update and not beside one.
    """
    trainer = build(run_dir, eval_every=0, checkpoint_every=0, synchronous=True, **options)
    for _ in range(30):
        trainer._vector_step()
        for _ in range(trainer._due_updates()):
            trainer.learner.update()
    assert trainer.learner.update_count == 6
    return trainer


def learned(state):
    """Return a copy of an agent's state but for its random streams."""
    if isinstance(state, dict):
        return {name: learned(value) for name, value in state.items() if name not in ("generator", "generators")}
    return copy.deepcopy(state)


def run_spoilt(trainer, point):
    with pytest.MonkeyPatch.context() as patch:
        POINTS[point][0](patch, trainer)
        with pytest.raises(NonFiniteError) as error:
            trainer.run(StopRequest())
    trainer.close()
    return error.value


@pytest.mark.parametrize("point", POINTS)
def test_what_is_not_finite_is_named_at_once_and_changes_nothing(tmp_path, point):
    trainer = learning(tmp_path / "run")
    before, stored = learned(trainer.agent.state_dict()), trainer.replay.size.tolist()
    failure = run_spoilt(trainer, point)
    assert POINTS[point][1] in str(failure)
    assert_same_state(learned(trainer.agent.state_dict()), before)
    is_in_update = point in IN_UPDATES
    assert trainer.learner.update_count == 6 + is_in_update
    assert trainer.step_count == (30 + is_in_update) * 4
    assert trainer.replay.size.tolist() == [size + 2 * is_in_update for size in stored]
    assert latest(tmp_path / "run" / "checkpoints") is None
    assert (tmp_path / "run" / "nonfinite" / "7.pt").exists() == is_in_update


@pytest.mark.parametrize("point", POINTS)
def test_stopping_and_saving_saves_what_is_intact(tmp_path, point):
    trainer = learning(tmp_path / "run", on_nonfinite="save")
    before = learned(trainer.agent.state_dict())
    failure = run_spoilt(trainer, point)
    assert POINTS[point][1] in str(failure)
    checkpoint = latest(tmp_path / "run" / "checkpoints")
    if point == "action":
        assert checkpoint is None
        assert failure.__notes__ == ["(not saved: the agent itself is broken)", "after 120 environment steps"]
        return
    assert checkpoint is not None
    assert load(checkpoint, "trainer")["step_count"] == trainer.step_count
    assert_same_state(learned(load(checkpoint, "agent")), before)
    second = build(tmp_path / "run", eval_every=0, checkpoint_every=0, total_steps=160, resume_from=checkpoint)
    second.run(StopRequest())
    second.close()
    assert second.step_count == 160


@pytest.mark.parametrize("point", ["observation", "reward"])
def test_a_bad_step_beside_an_update_costs_the_update_nothing(tmp_path, point):
    trainers = [build(tmp_path / name, eval_every=0, checkpoint_every=0) for name in ("run", "twin")]
    for trainer in trainers:
        for _ in range(30):
            trainer._advance()
        assert trainer.learner.update_count == 5
    stored = trainers[0].replay.size.tolist()
    run_spoilt(trainers[0], point)
    assert trainers[0].replay.size.tolist() == stored
    assert trainers[0].step_count == 30 * 4
    trainers[1]._advance()
    trainers[1].close()
    assert_same_state(learned(trainers[0].agent.state_dict()), learned(trainers[1].agent.state_dict()))


@pytest.mark.parametrize("point", IN_STEPS)
def test_skipping_is_for_updates_alone(tmp_path, point):
    run_spoilt(learning(tmp_path / "run", on_nonfinite="skip"), point)


@pytest.mark.parametrize("point", IN_UPDATES)
def test_a_skipped_update_is_counted_and_the_first_ones_are_kept(tmp_path, point):
    trainer = learning(tmp_path / "run", on_nonfinite="skip")
    before = learned(trainer.agent.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        POINTS[point][0](patch, trainer)
        for _ in range(5):
            trainer.learner.update()
    assert trainer.learner.skipped_updates == 5
    assert_same_state(learned(trainer.agent.state_dict()), before)
    assert {path.name for path in (tmp_path / "run" / "nonfinite").iterdir()} == {"7.pt", "8.pt", "9.pt"}
    trainer.learner.update()
    assert trainer.learner.skipped_updates == 5
    trainer.close()


@pytest.mark.parametrize("aggregator", ["mean", "pcgrad", "graddrop"])
def test_what_is_kept_repeats_the_update_bit_for_bit(tmp_path, aggregator):
    trainer = learning(tmp_path / "run", aggregator=aggregator)
    trainer.replay._storage[SECOND, :, 6 + 2] = torch.nan  # every reward: the cause lies in the batch
    with pytest.raises(NonFiniteError, match="critic loss of reach-west"):
        trainer.run(StopRequest())
    trainer.close()
    other = build(tmp_path / "other", aggregator=aggregator)
    other.close()
    metrics, found = repeat_update(tmp_path / "run" / "nonfinite" / "7.pt", other.agent, CPU)
    assert found == "critic loss of reach-west"
    assert metrics.keys() == trainer.learner._metrics.keys()
    for name, value in trainer.learner._metrics.items():
        assert torch.allclose(metrics[name], value, rtol=0, atol=0, equal_nan=True), name
    assert_same_state(other.agent.state_dict(), trainer.agent.state_dict())


def test_an_agent_that_is_no_number_itself_is_not_saved(tmp_path):
    trainer = learning(tmp_path / "run", on_nonfinite="save")
    assert isinstance(trainer.agent, MTSAC)
    trainer.agent.log_alpha[SECOND] = torch.nan
    with pytest.raises(NonFiniteError, match="temperature of reach-west") as error:
        trainer.run(StopRequest())
    trainer.close()
    assert "(not saved: the agent's state, temperature, log_alpha is not finite)" in error.value.__notes__
    assert latest(tmp_path / "run" / "checkpoints") is None


def test_an_update_noticed_after_others_is_not_repeated_in_its_stead(tmp_path):
    trainer = learning(tmp_path / "run")
    trainer.learner._device = torch.device("meta")  # not the CPU, so that looking waits, as on a GPU
    trainer.learner._sample = lambda: trainer.replay.sample(8)
    with pytest.MonkeyPatch.context() as patch:
        spoil_critic_loss(patch, trainer)
        trainer.learner.update()
    trainer.learner.update()
    with pytest.raises(NonFiniteError, match=r"update 7: critic loss .*\n.*cannot be repeated: others followed"):
        trainer.learner.check_finite()
    trainer.close()
    assert not (tmp_path / "run" / "nonfinite").exists()
