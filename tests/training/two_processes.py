"""Run by test_trainer under one or two processes: two steps, then gradients and weights go to a file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from tests.tiny_experiment import tiny_config, tiny_trainer


def main(out: str) -> None:
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = tiny_trainer(tiny_config(), Path(folder), accelerator)
        found: dict[str, torch.Tensor] = {}

        def keep(prefix: str, parameters: list[torch.nn.Parameter], step: int) -> None:
            for index, parameter in enumerate(parameters):
                if parameter.grad is not None:
                    found[f"{prefix}.{step}.{index}"] = parameter.grad.clone()

        for name in ("generator", "discriminator"):
            updater = getattr(trainer, f"{name}_updater")
            updater.adam.register_step_pre_hook(
                lambda *_, n=name, u=updater: keep(f"{n}_gradient", u.parameters, trainer.step_index)
            )
        for _ in range(2):
            trainer.train_step()
        for name in ("generator", "discriminator"):
            for index, parameter in enumerate(getattr(trainer.steps, name).parameters()):
                found[f"{name}_weight.{index}"] = parameter.detach().clone()
        for name, buffer in trainer.ema.named_buffers():
            found[f"buffer.{name}"] = buffer.clone()
        if accelerator.is_main_process:
            found["processes"] = torch.tensor(accelerator.num_processes)
            save_file({name: value.contiguous() for name, value in found.items()}, out)
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1])
