"""How good a generator is: its pictures against real ones, and its views against each other.

Pictures are drawn at the data's cameras on white, real ones lie on white. Every process makes its share; latents and
cameras are drawn by position in the whole, so that the figures do not depend on the number of processes.
"""

from cgsgan.evaluation.evaluator import Evaluator
from cgsgan.evaluation.scenes import GeneratorScenes, SceneSource
from cgsgan.evaluation.settings import ALL_METRICS, EvaluationConfig

__all__ = ["ALL_METRICS", "EvaluationConfig", "Evaluator", "GeneratorScenes", "SceneSource"]
