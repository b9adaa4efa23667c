"""Weights of the published CGS-GAN and EG3D networks, read without running what their files contain."""

from cgsgan.interop.errors import WeightsError
from cgsgan.interop.official import (
    load_cgsgan_discriminator,
    load_cgsgan_generator,
    load_eg3d_discriminator,
    load_eg3d_generator,
)
from cgsgan.interop.pickles import read_networks

__all__ = [
    "WeightsError",
    "load_cgsgan_discriminator",
    "load_cgsgan_generator",
    "load_eg3d_discriminator",
    "load_eg3d_generator",
    "read_networks",
]
