"""The style-modulated transformer (CGS-GAN's generator, after GSGAN): tokens are points, styles enter everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cgsgan.models.layers import ACTIVATION_GAIN, TINY, EqualizedLinear, at_least_float32

STYLES_PER_BLOCK = 6
"""In the order of the merged parameter: gamma_1, beta_1, gamma_2, beta_2, layer_scale_1, layer_scale_2."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The transformer.

    Attributes:
        width: channels of a token.
        heads: attention heads; must divide the width.
        mlp_ratio: width of the hidden layer over ``width``.
        first_blocks: blocks before level 0 is read off.
        blocks_per_level: blocks between one level and the next.
    """

    width: int = 512
    heads: int = 8
    mlp_ratio: int = 4
    first_blocks: int = 6
    blocks_per_level: int = 1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"transformer: heads ({self.heads}) must divide width ({self.width})")
        if min(self.mlp_ratio, self.first_blocks, self.blocks_per_level) < 1:
            raise ValueError(f"transformer: mlp_ratio, first_blocks and blocks_per_level must be >= 1, got {self}")

    def block_count(self, levels: int) -> int:
        """Blocks of a transformer that feeds so many levels; one row of ws each."""
        return self.first_blocks + self.blocks_per_level * (levels - 1)


class Styles(nn.Module):
    """All affine maps from w of all blocks, as one batched product.

    gamma starts at 1, beta at 0, layer scales at exactly 0 with zero weights: every block starts as the
    identity.
    """

    def __init__(self, blocks: int, w_dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        weight = torch.randn(blocks, STYLES_PER_BLOCK, width, w_dim)
        weight[:, 4:] = 0
        bias = torch.zeros(blocks, STYLES_PER_BLOCK, width)
        bias[:, (0, 2)] = 1
        self.weight = nn.Parameter(weight.flatten(1, 2))
        self.bias = nn.Parameter(bias.flatten(1, 2))

    def forward(self, ws: Float[Tensor, "batch block w_dim"]) -> Float[Tensor, "block six batch 1 width"]:
        """Styles of every block, ready to be broadcast over tokens."""
        with torch.autocast(ws.device.type, enabled=False):
            inputs = at_least_float32(ws).transpose(0, 1) * (1 / math.sqrt(ws.shape[-1]))
            styles = torch.baddbmm(self.bias[:, None], inputs, self.weight.mT)
        return styles.unflatten(-1, (STYLES_PER_BLOCK, 1, self.width)).transpose(1, 2)


def modulated_norm(
    x: Float[Tensor, "#batch token channel"],
    gamma: Float[Tensor, "batch 1 channel"],
    beta: Float[Tensor, "batch 1 channel"],
) -> Float[Tensor, "batch token channel"]:
    """Adaptive instance norm over the TOKENS of each channel: gamma (x - mean) / (std + 1e-8) + beta, in float32."""
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_float32(x)
        centered = x - x.mean(dim=1, keepdim=True)
        deviation = (centered.square().mean(dim=1, keepdim=True) + TINY).sqrt()
        return torch.addcmul(beta, centered, gamma / (deviation + 1e-8))


class Block(nn.Module):
    """Attention and MLP, each after a modulated norm and before a layer scale from w."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.width * config.mlp_ratio
        self.heads = config.heads
        self.qkv = EqualizedLinear(width, 3 * width)
        self.attention_out = EqualizedLinear(width, width)
        self.expand = EqualizedLinear(width, hidden)
        self.contract = EqualizedLinear(hidden, width)

    def forward(
        self, x: Float[Tensor, "#batch token width"], styles: Float[Tensor, "six batch 1 width"]
    ) -> Float[Tensor, "batch token width"]:
        """Compute x + scale_1 attention(norm_1 x), then the same with the MLP."""
        gamma_1, beta_1, gamma_2, beta_2, scale_1, scale_2 = styles.unbind(0)
        x = torch.addcmul(x, self._attend(modulated_norm(x, gamma_1, beta_1)), scale_1)
        return torch.addcmul(x, self._transform(modulated_norm(x, gamma_2, beta_2)), scale_2)

    def _attend(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        # Rows of the weight are grouped per head: q_h, k_h, v_h.
        grouped = self.qkv(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        attended = functional.scaled_dot_product_attention(*grouped.unbind(0))
        return self.attention_out(attended.transpose(1, 2).flatten(2))

    def _transform(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        weight, bias = self.contract.scaled()
        return functional.linear(functional.gelu(self.expand(x)), weight * ACTIVATION_GAIN, bias)


class Transformer(nn.Module):
    """The blocks; its output at several depths feeds the levels, coarse to fine.

    Args:
        config: sizes.
        w_dim: numbers per row of ws.
        levels: outputs.
    """

    def __init__(self, config: TransformerConfig, *, w_dim: int, levels: int) -> None:
        super().__init__()
        self.config = config
        self.num_ws = config.block_count(levels)
        self.styles = Styles(self.num_ws, w_dim, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(self.num_ws))

    def forward(
        self, features: Float[Tensor, "token width"], ws: Float[Tensor, "batch num_ws w_dim"]
    ) -> list[Float[Tensor, "batch token width"]]:
        """Token features after the first blocks (level 0) and after every further group of blocks."""
        styles = self.styles(ws).unbind(0)
        # The first norm is the same for all latents: it is computed once and broadcast.
        x, outputs = features[None], []
        for index, (block, style) in enumerate(zip(self.blocks, styles)):
            x = block(x, style)
            past = index + 1 - self.config.first_blocks
            if past >= 0 and past % self.config.blocks_per_level == 0:
                outputs.append(x)
        return outputs
