"""How the pictures of benches are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PLOT_SUFFIXES = (".pdf", ".png", ".svg")
COLOURS = ("#56B4E9", "#009E73", "#E69F00", "#0072B2")  # Okabe and Ito's, for any colour vision
INK, QUIET, LINE = "#1f2933", "#52606d", "#d5dae1"


@contextmanager
def drawing() -> Iterator[None]:
    """Within the block matplotlib draws as in the documentation, whatever a user's own matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "axes.spines.top": False, "axes.spines.right": False, "axes.labelcolor": QUIET,
                "axes.edgecolor": QUIET, "xtick.color": QUIET, "ytick.color": QUIET, "text.color": INK,
                "font.size": 9, "axes.titlesize": 10, "svg.hashsalt": "growth",
            }
        )  # fmt: skip
        yield
