"""Whether generated heads look where the camera says: an estimator taught by the real set, and its errors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate.utils import broadcast_object_list
from jaxtyping import Float, Int64
from torch import Tensor

from cgsgan.cameras import Cameras, yaw_pitch
from cgsgan.data.dataset import HeadDataset
from cgsgan.evaluation.kept import read_kept, write_kept
from cgsgan.evaluation.studio import Studio
from cgsgan.metrics import pose
from cgsgan.metrics.figures import Figures
from cgsgan.metrics.pose import PoseEstimator, pose_errors, reduce_pictures, teach_pose

FEWEST, MOST = 32, 12_000
"""Real pictures: with fewer there is no figure, more are not looked at."""
HELD_OUT = 0.2
"""Share of them that the estimator is not taught."""
POSE_PICTURES = 2048
"""Generated pictures per repeat."""


@dataclass(frozen=True)
class TaughtEstimator:
    """An estimator with its own errors.

    Attributes:
        estimator: pictures to yaw and pitch.
        floor: mean absolute errors of yaw and pitch on real pictures that it was not taught, degrees.
    """

    estimator: PoseEstimator
    floor: Float[Tensor, "2"]


def learn_poses(studio: Studio, dataset: HeadDataset) -> TaughtEstimator | None:
    """Teach an estimator four fifths of the real pictures, and judge it by the rest; None when they are too few.

    It is kept in the user's cache under the content of the pictures. The main process does it, the others get it.
    """
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(1))[:MOST]
    if len(order) < FEWEST:
        return None
    found: list[dict[str, Tensor] | None] = [None]
    if studio.accelerator.is_main_process:
        settings = (pose.CHANNELS, pose.HIDDEN, pose.BATCH, pose.MOST_STEPS, pose.MOST_EPOCHS, HELD_OUT)
        content = f"{dataset.content_key(order)} {settings} {pose.LEARNING_RATE} white"
        key = hashlib.sha256(content.encode()).hexdigest()[:32]
        found[0] = read_kept("poses", key)
        if found[0] is None:
            found[0] = _learn(studio, dataset, order)
            write_kept("poses", key, found[0])
    broadcast_object_list(found)
    state = dict(found[0] or {})
    floor, estimator = state.pop("floor"), PoseEstimator()
    estimator.load_state_dict(state)
    return TaughtEstimator(estimator.eval().requires_grad_(False), floor)


def _learn(studio: Studio, dataset: HeadDataset, order: Int64[Tensor, " picture"]) -> dict[str, Tensor]:
    pictures, angles = [], []
    for part in order.split(256):
        batch = dataset.read(part)
        pictures.append(reduce_pictures(batch.composite(torch.ones(len(part), 3))))
        angles.append(label_angles(batch.camera_labels))
        studio.progress("pictures with poses", sum(map(len, angles)), len(order))
    seen, wanted = torch.cat(pictures), torch.cat(angles)
    taught = len(order) - round(HELD_OUT * len(order))
    studio.progress("learning poses", 0, taught)
    estimator = teach_pose(seen[:taught], wanted[:taught])
    studio.progress("learning poses", taught, taught)
    floor = pose_errors(estimator, seen[taught:], wanted[taught:]).mean(dim=0)
    return {**estimator.state_dict(), "floor": floor}


def label_angles(labels: Float[Tensor, "picture 25"]) -> Float[Tensor, "picture 2"]:
    """Yaw and pitch of the cameras, radians."""
    return torch.stack(yaw_pitch(Cameras.from_labels(labels)), dim=1)


def pose_figures(
    studio: Studio,
    taught: TaughtEstimator | None,
    make: Callable[[Tensor], Float[Tensor, "index 3 size size"]],
    labels: Float[Tensor, "count 25"],
    run: str,
) -> Figures:
    """Mean absolute differences of estimated and commanded angles of generated pictures, beside the floor; degrees.

    Args:
        studio: shares the work.
        taught: from :func:`learn_poses`; None gives None for every figure.
        make: generated pictures by position.
        labels: the cameras they are seen by.
        run: name of this measurement, for its progress.
    """
    if taught is None:
        return {f"pose_{name}": None for name in ("yaw_deg", "yaw_floor_deg", "pitch_deg", "pitch_floor_deg")}
    count = min(POSE_PICTURES, len(labels))
    pictures = studio.share(lambda index: reduce_pictures(make(index)), count, f"{run}: poses")
    errors = pose_errors(taught.estimator, pictures, label_angles(labels[:count])).mean(dim=0)
    figures: Figures = {}
    for name, error, floor in zip(("yaw", "pitch"), errors.tolist(), taught.floor.tolist()):
        figures |= {f"pose_{name}_deg": error, f"pose_{name}_floor_deg": floor}
    return figures
