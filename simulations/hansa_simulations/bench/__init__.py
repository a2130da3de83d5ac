"""What Hansa costs, measured beside what a user would pick instead, in the same run on the same machine.

Every bench returns a `Bench`: figures with their units in their names, ratios of a peer's figure to Hansa's, and one
way to print them. Peers run in processes of their own (`peers`), so that neither side carries the other's threads
or memory.
"""

from hansa_simulations.bench.engine import measure_engines
from hansa_simulations.bench.figures import Bench, Figure, Ratio

__all__ = ["Bench", "Figure", "Ratio", "measure_engines"]
