"""The explorer: a page in which a generator's latents are explored with the mouse (viser, optional extra)."""
