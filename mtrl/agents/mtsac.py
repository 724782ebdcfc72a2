"""Multi-task soft actor-critic: one actor and twin critics for all tasks, task gradients through an aggregator."""

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from mtrl.agents.losses import actor_loss, critic_loss, split_policy, squashed_sample, td_target, temperature_gradient
from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.system import GradientSystem, gramian
from mtrl.gradients import TaskGradients, Update, aggregate, measure, task_gradients
from mtrl.interfaces import Batch, EnvSpec, Metrics, Network, Parameters
from mtrl.networks.ensemble import Ensemble
from mtrl.seeding import copy_generator, torch_generator
from mtrl.timing import Stopwatch

ACTOR_OUTPUT_BOUND, CRITIC_OUTPUT_BOUND = 1e-3, 3e-3
"""Output layers start uniform in +- these, so that first actions and values are near zero (Lillicrap et al. 2016)."""


class MakeNetwork(Protocol):
    """Builds an architecture of given sizes."""

    def __call__(self, *, input_dim: int, output_dim: int, num_tasks: int, output_bound: float) -> Network:
        """Return the network."""
        ...


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
        """Clip the combined gradient of the actor and of the critics to this norm."""
        initial_temperature: float = 1.0
        """Entropy temperature of every task at the start."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            for name in ("critic_lr", "actor_lr", "temperature_lr", "adam_eps", "max_grad_norm", "initial_temperature"):
                if not getattr(self, name) > 0:
                    raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
            if self.batch_size < 1:
                raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
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
        self.stopwatch = stopwatch or Stopwatch()
        self.num_tasks = spec.num_tasks
        self.action_dim = spec.action_dim
        self.target_entropy = -float(spec.action_dim)
        self.device = device
        sizes = {"num_tasks": spec.num_tasks}
        self.actor = make_network(
            input_dim=spec.obs_dim, output_dim=2 * spec.action_dim, output_bound=ACTOR_OUTPUT_BOUND, **sizes
        )
        self.critic = Ensemble(
            make_network(
                input_dim=spec.obs_dim + spec.action_dim, output_dim=1, output_bound=CRITIC_OUTPUT_BOUND, **sizes
            ),
            size=2,
        )
        self.actor_shared, self.actor_private = self._init(self.actor, torch_generator(seed, "actor"))
        self.critic_shared, self.critic_private = self._init(self.critic, torch_generator(seed, "critic"))
        self.target_shared = {name: leaf.clone() for name, leaf in self.critic_shared.items()}
        self.target_private = {name: leaf.clone() for name, leaf in self.critic_private.items()}
        self.log_alpha = torch.full((spec.num_tasks,), config.initial_temperature, device=device).log()
        self.actor_optimizer = self._adam([*self.actor_shared.values(), *self.actor_private.values()], config.actor_lr)
        self.critic_optimizer = self._adam(
            [*self.critic_shared.values(), *self.critic_private.values()], config.critic_lr
        )
        self.temperature_optimizer = self._adam([self.log_alpha], config.temperature_lr)
        self.critic_aggregator = self._setup(critic_aggregator, self.critic_shared)
        self.actor_aggregator = self._setup(actor_aggregator, self.actor_shared)
        self.generators = {
            name: torch_generator(seed, "agent", name, device=device)
            for name in ("act", "update", "critic_aggregator", "actor_aggregator")
        }

    # ------------------------------------------------------------------------------------------------ acting

    @torch.no_grad()
    def act(self, obs: Float[Tensor, "task env obs"]) -> Float[Tensor, "task env action"]:
        """Sample exploring actions."""
        action, _ = squashed_sample(self._policy(obs), self._noise(obs, self.generators["act"]))
        return action

    @torch.no_grad()
    def act_deterministic(self, obs: Float[Tensor, "task env obs"]) -> Float[Tensor, "task env action"]:
        """Return the squashed mean of the policy."""
        mean, _ = split_policy(self._policy(obs))
        return mean.tanh()

    # ---------------------------------------------------------------------------------------------- learning

    @torch.no_grad()
    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch: critics, actor, temperatures, targets; nothing if the critics' part is not finite."""
        with self.stopwatch("critic"):
            critic, critic_norm, critic_is_finite = self._update_critic(batch)
        with self.stopwatch("actor"):
            temperature = self.log_alpha.exp()
            actor, actor_norm, is_finite = self._update_actor(batch, critic_is_finite)
            self._update_temperature(actor.metrics["log_prob"], is_finite)
        with self.stopwatch("critic"):
            weight = self.config.tau * critic_is_finite
            torch._foreach_lerp_(self._target_leaves(), self._critic_leaves(), [weight] * len(self._target_leaves()))
        return {
            **_metrics("critic", critic, critic_norm),
            "q": critic.metrics["q"],
            **_metrics("actor", actor, actor_norm),
            "entropy": -actor.metrics["log_prob"].mean(-1),
            "temperature": temperature,
        }

    def _update_critic(self, batch: Batch) -> tuple[Update, Tensor, Tensor]:
        update = aggregate(
            self._critic_loss,
            self.critic_shared,
            self.critic_private,
            self._critic_inputs(batch, self.generators["update"]),
            self.critic_aggregator,
            self.generators["critic_aggregator"],
            self.stopwatch,
        )
        finite = ~update.nonfinite.any()
        norm, finite = self._descend(self.critic_optimizer, self.critic_shared, self.critic_private, update, finite)
        return update, norm, finite

    def _update_actor(self, batch: Batch, critic_is_finite: Tensor) -> tuple[Update, Tensor, Tensor]:
        update = aggregate(
            self._actor_loss,
            self.actor_shared,
            self.actor_private,
            self._actor_inputs(batch, self.generators["update"]),
            self.actor_aggregator,
            self.generators["actor_aggregator"],
            self.stopwatch,
        )
        finite = critic_is_finite & ~update.nonfinite.any()
        norm, finite = self._descend(self.actor_optimizer, self.actor_shared, self.actor_private, update, finite)
        return update, norm, finite

    def _update_temperature(self, log_prob: Float[Tensor, "task batch"], is_finite: Tensor) -> None:
        self.log_alpha.grad = temperature_gradient(log_prob, self.target_entropy)
        self._step(self.temperature_optimizer, is_finite & self.log_alpha.grad.isfinite().all())

    def diagnose(self, batch: Batch) -> Metrics:
        """Measure the gradient systems of critics and actor on `batch`; changes no state and no random stream."""
        generator = copy_generator(self.generators["update"])
        critic = task_gradients(
            self._critic_loss, self.critic_shared, self.critic_private, self._critic_inputs(batch, generator)
        )
        actor = task_gradients(
            self._actor_loss, self.actor_shared, self.actor_private, self._actor_inputs(batch, generator)
        )
        return {
            **_measure("critic", critic, self.critic_aggregator, self.generators["critic_aggregator"]),
            **_measure("actor", actor, self.actor_aggregator, self.generators["actor_aggregator"]),
        }

    # ---------------------------------------------------------------------------------------- losses of one task

    def _critic_loss(self, shared: Parameters, private: Parameters, inputs: CriticInputs) -> tuple[Tensor, Metrics]:
        q = self.critic(shared, private, torch.cat([inputs.obs, inputs.action], dim=1), inputs.task)
        return critic_loss(q, inputs.target), {"q": q.mean()}

    def _actor_loss(self, shared: Parameters, private: Parameters, inputs: ActorInputs) -> tuple[Tensor, Metrics]:
        action, log_prob = squashed_sample(self.actor(shared, private, inputs.obs, inputs.task), inputs.noise)
        q = self.critic(self.critic_shared, inputs.critic_private, torch.cat([inputs.obs, action], dim=1), inputs.task)
        return actor_loss(log_prob, q, inputs.temperature), {"log_prob": log_prob}

    def _critic_inputs(self, batch: Batch, generator: torch.Generator) -> CriticInputs:
        """Draw the next actions and compute the targets, once per update."""
        next_output = vmap(self.actor, in_dims=(None, 0, 0, 0))(
            self.actor_shared, self.actor_private, batch.next_obs, batch.task
        )
        next_action, next_log_prob = squashed_sample(next_output, self._noise(batch.next_obs, generator))
        next_q = vmap(self.critic, in_dims=(None, 0, 0, 0))(
            self.target_shared,
            self.target_private,
            torch.cat([batch.next_obs, next_action], dim=-1),
            batch.task,
        )
        target = td_target(
            batch.reward,
            batch.terminated,
            next_q,
            next_log_prob,
            self.log_alpha.exp()[:, None],
            self.config.gamma,
        )
        return CriticInputs(batch.obs, batch.action, target, batch.task)

    def _actor_inputs(self, batch: Batch, generator: torch.Generator) -> ActorInputs:
        """Draw the action noise, once per update."""
        noise = self._noise(batch.obs, generator)
        return ActorInputs(batch.obs, noise, batch.task, self.log_alpha.exp(), self.critic_private)

    # ------------------------------------------------------------------------------------------- state on disk

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimisers, aggregators and random streams."""
        return {
            "tensors": self._tensors(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers().items()},
            "critic_aggregator": self.critic_aggregator.state_dict(),
            "actor_aggregator": self.actor_aggregator.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result.

        Raises:
            ValueError: Names or shapes differ from this agent's.
        """
        own = self.state_dict()
        _check_names("parts of the state", own, state)
        for part in ("tensors", "optimizers", "generators"):
            _check_names(part, own[part], state[part])
        for name, leaf in own["tensors"].items():
            shape = state["tensors"][name].shape
            if leaf.shape != shape:
                raise ValueError(f"{name} has shape {tuple(leaf.shape)} here and {tuple(shape)} in the state")
        for name, leaf in own["tensors"].items():
            leaf.copy_(state["tensors"][name])
        for name, optimizer in self._optimizers().items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.critic_aggregator.load_state_dict(state["critic_aggregator"])
        self.actor_aggregator.load_state_dict(state["actor_aggregator"])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name].cpu())

    # -------------------------------------------------------------------------------------------------- pieces

    def _policy(self, obs: Tensor) -> Tensor:
        """Evaluate the actor on the observations of all tasks."""
        task = torch.arange(self.num_tasks, device=obs.device)[:, None].expand(obs.shape[:2])
        return vmap(self.actor, in_dims=(None, 0, 0, 0))(self.actor_shared, self.actor_private, obs, task)

    def _noise(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(*obs.shape[:-1], self.action_dim, generator=generator, device=obs.device)

    def _descend(
        self, optimizer: torch.optim.Adam, shared: Parameters, private: Parameters, update: Update, is_finite: Tensor
    ) -> tuple[Float[Tensor, ""], Tensor]:
        """Clip and apply the gradients where all is finite; return the norm before clipping, and whether all was."""
        # The fused kernel reads gradients in the parameter's memory order, whatever their strides say.
        gradients = [leaf.contiguous() for leaf in (*update.shared.values(), *update.private.values())]
        for leaf, gradient in zip([*shared.values(), *private.values()], gradients, strict=True):
            leaf.grad = gradient
        norm = torch.nn.utils.get_total_norm(gradients)
        clip = (self.config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)  # 1e-6 as in torch's clip_grad_norm_
        torch._foreach_mul_(gradients, clip)
        is_finite = is_finite & norm.isfinite()
        self._step(optimizer, is_finite)
        return norm, is_finite

    @staticmethod
    def _step(optimizer: torch.optim.Adam, is_finite: Tensor) -> None:
        """Take the step where `is_finite`, else leave parameters and moments as they are, without asking the device."""
        optimizer.found_inf = (~is_finite).float()  # read by the fused kernel, as torch's GradScaler uses it
        optimizer.grad_scale = None
        optimizer.step()

    def _adam(self, leaves: list[Tensor], lr: float) -> torch.optim.Adam:
        return torch.optim.Adam(leaves, lr=lr, eps=self.config.adam_eps, fused=True)

    def _init(self, network: Network, generator: torch.Generator) -> tuple[Parameters, Parameters]:
        """Draw on the CPU, so that a seed means the same on every device."""
        shared, private = network.init(generator)
        return (
            {name: leaf.to(self.device) for name, leaf in shared.items()},
            {name: leaf.to(self.device) for name, leaf in private.items()},
        )

    def _setup(self, aggregator: Aggregator, shared: Parameters) -> Aggregator:
        aggregator.setup(self.num_tasks, [leaf.shape for leaf in shared.values()], self.device)
        return aggregator

    def _critic_leaves(self) -> list[Tensor]:
        return [*self.critic_shared.values(), *self.critic_private.values()]

    def _target_leaves(self) -> list[Tensor]:
        return [*self.target_shared.values(), *self.target_private.values()]

    def _optimizers(self) -> dict[str, torch.optim.Adam]:
        return {
            "actor": self.actor_optimizer,
            "critic": self.critic_optimizer,
            "temperature": self.temperature_optimizer,
        }

    def _tensors(self) -> Parameters:
        """Return all parameters under unique names."""
        groups = {
            "actor.shared": self.actor_shared,
            "actor.private": self.actor_private,
            "critic.shared": self.critic_shared,
            "critic.private": self.critic_private,
            "target.shared": self.target_shared,
            "target.private": self.target_private,
        }
        named = {f"{group}.{name}": leaf for group, leaves in groups.items() for name, leaf in leaves.items()}
        return named | {"log_alpha": self.log_alpha}


def _check_names(what: str, own: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise a ValueError unless both have the same keys."""
    if own.keys() != found.keys():
        raise ValueError(f"{what} differ between agent and state: {sorted(own.keys() ^ found.keys())}")


def _metrics(component: str, update: Update, norm: Tensor) -> Metrics:
    """Name what an update found."""
    metrics = {
        f"{component}_loss": update.losses,
        f"{component}_nonfinite": update.nonfinite,
        f"direction_norm/{component}": norm,
    }
    return metrics if update.weights is None else metrics | {f"{component}_weight": update.weights}


def _measure(component: str, gradients: TaskGradients, aggregator: Aggregator, generator: torch.Generator) -> Metrics:
    """Measure a gradient system, before and after a copy of the aggregator has seen it."""
    rows = tuple(gradients.shared.values())
    products = gramian(rows)
    system = GradientSystem(
        num_tasks=len(gradients.losses),
        losses=gradients.losses,
        gramian=torch.where(products.isfinite().all(), products, 0.0),  # solvers raise on NaN
        rows=rows,
        generator=copy_generator(generator),
    )
    aggregation = copy.deepcopy(aggregator).aggregate(system)
    found = measure(rows, aggregation)
    per_task = {f"{component}_{name}": value for name, value in found.items() if value.dim() > 0}
    scalars = {f"{name}/{component}": value for name, value in found.items() if value.dim() == 0}
    return per_task | scalars
