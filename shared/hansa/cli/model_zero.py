"""Model 0 of an agreement, for the commands that freeze it, accept it and run under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hansa.agreement import Agreement
from hansa.agreement.terms import Encoder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hansa.models import BuiltModel


def model_zero(agreement: Agreement, built: BuiltModel | None = None) -> npt.NDArray[np.float64]:
    """The trained weights before the first round: as built, or after the public warm start of generated tasks.

    Args:
        agreement: whose model it is.
        built: the model, if it is there already.

    Returns:
        float64 [d].
    """
    from hansa.models import build_model  # torch

    built = built or build_model(agreement.terms, folder=agreement.folder)
    model = agreement.terms.model
    if not isinstance(model, Encoder) or model.warm_start == 0:
        return built.initial_vector()
    from hansa_simulations.warm_start import warm_start  # the generator's public split

    return warm_start(agreement, built)
