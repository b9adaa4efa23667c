"""pi-GAN's networks (Chan et al. 2021): latents to frequencies and phases, and the sine network that they modulate.

A scene is the modulation of one network that all scenes share. What the rest of the package calls styles is the last
hidden layer of pi-GAN's mapping network, one row for each sine layer; the linear layer after it, which makes
frequencies and phases, is cut into one part per row. So styles can be mixed, interpolated and searched like those of
the other generators, and truncation around the mean style is truncation around the mean frequencies and phases: what
lies between is affine.
"""
