"""The image formation again in numpy, without tiles, boxes or autograd: every splat at every pixel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


def rotate(quat: Array, inria: bool) -> Array:
    """The matrix of a quaternion; with ``inria``, whose formula is quadratic in it, not that of a unit one."""
    rotation = Rotation.from_quat(quat[[1, 2, 3, 0]]).as_matrix()
    return np.eye(3) + quat @ quat * (rotation - np.eye(3)) if inria else rotation


def project_splat(
    mean: Array, quat: Array, scale: Array, viewmat: Array, K: Array, size: tuple[int, int], inria: bool = False
) -> tuple[Array, float, Array]:
    """Pixel position, depth and undilated 2D covariance of one splat."""
    rotation = rotate(quat, inria)
    cov = rotation @ np.diag(scale**2) @ rotation.T
    x, y, z = viewmat[:3, :3] @ mean + viewmat[:3, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    width, height = size
    tan_x, tan_y = 0.5 * width / fx, 0.5 * height / fy
    tx = z * min(max(x / z, -cx / fx - 0.3 * tan_x), (width - cx) / fx + 0.3 * tan_x)
    ty = z * min(max(y / z, -cy / fy - 0.3 * tan_y), (height - cy) / fy + 0.3 * tan_y)
    jacobian = np.array([[fx / z, 0, -fx * tx / z**2], [0, fy / z, -fy * ty / z**2]])
    to_image = jacobian @ viewmat[:3, :3]
    return np.array([fx * x / z + cx, fy * y / z + cy]), float(z), to_image @ cov @ to_image.T


def find_square(center: Array, cov: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels [H, W] of the 16-pixel tiles that hold a part of the square of three deviations (``inria``)."""
    mid = 0.5 * (cov[0, 0] + cov[1, 1])
    radius = math.ceil(3 * math.sqrt(mid + math.sqrt(max(0.1, mid * mid - np.linalg.det(cov)))))
    inside = []
    for position, count in zip(center - 0.5, size):
        tiles = range(math.floor((position - radius) / 16), math.floor((position + radius + 15) / 16))
        inside.append(np.array([pixel // 16 in tiles for pixel in range(count)]))
    return inside[1][:, None] & inside[0]


def render(
    scene: dict[str, Array],
    viewmat: Array,
    K: Array,
    size: tuple[int, int],
    *,
    background: Array | None = None,
    near: float = 0.01,
    far: float = 1e10,
    eps2d: float = 0.3,
    antialiased: bool = False,
    inria: bool = False,
) -> tuple[Array, Array, Array]:
    """Colours [H, W, C], alphas [H, W] and expected depths [H, W] of one view of finite splats."""
    width, height = size
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    left, stopped = np.ones((height, width)), np.zeros((height, width), bool)
    image = np.zeros((height, width, scene["colors"].shape[-1]))
    depth = np.zeros((height, width))
    depths = (scene["means"] @ viewmat[:3, :3].T + viewmat[:3, 3])[:, 2]
    for i in np.argsort(depths, kind="stable"):
        if not near <= depths[i] <= far:
            continue
        center, z, cov = project_splat(
            scene["means"][i], scene["quats"][i], scene["scales"][i], viewmat, K, size, inria
        )
        dilated = cov + eps2d * np.eye(2)
        opacity = scene["opacities"][i]
        if antialiased:
            opacity *= np.sqrt(max(0.005**2, np.linalg.det(cov) / np.linalg.det(dilated)))
        offset = np.stack([columns - center[0], rows - center[1]], -1)
        power = 0.5 * np.einsum("hwi,ij,hwj->hw", offset, np.linalg.inv(dilated), offset)
        alpha = np.minimum(0.99, opacity * np.exp(-power))
        alpha[alpha < 1 / 255] = 0
        if inria:
            alpha[~find_square(center, dilated, size)] = 0
        after = left * (1 - alpha)
        stopped |= (after < 1e-4) if inria else (after <= 1e-4)
        alpha[stopped] = 0
        image += (left * alpha)[..., None] * scene["colors"][i]
        depth += left * alpha * z
        left = left * (1 - alpha)
    if background is not None:
        image += left[..., None] * background
    covered = left < 1
    depth[covered] /= 1 - left[covered]
    return image, 1 - left, depth
