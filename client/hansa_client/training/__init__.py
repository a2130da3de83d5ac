"""DP-SGD inside a member: sample units, clip each, sum on the grid, add noise, step.

What runs here is what is accounted: a draw that the agreement names, public rate, public divisor, a fixed number of steps, empty batches included.
"""

from hansa_client.training.factory import TrainerFactory, engine_for
from hansa_client.training.plan import TrainingPlan
from hansa_client.training.trainer import Trainer

__all__ = ["Trainer", "TrainerFactory", "TrainingPlan", "engine_for"]
