"""Adam over one flat tensor, which takes no step where a flag on the device says so."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Adam:
    """Adam that leaves parameters and moments as they are where a flag on the device says so, without asking it."""

    def __init__(self, flat: Float[Tensor, " param"], lr: float, eps: float) -> None:
        self.lr = lr
        self._flat = flat
        self._optimizer = torch.optim.Adam([flat], lr=lr, eps=eps, fused=True, capturable=flat.device.type == "cuda")
        self.state: dict[str, Tensor] = {
            "step": torch.zeros((), device=flat.device),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }
        """Count and moments, under torch's names."""
        self._optimizer.state[flat] = self.state

    def moves(self, mean: Tensor, square: Tensor, gradient: Float[Tensor, "candidate *shape"]) -> Tensor:
        """Return what one step from here would subtract from some parameters, for several gradients at once.

        Args:
            mean: Their first moments.
            square: Their second moments.
            gradient: Of these parameters.
        """
        options = self._optimizer.param_groups[0]
        beta1, beta2 = options["betas"]
        count = self.state["step"] + 1
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient.square()
        scale = (square / (1 - beta2**count)).sqrt() + options["eps"]
        return options["lr"] / (1 - beta1**count) * mean / scale

    def step(self, gradient: Float[Tensor, " param"], is_finite: Bool[Tensor, ""]) -> None:
        """Take the step where `is_finite`, else none."""
        self._flat.grad = gradient
        # Read by the fused kernel; torch's own GradScaler sets these two attributes to skip a step on the device.
        vars(self._optimizer).update(found_inf=(~is_finite).float(), grad_scale=None)
        self._optimizer.step()
        self._flat.grad = None

    def tensors(self) -> list[Tensor]:
        """Return all that a step changes, itself."""
        return [self._flat, *self.state.values()]
