"""Every switch of the method changes what it says, against the formula written out, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import logsigmoid

from cgsgan.cameras import Cameras
from cgsgan.config import ConfigError, ExperimentConfig, parse_config
from cgsgan.losses.anchors import center_loss, knn_loss
from cgsgan.models.discriminator import Discriminator
from cgsgan.training.accumulation import AccumulatedSteps
from cgsgan.training.batches import Batches
from cgsgan.training.checkpoint import list_checkpoints, read_training_state
from cgsgan.training.draws import FakeDraws, Mixing, draw_fakes, step_generator
from cgsgan.training.generator_file import read_generator
from cgsgan.training.judged import JudgedImages
from cgsgan.training.steps import AdversarialSteps
from tests.tiny_experiment import TINY, TinyData, tiny_config, tiny_draws, tiny_reals, tiny_steps, tiny_trainer

VIEWS = 2
Gradients = dict[str, Tensor]


def float64_config(**loss: Any) -> ExperimentConfig:
    """Four scenes, the plain torch rasterizer, no blur, no regularisers, groups of 2."""
    config = tiny_config(batch_size=4)
    plain = {"blur_fade_kimg": 0.0, "knn_weight": 0.0, "center_weight": 0.0, **loss}
    return replace(
        config,
        rendering=replace(config.rendering, backend="reference"),
        discriminator=replace(config.discriminator, minibatch_std_group=2),
        training=replace(config.training, loss=replace(config.training.loss, **plain)),
    )


def render(steps: AdversarialSteps, z: Tensor, labels: Tensor, backgrounds: Tensor) -> Tensor:
    """One view of each scene, written out."""
    scenes = steps.generator(z).gaussians
    cameras = Cameras.from_labels(labels[:, None])
    return steps.renderer(scenes, cameras, size=steps.size, backgrounds=backgrounds[:, None]).images[:, 0]


def take(network: torch.nn.Module) -> Gradients:
    """The gradients that are there, which are cleared."""
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


def assert_equal(ours: Gradients, theirs: Gradients) -> None:
    """To rounding, every one of them, none of them zero."""
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.norm() > 0, name
        # Observed worst: 4e-7 relative, where the networks compute in single precision by design.
        assert (ours[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def far_apart(ours: Gradients, theirs: Gradients) -> bool:
    """Whether some gradient differs by more than 1 %."""
    return any((ours[name] - theirs[name]).norm() > 0.01 * theirs[name].norm() for name in theirs)


def test_without_gradient_averaging_every_view_is_a_scene_of_its_own():
    config = float64_config(knn_weight=2.0, center_weight=1.0)
    steps = tiny_steps(config, torch.float64)
    draws = tiny_draws(config, VIEWS, torch.float64)
    z = torch.randn(4, VIEWS, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    draws = replace(draws, z=z)
    stats, kept = steps.generator_gradients(draws, 0, keep_view=1)
    ours = take(steps.generator)

    losses, images = [], torch.empty(0)
    for view in range(VIEWS):
        labels = draws.camera_labels[:, view]
        images = render(steps, z[:, view], labels, draws.backgrounds[:, view])
        means = steps.generator(z[:, view]).anchors[0].means
        logits = steps.discriminator(images * 2 - 1, labels)
        losses.append(-logsigmoid(logits).mean() + 2 * knn_loss(means, 64) + center_loss(means))
    torch.stack(losses).mean().backward()
    assert_equal(ours, take(steps.generator))
    assert kept is not None
    torch.testing.assert_close(kept.images, images.detach())
    assert {"generator_logits", "knn", "center"} == stats.keys()

    steps.generator_gradients(replace(draws, z=z[:, 0]), 0)
    assert far_apart(take(steps.generator), ours)


@pytest.mark.parametrize("views", [2, 4])
def test_views_judged_together_share_their_groups(views: int):
    config = float64_config()
    steps = replace(tiny_steps(config, torch.float64), views_apart=False)
    draws = tiny_draws(config, views, torch.float64)
    _, kept = steps.generator_gradients(draws, 0, keep_view=1)
    ours = take(steps.generator)

    # Written out: groups of two views of one scene, each in a call of its own; a call holds one group.
    scenes = steps.generator(draws.z).gaussians
    losses = []
    for scene in range(4):
        one = scenes.map(lambda t, i=scene: t[i : i + 1])
        cameras = Cameras.from_labels(draws.camera_labels[scene : scene + 1])
        images = steps.renderer(one, cameras, size=steps.size, backgrounds=draws.backgrounds[scene : scene + 1]).images
        for first in range(views // 2):
            group = [first, first + views // 2]
            losses.append(steps.discriminator(images[0, group] * 2 - 1, draws.camera_labels[scene, group]))
    (-logsigmoid(torch.cat(losses)).mean()).backward()
    assert_equal(ours, take(steps.generator))
    assert kept is not None
    assert kept.logits is None  # it was judged in other company: the discriminator's step asks again
    assert not kept.images.requires_grad

    replace(steps, views_apart=True).generator_gradients(draws, 0)
    assert far_apart(take(steps.generator), ours)


def test_one_view_is_the_same_with_and_without_the_fix():
    config = float64_config()
    draws, found = tiny_draws(config, 1, torch.float64), []
    for apart in (True, False):
        steps = replace(tiny_steps(config, torch.float64), views_apart=apart)
        steps.generator_gradients(draws, 0)
        found.append(take(steps.generator))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


@pytest.mark.parametrize("keep_view", [None, 0])
def test_the_relativistic_objective(keep_view: int | None):
    config = float64_config(objective="relativistic")
    steps, draws = tiny_steps(config, torch.float64), tiny_draws(config, VIEWS, torch.float64)
    reals = tiny_reals(config, torch.float64)
    _, fakes = steps.generator_gradients(draws, 0, keep_view=keep_view, reals=reals)
    ours = take(steps.generator)
    assert not take(steps.discriminator)
    if fakes is None:
        fakes = steps.fresh_fakes(draws, 0)
    steps.discriminator_gradients(fakes, reals, 0)
    our_discriminator = take(steps.discriminator)

    losses = []
    for view in range(VIEWS):
        labels = draws.camera_labels[:, view]
        images = render(steps, draws.z, labels, draws.backgrounds[:, view])
        real = steps.discriminator(reals.images * 2 - 1, reals.camera_labels)
        losses.append(-logsigmoid(steps.discriminator(images * 2 - 1, labels) - real).mean())
    torch.stack(losses).mean().backward()
    assert_equal(ours, take(steps.generator))
    steps.discriminator.zero_grad()

    images = render(steps, draws.z, draws.camera_labels[:, 0], draws.backgrounds[:, 0]).detach()
    fake = steps.discriminator(images * 2 - 1, draws.camera_labels[:, 0])
    real = steps.discriminator(reals.images * 2 - 1, reals.camera_labels)
    (-logsigmoid(real - fake).mean()).backward()
    theirs = take(steps.discriminator)
    theirs = {name: g for name, g in theirs.items() if g.norm() > 1e-9}  # the difference cancels a bias or two
    assert_equal({name: our_discriminator[name] for name in theirs}, theirs)
    assert len(theirs) > 10


def test_both_penalties_of_the_relativistic_objective():
    """gamma / 2 * interval * (mean |dD/dreal|^2 + mean |dD/dfake|^2)."""
    config = float64_config(objective="relativistic", r1_gamma=0.7)
    steps = tiny_steps(config, torch.float64)
    reals = tiny_reals(config, torch.float64)
    fakes = JudgedImages(images=reals.images.flip(0, 3), camera_labels=reals.camera_labels)
    stats = steps.penalty_gradients(reals, 0, fakes=fakes)
    ours = take(steps.discriminator)
    total = torch.zeros((), dtype=torch.float64)
    for name, judged in (("r1_penalty", reals), ("r2_penalty", fakes)):
        images = (judged.images * 2 - 1).requires_grad_()
        logits = steps.discriminator(images, judged.camera_labels)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        torch.testing.assert_close(stats[name], penalty.detach())
        total = total + 0.7 / 2 * 2 * penalty  # the interval is 2
    total.backward()
    theirs = take(steps.discriminator)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-9)


def test_penalties_that_are_off_are_not_computed():
    reals = tiny_reals(float64_config(), torch.float64)
    for loss, names in (
        ({}, {"r1_penalty"}),
        ({"objective": "relativistic"}, {"r1_penalty", "r2_penalty"}),
        ({"objective": "relativistic", "r2_gamma": 0.0}, {"r1_penalty"}),
        ({"r1_gamma": 0.0, "r2_gamma": 0.5}, {"r2_penalty"}),
    ):
        steps = tiny_steps(float64_config(**loss), torch.float64)
        assert steps.penalty_gradients(reals, 0, fakes=reals).keys() == names


def test_a_discriminator_without_cameras_does_not_see_them():
    config = tiny_config().discriminator
    torch.manual_seed(0)
    blind, seeing = Discriminator(replace(config, camera_conditioning=False)), Discriminator(config)
    images, labels = torch.rand(4, 3, 32, 32), torch.randn(4, 25)
    torch.testing.assert_close(blind(images, labels), blind(images, labels.flip(0)), rtol=0, atol=0)
    assert blind(images, labels).shape == (4, 1)
    assert blind(images, labels).std() > 0
    assert (seeing(images, labels) - seeing(images, labels.flip(0))).abs().max() > 1e-3
    assert not [name for name, _ in blind.named_parameters() if name.startswith("camera")]
    shared = {name for name, p in seeing.named_parameters() if not name.startswith(("camera", "epilogue.out"))}
    assert shared < {name for name, _ in blind.named_parameters()}


def batches(config: ExperimentConfig) -> Batches:
    data = TinyData(config)
    return Batches(data, data, config.training, z_dim=8, num_ws=2, accelerator=Accelerator(cpu=True))


def test_white_backgrounds_change_nothing_else():
    random, white = batches(tiny_config()), batches(tiny_config(backgrounds="white"))
    for ours, theirs in zip(random.fakes(5, 0, 0), white.fakes(5, 0, 0)):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours.z, theirs.z)
        assert torch.equal(ours.camera_labels, theirs.camera_labels)
        assert bool((theirs.backgrounds == 1).all())
        assert bool((ours.backgrounds != 1).all())
    ours, theirs = random.reals(5, 0), white.reals(5, 0)
    assert torch.equal(ours.camera_labels, theirs.camera_labels)
    pixels = TinyData(tiny_config()).next().premultiplied
    torch.testing.assert_close(theirs.images, pixels[:, :3] + 1 - pixels[:, 3:])
    assert (ours.images - theirs.images).abs().max() > 0.1


def test_latents_of_views():
    (together, _), (apart, fresh) = (batches(tiny_config(gradient_averaging=on)).fakes(3, 0, 0) for on in (True, False))
    assert together.z.shape == (8, 8)
    assert apart.z.shape == (8, 3, 8)
    assert len(torch.unique(apart.z.flatten(0, 1), dim=0)) == 24
    assert fresh is not None
    assert fresh.z.shape == (8, 8)  # the discriminator's step has one view of each anyway
    scenes = apart.scenes()
    assert len(scenes) == 3
    assert torch.equal(scenes[2].z, apart.z[:, 2])
    assert torch.equal(scenes[2].camera_labels, apart.camera_labels[:, 2:3])


def mixed_draws(share: float, **options: Any) -> FakeDraws:
    data = TinyData(tiny_config())
    mixing = Mixing(share=share, num_ws=4)
    return draw_fakes(
        step_generator(0, 1), data, batch_size=400, views=2, z_dim=8, mixing=mixing if share else None, **options
    )


def test_style_mixing_draws_what_it_says_and_moves_nothing_else():
    plain, mixed = mixed_draws(0.0), mixed_draws(0.5)
    assert plain.mixed_z is None
    for name in ("z", "camera_labels", "backgrounds"):
        assert torch.equal(getattr(plain, name), getattr(mixed, name))
    assert mixed.crossovers is not None
    share = (mixed.crossovers < 4).float().mean()
    assert 0.4 < share < 0.6  # 4 standard deviations of 400 draws
    assert set(mixed.crossovers.tolist()) == {1, 2, 3, 4}
    assert mixed_draws(1.0).crossovers.max() == 3  # type: ignore[union-attr]
    own = mixed_draws(0.5, own_latents=True)
    assert own.crossovers is not None
    assert own.crossovers.shape == (400, 2)


def test_style_mixing_takes_later_rows_from_the_second_latent():
    config = float64_config()
    steps, draws = tiny_steps(config, torch.float64), tiny_draws(config, VIEWS, torch.float64)
    other = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    mixed = replace(draws, mixed_z=other, crossovers=torch.tensor([1, 2, 1, 2]))
    first, second = steps.generator.mapping(draws.z), steps.generator.mapping(other)  # type: ignore[operator]
    expected = first.clone()
    expected[0, 1:], expected[2, 1:] = second[0, 1:], second[2, 1:]
    torch.testing.assert_close(steps._generate(mixed).ws, expected)
    steps.generator_gradients(mixed, 0)
    ours = take(steps.generator)
    steps.generator_gradients(replace(mixed, crossovers=torch.full((4,), 2)), 0)
    nowhere = take(steps.generator)
    steps.generator_gradients(draws, 0)
    assert_equal(nowhere, take(steps.generator))
    assert far_apart(ours, nowhere)


SWITCHES: dict[str, dict[str, Any]] = {
    "gradient_averaging": {"gradient_averaging": False},
    "views_apart": {"views_apart": False},
    "backgrounds": {"backgrounds": "white"},
    "style_mixing": {"style_mixing": 0.9},
    "relativistic": {"loss": {"objective": "relativistic", "r1_interval": 2, "blur_fade_kimg": 0.0}},
}


@pytest.mark.parametrize("reuse_fakes", [False, True])
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_run_with_a_switch_is_another_run_and_resumes_bit_for_bit(tmp_path: Path, switch: str, reuse_fakes: bool):
    def config(kimg: float, **values: Any) -> ExperimentConfig:
        training = {**TINY["training"], "kimg": kimg, "reuse_fakes": reuse_fakes, **values}
        return parse_config({**TINY, "training": training}, source="tests")

    def run(folder: str, kimg: float, **values: Any):
        trainer = tiny_trainer(config(kimg, **values), tmp_path / folder, Accelerator(cpu=True))
        if values.get("views_apart") is False:
            trainer.steps.views_apart = False
        return trainer

    ends = []
    for folder, values in (("plain", {}), ("switched", SWITCHES[switch])):
        trainer = run(folder, 0.064, **values)
        trainer.run.create("")
        trainer.train()
        ends.append({name: p.clone() for name, p in trainer.steps.generator.named_parameters()})
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    middle = list_checkpoints(tmp_path / "switched" / "checkpoints")[0]
    again = run("switched", 0.064, **SWITCHES[switch])
    again.restore(read_training_state(middle), read_generator(middle / "generator.safetensors").weights)
    assert again.images_seen == 32
    while again.images_seen < 64:
        again.train_step()
    for name, p in again.steps.generator.named_parameters():
        assert torch.equal(p, ends[1][name]), name


@pytest.mark.parametrize("switch", ["gradient_averaging", "views_apart", "style_mixing", "r2"])
def test_parts_of_a_batch_know_the_switches(switch: str):
    config = float64_config(r2_gamma=0.3 if switch == "r2" else None)
    draws = tiny_draws(config, VIEWS, torch.float64)
    other = torch.randn(4, VIEWS, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if switch == "gradient_averaging":
        draws = replace(draws, z=other)
    if switch == "style_mixing":
        draws = replace(draws, mixed_z=other[:, 0], crossovers=torch.tensor([1, 2, 2, 1]))
    reals = tiny_reals(config, torch.float64)
    found = []
    for parts in (1, 2):
        steps = replace(tiny_steps(config, torch.float64), views_apart=switch != "views_apart")
        made = steps if parts == 1 else AccumulatedSteps(steps, parts, None)
        _, fakes = made.generator_gradients(draws, 0, keep_view=1, reals=reals)
        assert fakes is not None
        made.discriminator_gradients(fakes, reals, 0)
        gradients = {**take(steps.generator), **take(steps.discriminator)}
        made.penalty_gradients(reals, 0, fakes=fakes)
        found.append({**gradients, **{f"penalty {name}": g for name, g in take(steps.discriminator).items()}})
    for name, gradient in found[0].items():
        # Observed worst: 1.1e-12 relative, 2e-16 of itself, where a penalty reaches a bias by the statistic alone.
        assert (found[1][name] - gradient).norm() <= 1e-12 * gradient.norm() + 1e-15, name


def test_values_without_a_meaning_are_refused():
    for training, message in (
        ({"style_mixing": 1.5}, "training.style_mixing: expected a share in"),
        ({"backgrounds": "green"}, "training.backgrounds: expected one of"),
        ({"loss": {"objective": "relative"}}, "did you mean 'relativistic'"),
        (
            {"loss": {"objective": "relativistic"}, "accumulate": 2},
            "judges fakes and reals together; expected 1, got 2",
        ),
        ({"loss": {"objective": "relativistic"}, "augmentation": {"mode": "adaptive"}}, "adaptive goes by the sign"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_config({"training": training}, source="here.yaml")
