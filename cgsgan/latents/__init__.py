"""Working with latents: photographs to latents (inversion), between latents, along directions of latents."""
