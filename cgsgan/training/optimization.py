"""From accumulated gradients to an update: average over processes, make finite, clip once, Adam."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cgsgan.training.settings import OptimizerConfig


@dataclass(kw_only=True)
class Updater:
    """One network's optimiser.

    Attributes:
        parameters: what is updated.
        adam: its optimiser.
        base_rates: learning rate of each parameter group at full strength.
        clip_norm: 0 is off.
        accelerator: averages gradients over processes.
    """

    parameters: list[nn.Parameter]
    adam: torch.optim.Adam
    base_rates: list[float]
    clip_norm: float
    accelerator: Accelerator

    def step(self, rate_factor: float) -> Tensor:
        """Average, sanitise, clip and apply the accumulated gradients, then clear them.

        Args:
            rate_factor: multiplies every group's base rate.

        Returns:
            The norm of the averaged gradient as it came: before it was made finite and clipped.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        average_over_processes(self.accelerator, gradients)
        found = norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(norm.isfinite()):
            for gradient in gradients:
                torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)
            norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        for group, rate in zip(self.adam.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * rate_factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return found


def average_over_processes(accelerator: Accelerator, gradients: list[Tensor]) -> None:
    """Replace gradients by their mean over all processes, in one collective call on one flat buffer.

    The step accumulates several backward passes into each gradient (views, fakes, reals, penalties), and clips the
    final one; a single reduction at that point is what both need, and costs the network's size once per update.
    """
    if accelerator.num_processes == 1:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    flat = accelerator.reduce(flat, reduction="mean")
    assert isinstance(flat, Tensor)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def generator_updater(
    generator: nn.Module, config: OptimizerConfig, accelerator: Accelerator, *, lazy_interval: int | None = None
) -> Updater:
    """Adam for a generator, with its position parameters in a group of their own.

    Args:
        generator: latents to scenes.
        config: rates.
        accelerator: averages gradients over processes.
        lazy_interval: steps between updates by a lazy regulariser of its own; None: it has none. See
            :func:`discriminator_updater` for the correction.
    """
    ratio = 1.0 if lazy_interval is None else lazy_interval / (lazy_interval + 1)
    positions: list[nn.Parameter] = generator.position_parameters()  # type: ignore[operator]
    position_ids = {id(p) for p in positions}
    others = [p for p in generator.parameters() if id(p) not in position_ids]
    rates = [config.generator_lr * ratio, config.generator_lr * config.position_lr_multiplier * ratio]
    groups = [{"params": others, "lr": rates[0]}, {"params": positions, "lr": rates[1]}]
    adam = torch.optim.Adam(groups, betas=(0.0, config.beta2**ratio), eps=1e-8)
    return Updater(
        parameters=[*others, *positions],
        adam=adam,
        base_rates=rates,
        clip_norm=config.generator_clip_norm,
        accelerator=accelerator,
    )


def discriminator_updater(
    discriminator: nn.Module, config: OptimizerConfig, accelerator: Accelerator, *, r1_interval: int
) -> Updater:
    """Adam for a discriminator, corrected for lazy regularisation (StyleGAN2, appendix B).

    Every ``r1_interval`` steps there is one more update; rate and decay are lowered so that the memory and the
    distance covered stay those of ``r1_interval`` updates.
    """
    ratio = r1_interval / (r1_interval + 1)
    parameters = list(discriminator.parameters())
    rate = config.discriminator_lr * ratio
    adam = torch.optim.Adam(parameters, lr=rate, betas=(0.0, config.beta2**ratio), eps=1e-8)
    return Updater(
        parameters=parameters,
        adam=adam,
        base_rates=[rate],
        clip_norm=config.discriminator_clip_norm,
        accelerator=accelerator,
    )
