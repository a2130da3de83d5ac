"""An agreement as TOML: what `read_agreement` reads back to the same ids."""

from __future__ import annotations

from typing import Any

import tomli_w

from hansa.agreement.document import Agreement, without_none
from hansa.agreement.local import Performance


def agreement_toml(agreement: Agreement) -> str:
    """The whole agreement file: terms, `[simulation]`, `[performance]` and `[frozen]`, as far as it has them.

    Defaults are written out, so that the file says what was agreed even where a later release has others.
    Comments of the file that the agreement was read from are not kept. `parse_agreement` of the result has the
    same `terms_id` and, if frozen, the same `agreement_id`.
    """
    tree: dict[str, Any] = dict(agreement.terms.tree())
    if agreement.simulation is not None:
        tree["simulation"] = agreement.simulation.tree()
    if agreement.performance != Performance():
        tree["performance"] = agreement.performance.tree()
    if agreement.frozen is not None:
        tree["frozen"] = agreement.frozen.tree()
    return tomli_w.dumps(without_none(tree))
