"""What Hansa costs, measured beside what a user would pick instead, in the same run on the same machine.

Every bench returns a `Bench`: figures with their units in their names, ratios of a peer's figure to Hansa's, and one
way to print them. Peers run in processes of their own (`peers`), so that neither side carries the other's threads
or memory.
"""

from hansa_simulations.bench.drawing import PLOT_SUFFIXES
from hansa_simulations.bench.engine import measure_engines
from hansa_simulations.bench.figures import Bench, Figure, Grid, Ratio
from hansa_simulations.bench.secagg import measure_secagg
from hansa_simulations.bench.secagg_growth import plot_growth
from hansa_simulations.bench.training import measure_training
from hansa_simulations.bench.training_growth import plot_training_growth

__all__ = [
    "PLOT_SUFFIXES",
    "Bench",
    "Figure",
    "Grid",
    "Ratio",
    "measure_engines",
    "measure_secagg",
    "measure_training",
    "plot_growth",
    "plot_training_growth",
]
