"""Weights of the published CGS-GAN and EG3D networks, read without running what their files contain."""
