"""Two or more generators side by side: size, speed, quality, consistency, pictures; one page.

Everything that can be is measured in one process, in turns, on the same pictures, latents and cameras.
"""

from cgsgan.comparison.contestants import Contestant, open_contestants
from cgsgan.comparison.measurements import Comparison, compare

__all__ = ["Comparison", "Contestant", "compare", "open_contestants"]
