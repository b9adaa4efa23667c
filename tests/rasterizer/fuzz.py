"""Random calls of the compiled CPU core with numbers that should never arrive, and what must hold for each.

``test_fuzz.py`` runs some in every test run. Many more, each in a child process that may crash or hang without taking
the report along: ``python -m tests.rasterizer.fuzz --count 10000``.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rasterizer import autograd, backend
from rasterizer.autograd import MemoryPool, rasterize_cpu
from tests.rasterizer.scenes import SCENE_KINDS, look_at, make_backgrounds, make_scene

EXTREME = (1e-45, 1e-40, 1.2e-38, 1e-30, 1e-19, 1e-7, 1e7, 1e19, 1e30, 3e38)
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0)
SIZES = ((1, 1), (1, 37), (16, 16), (17, 1), (33, 50), (64, 48), (100, 5), (130, 97), (4096, 1), (2, 4096), (4096, 40))
COUNTS = (0, 1, 2, 15, 16, 17, 60, 600)
POISONS = (255, 0x4B)  # bytes: NaN as a float; 13323083 as a float, 1263225675 as an integer
SECONDS_PER_CASE = 20.0
STARTING, DONE = -2, -1  # what a child process reports in place of a seed


@dataclass(frozen=True)
class Case:
    """Arguments of one call; ``tame`` when all of its numbers are of common size, so that gradients must be finite."""

    tensors: dict[str, Tensor]
    options: dict[str, Any]
    threads: int
    isa: str
    tame: bool


class Dice:
    """Random choices of one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def pick(self, choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def spoil(self, tensor: Tensor, rate: float, values: tuple[float, ...]) -> Tensor:
        """Replace numbers at the given rate by one of ``values``, of either sign."""
        hit = torch.rand(tensor.shape, generator=self.generator) < rate
        drawn = torch.tensor(values)[torch.randint(len(values), tensor.shape, generator=self.generator)]
        sign = torch.randint(2, tensor.shape, generator=self.generator) * 2.0 - 1.0
        return torch.where(hit, drawn * sign, tensor)


def make_case_cameras(dice: Dice, batch: int, views: int, width: int, height: int) -> dict[str, Tensor]:
    """Cameras around the scene, inside it, and far away, with sane and absurd focal lengths."""
    viewmats, Ks = [], []
    for _ in range(batch * views):
        eye, target, down = torch.randn(3, 3, generator=dice.generator)
        distance = dice.pick((2.7, 2.7, 0.3, 0.05, 0.0, 50.0))
        viewmats.append(look_at(eye / eye.norm() * distance, 0.1 * target, down))
        focal = dice.pick((1.0, 2.0, 4.0, 0.1, 100.0, 1e4))
        aspect, cx, cy = dice.uniform(0.5, 2), dice.uniform(-0.5, 1.5) * width, dice.uniform(-0.5, 1.5) * height
        Ks.append(torch.tensor([[focal * width, 0.0, cx], [0.0, focal * aspect * width, cy], [0.0, 0.0, 1.0]]))
    return {
        "viewmats": torch.stack(viewmats).unflatten(0, (batch, views)),
        "Ks": torch.stack(Ks).unflatten(0, (batch, views)),
    }


def make_case(seed: int) -> Case:
    """The case of a seed."""
    dice = Dice(seed)
    width, height = dice.pick(SIZES)
    batch, views, count = dice.pick((1, 1, 2)), dice.pick((1, 2, 3)), dice.pick(COUNTS)
    sh_degree = dice.pick((None, None, None, 0, 1, 2, 3))
    channels = 3 if sh_degree is not None else dice.pick((3, 3, 1, 2, 5, 17))
    kind = dice.pick([kind for kind in SCENE_KINDS if kind != "degenerate" or count > 14])
    scene = make_scene(kind, batch=batch, count=count, channels=channels, sh_degree=sh_degree, seed=seed)
    cameras = make_case_cameras(dice, batch, views, width, height)
    special, extreme = dice.pick((0.0, 0.003, 0.1)), dice.pick((0.0, 0.0, 0.0, 0.003, 0.1))
    for name in scene:
        scene[name] = dice.spoil(dice.spoil(scene[name], extreme, EXTREME), special, SPECIAL)
    if dice.uniform() < 0.15:
        cameras = {name: dice.spoil(tensor, 0.1, SPECIAL + EXTREME) for name, tensor in cameras.items()}
        extreme = 1.0
    tensors = {**scene, **cameras}
    if dice.uniform() < 0.7:
        tensors["backgrounds"] = make_backgrounds(batch=batch, views=views, channels=channels, seed=seed)
    near = dice.pick((0.01, 0.01, 0.01, 0.2, 1e-6))
    options = {
        "width": width, "height": height, "sh_degree": sh_degree, "antialiased": dice.uniform() < 0.3,
        "depth": dice.uniform() < 0.5, "inria": dice.uniform() < 0.3, "near_plane": near,
        "eps2d": dice.pick((0.3, 0.3, 0.3, 0.0, 1e-4, 30.0)), "far_plane": dice.pick((1e10, 1e10, 2.7, math.inf)),
    }  # fmt: skip
    usual = near >= 0.01 and options["eps2d"] >= 0.3 and kind not in ("degenerate", "tiny")
    return Case(tensors, options, dice.pick((1, 2, 3)), dice.pick(backend.available_isas()), usual and not extreme)


@contextmanager
def poisoned(byte: int) -> Iterator[None]:
    """Every block of memory that a call gets is filled with one byte: outputs, scratch, gradients."""
    originals = {"empty": torch.empty, "empty_like": torch.empty_like}
    take = MemoryPool.take

    def fill(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_poisoned(*args: Any, **kwargs: Any) -> Tensor:
            tensor = allocate(*args, **kwargs)
            if tensor.numel():
                tensor.detach().view(-1).view(torch.uint8).fill_(byte)
            return tensor

        return allocate_poisoned

    try:
        for name, function in originals.items():
            setattr(torch, name, fill(function))
        MemoryPool.take = lambda pool, size: take(pool, size).fill_(byte)  # type: ignore[method-assign]
        yield
    finally:
        MemoryPool.take = take  # type: ignore[method-assign]
        for name, function in originals.items():
            setattr(torch, name, function)


def run_case(case: Case, byte: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Images and gradients of a case, and the counts of the call."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in case.tensors.items()}
    with poisoned(byte):
        colors, alphas, depths, info = rasterize_cpu(**leaves, **case.options)  # type: ignore[arg-type]
        outputs = {"colors": colors, "alphas": alphas} | ({} if depths is None else {"depths": depths})
        ramps = [torch.linspace(-1.0, 1.0, output.numel()).view(output.shape) for output in outputs.values()]
        gradients = torch.autograd.grad(list(outputs.values()), list(leaves.values()), ramps)
    images = {name: output.detach() for name, output in outputs.items()}
    return images | {f"gradient of {name}": gradient for name, gradient in zip(leaves, gradients)}, info


def check_case(case: Case) -> None:
    """Raise an ``AssertionError`` that says what does not hold."""
    torch.set_num_threads(case.threads)
    backend.select_isa(case.isa)
    (results, info), (again, _) = (run_case(case, byte) for byte in POISONS)
    for name, tensor in results.items():
        # Also for outputs that overflow to NaN: a number that nobody wrote would be another one in the second run.
        same = torch.equal(tensor.nan_to_num(12345.0), again[name].nan_to_num(12345.0))
        assert same, f"{name} depends on what memory held before"
    pairs = math.prod(case.tensors["viewmats"].shape[:2]) * case.tensors["means"].shape[1]
    assert 0 <= info["nonfinite"] <= info["culled"] <= pairs, info
    assert (info["instances"] > 0) == (info["culled"] < pairs), info
    assert (results["alphas"] >= 0).all(), "alphas"
    assert (results["alphas"] <= 1).all(), "alphas"
    for name, tensor in results.items():
        if "gradient" not in name or case.tame:
            assert tensor.isfinite().all(), f"{name} is not finite"
    check_dropped(case, results)


def check_dropped(case: Case, results: dict[str, Tensor]) -> None:
    """Splats with a number that is not finite have zero gradient."""
    degree, dropped = case.options["sh_degree"], torch.tensor(False)
    for name in ("means", "quats", "scales", "opacities", "colors"):
        tensor = case.tensors[name]
        if name == "colors" and degree is not None:
            tensor = tensor[:, :, : (degree + 1) ** 2]
        dropped = dropped | ~tensor.isfinite().flatten(2).all(-1) if tensor.ndim > 2 else dropped | ~tensor.isfinite()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        gradient = results[f"gradient of {name}"]
        assert (gradient[dropped.expand(gradient.shape[:2])] == 0).all(), f"{name} of a dropped splat has a gradient"


def work(seeds: range, current: Any, failures: Any) -> None:
    for seed in seeds:
        current.value = seed
        try:
            check_case(make_case(seed))
        except ValueError as error:  # errors with a name are allowed, and reported
            failures.put((seed, "error", str(error)))
        except AssertionError as error:
            failures.put((seed, "failure", str(error)))
    current.value = DONE


def run_many(start: int, count: int) -> list[tuple[int, str, str]]:
    """Run seeds in child processes; a crash or a hang costs one seed, not the run."""
    context = multiprocessing.get_context("spawn")
    found: list[tuple[int, str, str]] = []
    seed, stop = start, start + count
    while seed < stop:
        current, failures = context.Value("q", STARTING), context.SimpleQueue()
        child = context.Process(target=work, args=(range(seed, stop), current, failures))
        child.start()
        last, since, hangs = STARTING, time.monotonic(), False
        while child.is_alive() and not hangs:
            child.join(0.2)
            if current.value != last:
                last, since = current.value, time.monotonic()
            hangs = last >= 0 and time.monotonic() - since > SECONDS_PER_CASE
            while not failures.empty():
                found.append(failures.get())
        child.kill()
        child.join()
        while not failures.empty():
            found.append(failures.get())
        last = current.value
        if last != DONE:
            found.append((last, "hang" if hangs else "crash", "" if hangs else f"exit code {child.exitcode}"))
        assert last != STARTING, "the child process did not start"
        seed = stop if last == DONE else last + 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    arguments = parser.parse_args()
    begin = time.monotonic()
    found = run_many(arguments.start, arguments.count)
    for seed, kind, message in sorted(found):
        print(f"seed {seed}: {kind}: {message}")
    print(f"{arguments.count} cases in {time.monotonic() - begin:.0f} s, {len(found)} findings")
    autograd.pool.clear()
    sys.exit(any(kind != "error" for _, kind, _ in found))


if __name__ == "__main__":
    main()
