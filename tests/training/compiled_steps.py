"""Run by test_compilation, away from the tests' type checks, which a compiler cannot trace.

Makes two steps, eager and compiled; writes the gradients of all phases, and how many graphs the compiler took.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file

from cgsgan.training.compilation import compile_networks
from tests.tiny_experiment import tiny_config, tiny_draws, tiny_reals, tiny_steps


def two_steps(compiled: bool) -> dict[str, torch.Tensor]:
    config, graphs = tiny_config(), 0
    steps = tiny_steps(config)
    if compiled:

        def backend(graph, inputs):
            nonlocal graphs
            graphs += 1
            return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

        compile_networks([steps.generator, steps.discriminator], torch.device("cpu"), backend=backend)
        graphs = 0  # without that of the probe
    found: dict[str, torch.Tensor] = {}
    for seen, reuse in ((10, True), (1000, False)):
        _, fakes = steps.generator_gradients(tiny_draws(config, 2), seen, keep_view=1 if reuse else None)
        if fakes is None:
            fakes = steps.fresh_fakes(tiny_draws(config, 1), 0)
        keep(found, f"{seen} generator", steps.generator)
        steps.discriminator_gradients(fakes, tiny_reals(config), seen)
        steps.penalty_gradients(tiny_reals(config), seen)
        keep(found, f"{seen} discriminator", steps.discriminator)
    found["w_average"] = steps.generator.get_buffer("mapping.w_average").clone()
    found["graphs"] = torch.tensor(graphs)
    return found


def keep(found: dict[str, torch.Tensor], prefix: str, network: torch.nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found[f"{prefix} {name}"] = parameter.grad.clone().contiguous()
    network.zero_grad(set_to_none=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in ("eager", "compiled"):
        save_file(two_steps(name == "compiled"), f"{sys.argv[1]}/{name}.safetensors")
