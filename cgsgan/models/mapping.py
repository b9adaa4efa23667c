"""The mapping network: latents or camera labels to style vectors (Karras et al. 2019, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cgsgan.models.layers import EqualizedLinear, at_least_float32, normalize_second_moment


@dataclass(frozen=True, kw_only=True)
class MappingConfig:
    """The generator's mapping network.

    Attributes:
        z_dim: numbers in a latent z ~ N(0, 1).
        w_dim: numbers in a style vector w, and width of the layers.
        layers: fully connected layers.
        lr_multiplier: equalised learning-rate multiplier of those layers.
        label_dim: 0, or the width of the pose input (25). EG3D conditions its generator on the camera through
            it. The published CGS-GAN networks carry it too, but always feed it zeros, so only its bias takes
            part; its weight is then kept frozen, for their weights' sake.
        label_scale: camera labels are multiplied by this first.
        w_average_decay: share of the running mean of w that an update keeps.
        normalize: scale latents to a mean square of 1 first.
    """

    z_dim: int = 512
    w_dim: int = 512
    layers: int = 2
    lr_multiplier: float = 0.01
    label_dim: int = 0
    label_scale: float = 1.0
    w_average_decay: float = 0.998
    normalize: bool = True

    def __post_init__(self) -> None:
        if min(self.z_dim, self.w_dim, self.layers) < 1 or self.label_dim < 0:
            raise ValueError(f"mapping: z_dim, w_dim and layers must be >= 1 and label_dim >= 0, got {self}")


class MappingLayers(nn.Module):
    """Fully connected leaky-ReLU layers, ``fc0``, ``fc1``..., with a small learning-rate multiplier."""

    def __init__(self, in_features: int, width: int, *, layers: int, lr_multiplier: float) -> None:
        super().__init__()
        sizes = [in_features] + [width] * layers
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, activation="leaky_relu", lr_multiplier=lr_multiplier) for a, b in pairwise(sizes)
        )

    def forward(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """Apply all layers."""
        for layer in self.layers:
            x = layer(x)
        return x


class Mapping(nn.Module):
    """z to ws, with the truncation trick around a running mean of w.

    Args:
        config: sizes.
        num_ws: rows of the output; all are equal unless truncation has a cutoff.
        conditional: whether it is given camera labels; otherwise its pose input, if any, sees zeros.
    """

    w_average: Tensor

    def __init__(self, config: MappingConfig, num_ws: int, *, conditional: bool = False) -> None:
        super().__init__()
        if conditional and not config.label_dim:
            raise ValueError("mapping: camera conditioning needs label_dim >= 1 (25 for camera labels), got 0")
        self.config, self.num_ws, self.conditional = config, num_ws, conditional
        in_features = config.z_dim + (config.w_dim if config.label_dim else 0)
        self.embed = EqualizedLinear(config.label_dim, config.w_dim) if config.label_dim else None
        if self.embed is not None and not conditional:
            self.embed.weight.requires_grad_(False)
        self.body = MappingLayers(in_features, config.w_dim, layers=config.layers, lr_multiplier=config.lr_multiplier)
        self.register_buffer("w_average", torch.zeros(config.w_dim))

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        *,
        camera_labels: Float[Tensor, "batch label"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Map latents to styles.

        Args:
            z: latents, N(0, 1).
            camera_labels: the cameras that it is conditioned on; where it is conditional, and only there.
            truncation_psi: 1 leaves w alone, 0 gives the mean; w_average + psi (w - w_average).
            truncation_cutoff: truncate only the first so many rows; None truncates all.
            update_average: move the running mean of w towards this batch.

        Raises:
            ValueError: when z does not have ``z_dim`` numbers per row, or camera labels are missing, unwanted or
                of another shape.
        """
        if z.shape[-1] != self.config.z_dim:
            raise ValueError(f"mapping: expected z of shape [batch, {self.config.z_dim}], got {list(z.shape)}")
        self._check_labels(camera_labels, len(z))
        with torch.autocast(z.device.type, enabled=False):
            x = at_least_float32(z)
            if self.config.normalize:
                x = normalize_second_moment(x)
            if self.embed is not None:
                x = torch.cat([x, self._embed_labels(camera_labels).expand(len(x), -1)], dim=-1)
            w = self.body(x)
        if update_average:
            with torch.no_grad():
                mean = w.detach().mean(dim=0)
                self.w_average.copy_(mean.lerp(self.w_average, self.config.w_average_decay))
        ws = w[:, None].expand(-1, self.num_ws, -1)
        if truncation_psi == 1.0:
            return ws
        truncated = self.w_average.lerp(ws, truncation_psi)
        if truncation_cutoff is None:
            return truncated
        return torch.cat([truncated[:, :truncation_cutoff], ws[:, truncation_cutoff:]], dim=1)

    def styles(
        self,
        z: Float[Tensor, "batch z_dim"] | None,
        ws: Float[Tensor, "batch num_ws w_dim"] | None,
        *,
        camera_labels: Float[Tensor, "batch label"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """The styles of latents, or those that are given: what a generator's ``forward`` begins with.

        Args:
            z: latents, which are mapped with the other arguments as :meth:`forward` does.
            ws: styles, instead of ``z``; taken as they are.
            camera_labels: see :meth:`forward`; with ``z`` alone.
            truncation_psi: see :meth:`forward`.
            truncation_cutoff: see :meth:`forward`.
            update_average: see :meth:`forward`.

        Raises:
            ValueError: unless exactly one of ``z`` and ``ws`` is given, or when labels are missing or unwanted, or
                when a shape does not fit.
        """
        if (z is None) == (ws is None):
            raise ValueError("generator: give either z or ws, not both and not neither")
        if z is not None:
            return self(
                z,
                camera_labels=camera_labels,
                truncation_psi=truncation_psi,
                truncation_cutoff=truncation_cutoff,
                update_average=update_average,
            )
        assert ws is not None
        if camera_labels is not None:
            raise ValueError(
                "generator: camera_labels condition the mapping, which ws have behind them; leave them out"
            )
        expected = (self.num_ws, self.config.w_dim)
        if ws.ndim != 3 or ws.shape[1:] != expected:
            raise ValueError(
                f"generator: expected ws of shape [batch, {expected[0]}, {expected[1]}], got {list(ws.shape)}"
            )
        return ws

    def _embed_labels(self, camera_labels: Float[Tensor, "batch label"] | None) -> Float[Tensor, "*batch w_dim"]:
        assert self.embed is not None
        if camera_labels is None:  # zeros leave the bias
            return normalize_second_moment(self.embed.scaled()[1])
        return normalize_second_moment(self.embed(at_least_float32(camera_labels) * self.config.label_scale))

    def _check_labels(self, camera_labels: Tensor | None, batch: int) -> None:
        if not self.conditional:
            if camera_labels is not None:
                raise ValueError("mapping: it is not conditioned on cameras; leave camera_labels out")
            return
        if camera_labels is None:
            raise ValueError("mapping: it is conditioned on cameras; give camera_labels, [batch, 25]")
        if camera_labels.shape != (batch, self.config.label_dim):
            raise ValueError(
                f"mapping: expected camera_labels of shape [{batch}, {self.config.label_dim}], got "
                f"{list(camera_labels.shape)}"
            )


class CameraMapping(nn.Module):
    """Camera labels to a vector that the discriminator's features are projected on.

    Args:
        label_dim: numbers per label.
        width: width of all layers.
        layers: fully connected layers after the linear embedding.
        lr_multiplier: equalised learning-rate multiplier of those layers.
    """

    def __init__(self, label_dim: int, width: int, *, layers: int, lr_multiplier: float) -> None:
        super().__init__()
        self.embed = EqualizedLinear(label_dim, width)
        self.body = MappingLayers(width, width, layers=layers, lr_multiplier=lr_multiplier)

    def forward(self, camera_labels: Float[Tensor, "batch label"]) -> Float[Tensor, "batch width"]:
        """Embed, normalise, apply the layers."""
        return self.body(normalize_second_moment(self.embed(camera_labels)))
