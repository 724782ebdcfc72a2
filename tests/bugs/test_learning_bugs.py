"""Published bugs of the soft actor-critic update, put back one by one: each breaks a fact, and is caught.

The one fact: ten updates of three tasks leave the parameters of a plain SAC that loops over its tasks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from mtrl.agents.component import Component
from mtrl.agents.losses import temperature_gradient
from mtrl.agents.mtsac import MTSAC, ActorInputs
from mtrl.interfaces import Metrics
from tests.agents.plain_sac import FAST, assert_learns_like_plain
from tests.agents.small_agent import build, every_network

# ---- fact


def the_agent_learns_like_a_plain_sac(network_name: str) -> None:
    agent = build(network_name, "mean", **FAST)
    agent.log_alpha.copy_(torch.tensor([0.1, 1.0, 0.4]).log())  # each task its own
    assert_learns_like_plain(agent)


# ---- bugs


@contextmanager
def other(agent: MTSAC, **attributes: Any) -> Iterator[None]:
    """Let the agent have these attributes for a while."""
    own = {name: getattr(agent, name) for name in attributes}
    vars(agent).update(attributes)
    try:
        yield
    finally:
        vars(agent).update(own)


def within(monkeypatch: pytest.MonkeyPatch, method: str, attributes: Callable[..., dict[str, Any]]) -> None:
    """Let the agent have other attributes, which may depend on the arguments, within one of its methods."""
    original = getattr(MTSAC, method)

    def patched(self: MTSAC, *arguments: Any) -> Any:
        with other(self, **attributes(self, *arguments)):
            return original(self, *arguments)

    monkeypatch.setattr(MTSAC, method, patched)


def next_actions_follow_the_current_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    """metaworld-algorithms, mtsac.py, update_critic, the branch for PCGrad and GradNorm, since 2025-03-17."""
    within(
        monkeypatch,
        "_critic_inputs",
        lambda self, batch, _: {"actor": lambda obs, task, actor=self.actor: actor(batch.obs, task)},
    )


def all_tasks_share_the_first_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """CAGrad, Nash-MTL, FAMO, FairGrad and DiBS on facebookresearch/mtrl: `log_alpha[0]` for every task."""
    for method in ("_critic_inputs", "_actor_inputs"):
        within(monkeypatch, method, lambda self, *_: {"log_alpha": self.log_alpha[:1].expand_as(self.log_alpha)})


def the_targets_use_the_temperature_of_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not published: an index shifted by one, in the critics' targets."""
    within(monkeypatch, "_critic_inputs", lambda self, *_: {"log_alpha": self.log_alpha.roll(1)})


def the_actor_uses_the_temperature_of_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not published: an index shifted by one, in the actor's loss."""
    within(monkeypatch, "_actor_inputs", lambda self, *_: {"log_alpha": self.log_alpha.roll(1)})


def a_temperature_follows_the_entropy_of_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not published: an index shifted by one, in the temperatures' gradient."""
    monkeypatch.setattr(
        "mtrl.agents.mtsac.temperature_gradient",
        lambda log_prob, target_entropy: temperature_gradient(log_prob.roll(1, 0), target_entropy),
    )


def the_targets_use_the_online_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not published: no target network where one belongs."""
    within(
        monkeypatch,
        "_critic_inputs",
        lambda self, *_: {"target_shared": self.critic.shared, "target_private": self.critic.private},
    )


def the_actor_uses_the_target_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not published: a target network where the online one belongs."""
    actor_inputs, actor_loss = MTSAC._actor_inputs, MTSAC._actor_loss

    def inputs_with_targets(self: MTSAC, *arguments: Any) -> ActorInputs:
        return actor_inputs(self, *arguments)._replace(critic_private=self.target_private)

    def loss_with_targets(self: MTSAC, *arguments: Any) -> tuple[Tensor, Metrics]:
        with monkeypatch.context() as patch:
            patch.setattr(self.critic, "shared", self.target_shared)
            return actor_loss(self, *arguments)

    monkeypatch.setattr(MTSAC, "_actor_inputs", inputs_with_targets)
    monkeypatch.setattr(MTSAC, "_actor_loss", loss_with_targets)


def gradients_are_never_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nash-MTL's and DiBS's multi-task SAC: `if norm > max_norm: g /= max_norm` with max_norm 1 does nothing."""
    monkeypatch.setattr(Component, "_clip", lambda self, norm: torch.ones_like(norm))


BUGS = {
    next_actions_follow_the_current_observations: (0, "critic"),
    all_tasks_share_the_first_temperature: (0, "critic"),
    the_targets_use_the_temperature_of_another_task: (0, "critic"),
    the_actor_uses_the_temperature_of_another_task: (0, "actor"),
    a_temperature_follows_the_entropy_of_another_task: (1, "temperature"),  # Adam's first step is but a sign
    the_targets_use_the_online_critics: (1, "critic"),  # at first they are the same
    the_actor_uses_the_target_critics: (0, "actor"),  # the online ones have just moved
    gradients_are_never_clipped: (0, "critic"),
}
"""The first update that goes wrong, and with what it begins."""


@every_network
def test_fact_holds(network_name):
    the_agent_learns_like_a_plain_sac(network_name)


@every_network
@pytest.mark.parametrize("put_back", BUGS, ids=lambda put_back: put_back.__name__)
def test_bug_is_caught(put_back, network_name, monkeypatch):
    put_back(monkeypatch)
    update, part = BUGS[put_back]
    with pytest.raises(AssertionError, match=f"update {update} is unlike a plain SAC's from /{part}/"):
        the_agent_learns_like_a_plain_sac(network_name)
