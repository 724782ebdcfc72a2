"""Multi-task soft actor-critic: one actor and twin critics for all tasks, task gradients through an aggregator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import vmap

from mtrl.agents.adam import Adam
from mtrl.agents.component import Component, MakeNetwork, check_state, copy_into
from mtrl.agents.flat import FlatParameters
from mtrl.agents.losses import actor_loss, critic_loss, split_policy, squashed_sample, td_target, temperature_gradient
from mtrl.agents.standardizer import Standardizer
from mtrl.aggregators.base import Aggregator
from mtrl.interfaces import Batch, EnvSpec, Metrics, Parameters
from mtrl.networks.ensemble import Ensemble
from mtrl.seeding import copy_generator, load_generator, torch_generator
from mtrl.timing import Stopwatch
from mtrl.transference import StepKind

ACTOR_OUTPUT_BOUND, CRITIC_OUTPUT_BOUND = 1e-3, 3e-3
"""Output layers start uniform in +- these, so that first actions and values are near zero (Lillicrap et al. 2016)."""

LARGEST_BATCH = 2**20
"""Transitions per task, far more than any replay should give at once; larger ones are a slip of the keyboard."""


class CriticInputs(NamedTuple):
    """Everything one task's critic loss depends on besides the critics' parameters."""

    obs: Float[Tensor, "batch obs"]
    action: Float[Tensor, "batch action"]
    target: Float[Tensor, " batch"]
    task: Tensor


class ActorInputs(NamedTuple):
    """Everything one task's actor loss depends on besides the actor's parameters."""

    obs: Float[Tensor, "batch obs"]
    noise: Float[Tensor, "batch action"]
    task: Tensor
    temperature: Float[Tensor, ""]
    critic_private: Parameters


class MTSAC:
    """Soft actor-critic over T tasks with a temperature per task.

    Source: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", 2018; multi-task settings of Meta-World+
    (McLean et al. 2025).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Multi-task soft actor-critic."""

        gamma: float = 0.99
        """Discount factor."""
        tau: float = 0.005
        """Step of the target critics towards the online ones, per update."""
        batch_size: int = 128
        """Transitions per task in each update."""
        critic_lr: float = 3e-4
        """Adam step size of the critics."""
        actor_lr: float = 3e-4
        """Adam step size of the actor."""
        temperature_lr: float = 3e-4
        """Adam step size of the temperatures."""
        adam_eps: float = 1e-8
        """Adam's epsilon. Methods such as Aligned-MTL and DiBS return small directions: keep it far below them."""
        max_grad_norm: float = 1.0
        """Clip the combined gradient of the actor and of the critics to this norm, and each task's head to the same by
        itself."""
        initial_temperature: float = 1.0
        """Entropy temperature of every task at the start."""
        temperatures: Literal["per_task", "shared"] = "per_task"
        """Whether every task adapts its own temperature, or all adapt one to the mean of their entropies."""
        min_obs_std: float | None = None
        """Standardise observations by the first batch's mean and deviation of every feature, the latter at least this;
        None leaves observations as they are."""
        transference_step: StepKind = "optimizer"
        """Whose step transference is measured after: Adam's from its present moments, or plain gradient descent's."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            for name in ("critic_lr", "actor_lr", "temperature_lr", "adam_eps", "max_grad_norm", "initial_temperature"):
                if not getattr(self, name) > 0:
                    raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
                if getattr(self, name) == float("inf") and name != "max_grad_norm":  # of which inf clips nothing
                    raise ValueError(f"{name} must be finite, got inf")
            if self.min_obs_std is not None and not 0 < self.min_obs_std < float("inf"):
                raise ValueError(f"min_obs_std must be positive and finite, or None, got {self.min_obs_std}")
            if not 1 <= self.batch_size <= LARGEST_BATCH:
                raise ValueError(f"batch_size must be at least 1 and at most {LARGEST_BATCH}, got {self.batch_size}")
            if not 0 <= self.gamma <= 1:
                raise ValueError(f"gamma must lie in [0, 1], got {self.gamma}")
            if not 0 < self.tau <= 1:
                raise ValueError(f"tau must lie in (0, 1], got {self.tau}")

    def __init__(
        self,
        config: Config,
        *,
        spec: EnvSpec,
        make_network: MakeNetwork,
        critic_aggregator: Aggregator,
        actor_aggregator: Aggregator,
        device: torch.device,
        seed: int,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.stopwatch = stopwatch or Stopwatch()
        self.action_dim = spec.action_dim
        self.target_entropy = -float(spec.action_dim)
        self.standardize = Standardizer(spec.obs_dim, config.min_obs_std, device)
        self.tasks = torch.arange(spec.num_tasks, device=device)[:, None]
        actor = make_network(
            input_dim=spec.obs_dim,
            output_dim=2 * spec.action_dim,
            num_tasks=spec.num_tasks,
            output_bound=ACTOR_OUTPUT_BOUND,
        )
        critic = make_network(
            input_dim=spec.obs_dim + spec.action_dim,
            output_dim=1,
            num_tasks=spec.num_tasks,
            output_bound=CRITIC_OUTPUT_BOUND,
        )
        common = {
            "num_tasks": spec.num_tasks,
            "adam_eps": config.adam_eps,
            "max_grad_norm": config.max_grad_norm,
            "device": device,
            "seed": seed,
            "stopwatch": self.stopwatch,
        }
        self.actor = Component("actor", actor, actor_aggregator, lr=config.actor_lr, **common)
        self.critic = Component("critic", Ensemble(critic, size=2), critic_aggregator, lr=config.critic_lr, **common)
        self.target = FlatParameters(self.critic.shared, self.critic.private, device)
        self.target_shared, self.target_private = self.target.shared, self.target.private
        self.log_alpha = torch.full((spec.num_tasks,), config.initial_temperature, device=device).log()
        self.temperature_adam = Adam(self.log_alpha, config.temperature_lr, config.adam_eps)
        self.generators = {name: torch_generator(seed, "agent", name, device=device) for name in ("act", "update")}

    # ------------------------------------------------------------------------------------------------ acting

    @torch.no_grad()
    def act(self, obs: Float[Tensor, "task env obs"]) -> Float[Tensor, "task env action"]:
        """Sample exploring actions."""
        output = self.actor(self.standardize(obs), self.tasks.expand(obs.shape[:2]))
        action, _ = squashed_sample(output, self._noise(obs, self.generators["act"]))
        return action

    @torch.no_grad()
    def act_deterministic(self, obs: Float[Tensor, "task env obs"]) -> Float[Tensor, "task env action"]:
        """Return the squashed mean of the policy."""
        mean, _ = split_policy(self.actor(self.standardize(obs), self.tasks.expand(obs.shape[:2])))
        return mean.tanh()

    def seed_actions(self, seed: int) -> None:
        """Start the random stream of exploring actions anew."""
        self.generators["act"].set_state(torch_generator(seed, "agent", "act", device=self.device).get_state())

    def act_stream(self) -> torch.Generator:
        """Return the random stream of exploring actions."""
        return self.generators["act"]

    # ---------------------------------------------------------------------------------------------- learning

    @torch.no_grad()
    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch: critics, actor, temperatures, target critics.

        What is not finite is not learned from: wherever it appears, nothing changes but the random streams.
        """
        generator = self.generators["update"]
        self.standardize.fit_once(batch.obs)
        batch = self._standardized(batch)
        with self.stopwatch("critic"):
            before = self.critic.copy_learned()
            yes = torch.ones((), dtype=torch.bool, device=self.device)
            critic, critic_metrics, may_step = self.critic.descend(
                self._critic_loss, self._critic_inputs(batch, generator), yes
            )
        with self.stopwatch("actor"):
            temperature = self.log_alpha.exp()
            actor, actor_metrics, is_finite = self.actor.descend(
                self._actor_loss, self._actor_inputs(batch, generator), may_step
            )
            gradient = temperature_gradient(actor.metrics["log_prob"], self.target_entropy)
            if self.config.temperatures == "shared":  # copies of one number that take the same steps
                gradient = gradient.mean().expand_as(gradient).contiguous()
            self.temperature_adam.step(gradient, is_finite & gradient.isfinite().all())
        with self.stopwatch("critic"):
            self.critic.undo(before, is_finite)
            self._move_targets(is_finite)
        return {
            "temperature_nonfinite": ~temperature.isfinite(),
            **critic_metrics,
            **actor_metrics,
            "q": critic.metrics["q"],
            "entropy": -actor.metrics["log_prob"].mean(-1),
            "temperature": temperature,
        }

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> Metrics:
        """Measure the gradient systems of critics and actor on `batch`; changes no state and no random stream."""
        generator = copy_generator(self.generators["update"])
        batch = self._standardized(batch)
        return {
            **self.critic.measure(self._critic_loss, self._critic_inputs(batch, generator)),
            **self.actor.measure(self._actor_loss, self._actor_inputs(batch, generator)),
        }

    @torch.no_grad()
    def transference(self, batch: Batch) -> Metrics:
        """Measure on `batch` how much one task's step helps the others; changes no state and no random stream."""
        generator = copy_generator(self.generators["update"])
        batch = self._standardized(batch)
        step = self.config.transference_step
        critic = self.critic.transference(self._critic_loss, self._critic_inputs(batch, generator), step)
        actor = self.actor.transference(self._actor_loss, self._actor_inputs(batch, generator), step)
        return {"critic_transference": critic, "actor_transference": actor}

    # ------------------------------------------------------------------------------------ the losses of one task

    def _critic_loss(self, shared: Parameters, private: Parameters, inputs: CriticInputs, /) -> tuple[Tensor, Metrics]:
        q = self.critic.network(shared, private, torch.cat([inputs.obs, inputs.action], dim=1), inputs.task)
        return critic_loss(q, inputs.target), {"q": q.mean()}

    def _actor_loss(self, shared: Parameters, private: Parameters, inputs: ActorInputs, /) -> tuple[Tensor, Metrics]:
        action, log_prob = squashed_sample(self.actor.network(shared, private, inputs.obs, inputs.task), inputs.noise)
        obs_action = torch.cat([inputs.obs, action], dim=1)
        q = self.critic.network(self.critic.shared, inputs.critic_private, obs_action, inputs.task)
        return actor_loss(log_prob, q, inputs.temperature), {"log_prob": log_prob}

    # ---------------------------------------------------------------- what they depend on, drawn once per update

    def _critic_inputs(self, batch: Batch, generator: torch.Generator) -> CriticInputs:
        """Draw the next actions and compute the targets."""
        next_output = self.actor(batch.next_obs, batch.task)
        next_action, next_log_prob = squashed_sample(next_output, self._noise(batch.next_obs, generator))
        next_q = vmap(self.critic.network, in_dims=(None, 0, 0, 0))(
            self.target_shared,
            self.target_private,
            torch.cat([batch.next_obs, next_action], dim=-1),
            batch.task,
        )
        temperature = self.log_alpha.exp()[:, None]
        target = td_target(batch.reward, batch.terminated, next_q, next_log_prob, temperature, self.config.gamma)
        return CriticInputs(batch.obs, batch.action, target, batch.task)

    def _actor_inputs(self, batch: Batch, generator: torch.Generator) -> ActorInputs:
        """Draw the action noise."""
        noise = self._noise(batch.obs, generator)
        return ActorInputs(batch.obs, noise, batch.task, self.log_alpha.exp(), self.critic.private)

    def _standardized(self, batch: Batch) -> Batch:
        """Return the batch with observations as the networks see them."""
        return batch._replace(obs=self.standardize(batch.obs), next_obs=self.standardize(batch.next_obs))

    def _noise(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(*obs.shape[:-1], self.action_dim, generator=generator, device=obs.device)

    def _move_targets(self, is_finite: Bool[Tensor, ""]) -> None:
        """Move the target critics by tau towards the online ones."""
        self.target.flat.lerp_(self.critic.parameters.flat, self.config.tau * is_finite)

    # ------------------------------------------------------------------------------------------- state on disk

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimisers, aggregators and random streams. The tensors are the agent's own."""
        return {
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "target": {"shared": self.target_shared, "private": self.target_private},
            "temperature": {
                "log_alpha": self.log_alpha,
                "optimizer": self.temperature_adam.state,
            },
            "standardizer": self.standardize.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def streams(self) -> list[torch.Generator]:
        """Return the random streams that updates draw from."""
        return [self.generators["update"], self.critic.generator, self.actor.generator]

    def tensors(self) -> list[Tensor]:
        """Return all tensors that updates change, themselves."""
        return [*self.actor.tensors(), *self.critic.tensors(), *self.temperature_adam.tensors(), self.target.flat]

    def state_with_streams(self, streams: Sequence[Tensor]) -> dict[str, Any]:
        """Return `state_dict` with other states of the `streams`."""
        state = self.state_dict()
        state["generators"]["update"], state["critic"]["generator"], state["actor"]["generator"] = streams
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result.

        Raises:
            ValueError: Names or shapes differ from this agent's; nothing has been changed then.
        """
        check_state(self.state_dict(), state)
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        copy_into(self.target_shared, state["target"]["shared"])
        copy_into(self.target_private, state["target"]["private"])
        copy_into({"log_alpha": self.log_alpha}, {"log_alpha": state["temperature"]["log_alpha"]})
        copy_into(self.temperature_adam.state, state["temperature"]["optimizer"])
        self.standardize.load_state_dict(state["standardizer"])
        for name, generator in self.generators.items():
            load_generator(generator, state["generators"][name])
