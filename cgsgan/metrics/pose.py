"""From a picture of a head to the camera it is seen by: a small network, taught by labelled real pictures.

No pretrained weights are needed, and the network is judged by pictures that it was not taught: an error on generated
pictures means something only beside that floor.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PICTURE_SIZE = 32
"""Side of the pictures the network sees, pixels."""
CHANNELS = (24, 48, 96)
HIDDEN = 64
BATCH = 64
MOST_STEPS, MOST_EPOCHS = 1500, 60
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2
HUBER = 0.1
"""Standard deviations from which on errors count linearly."""
GAIN, SHIFT = 0.2, 0.15
"""Contrast and brightness of every channel vary by so much while learning: colours say nothing about poses."""


class PoseEstimator(nn.Module):
    """Pictures to yaw and pitch.

    Attributes:
        mean: of the taught angles, radians.
        std: standard deviation of the taught angles.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        sizes = [3, *CHANNELS]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(fewer, more, 3, stride=2, padding=1) for fewer, more in itertools.pairwise(sizes)
        )
        self.hidden = nn.Linear(CHANNELS[-1] * (PICTURE_SIZE >> len(CHANNELS)) ** 2, HIDDEN)
        self.angles = nn.Linear(HIDDEN, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("std", torch.ones(2))

    def forward(self, pictures: Float[Tensor, "picture 3 32 32"]) -> Float[Tensor, "picture 2"]:
        """Yaw and pitch in radians of RGB pictures in [0, 1] from :func:`reduce_pictures`."""
        return self.standardized(pictures) * self.std + self.mean

    def standardized(self, pictures: Float[Tensor, "picture 3 32 32"]) -> Float[Tensor, "picture 2"]:
        """The same in standard deviations of the taught angles."""
        hidden = pictures * 2 - 1
        for convolution in self.convolutions:
            hidden = F.leaky_relu(convolution(hidden), 0.2)
        return self.angles(F.leaky_relu(self.hidden(hidden.flatten(1)), 0.2))


def reduce_pictures(images: Float[Tensor, "picture 3 height width"]) -> Float[Tensor, "picture 3 32 32"]:
    """Box-reduce to what the estimator sees.

    Raises:
        ValueError: for pictures that are not square, or not a multiple of 32 pixels.
    """
    height, width = images.shape[-2:]
    if height != width or height % PICTURE_SIZE or height == 0:
        raise ValueError(f"pose: expected square pictures of a multiple of {PICTURE_SIZE} px, got {height} x {width}")
    return F.avg_pool2d(images, height // PICTURE_SIZE)


def teach_pose(
    pictures: Float[Tensor, "picture 3 32 32"], angles: Float[Tensor, "picture 2"], *, seed: int = 0
) -> PoseEstimator:
    """An estimator for one set of pictures; the same one for any number of threads, about half a minute on one core.

    Args:
        pictures: real ones, from :func:`reduce_pictures`; every other batch is mirrored, with its yaws.
        angles: yaw and pitch of their cameras, radians.
        seed: of the initial weights and the order.

    Raises:
        ValueError: for fewer than 2 pictures, or angles that do not vary.
    """
    if len(pictures) < 2 or len(pictures) != len(angles):
        raise ValueError(f"teach_pose: expected at least 2 pictures with angles, got {len(pictures)} and {len(angles)}")
    mean, std = angles.mean(dim=0), angles.std(dim=0)
    if float(std.min()) <= 0:
        raise ValueError("teach_pose: all pictures have the same yaw or pitch; there is nothing to learn")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over threads round differently, and a thousand steps make another network of it
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            estimator = PoseEstimator()
            estimator.mean.copy_(mean)
            estimator.std.copy_(std)
            _teach(estimator, pictures, angles)
    finally:
        torch.set_num_threads(threads)
    return estimator.eval().requires_grad_(False)


def _teach(estimator: PoseEstimator, pictures: Tensor, angles: Tensor) -> None:
    steps = min(MOST_STEPS, MOST_EPOCHS * -(-len(pictures) // BATCH))
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(steps, 2))
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < min(BATCH, len(pictures)):
            order = torch.randperm(len(pictures))
        batch, order = order[:BATCH], order[BATCH:]
        seen, wanted = pictures[batch], angles[batch]
        if step % 2:
            seen, wanted = seen.flip(3), wanted * torch.tensor([-1.0, 1.0])
        gain = 1 + GAIN * (2 * torch.rand(len(batch), 3, 1, 1) - 1)
        shift = SHIFT * (2 * torch.rand(len(batch), 3, 1, 1) - 1)
        found = estimator.standardized(seen * gain + shift)
        loss = F.smooth_l1_loss(found, (wanted - estimator.mean) / estimator.std, beta=HUBER)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def pose_errors(
    estimator: PoseEstimator, pictures: Float[Tensor, "picture 3 32 32"], angles: Float[Tensor, "picture 2"]
) -> Float[Tensor, "picture 2"]:
    """Absolute errors of yaw and pitch, degrees; a difference of yaws is taken the short way round."""
    found = torch.cat([estimator(part) for part in pictures.split(256)])
    difference = found - angles
    return torch.atan2(difference.sin(), difference.cos()).abs().rad2deg()
