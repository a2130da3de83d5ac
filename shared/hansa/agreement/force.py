"""Which parts of an agreement are read and checked, and do nothing yet.

A promise that is written down and not kept is worse than none, so `hansa agreement check` and every report
repeat these sentences. A part that comes into force leaves this list in the same change.
"""

from __future__ import annotations

from hansa.agreement.publication import Fairness, Publication
from hansa.agreement.terms import Privacy, Terms

_COLLUDING = (
    "privacy.colluding: it counts only under 'distributed'; local noise holds against any number of others"
)
_FAIRNESS = (
    "fairness: max_gap, min_worst_group, min_group_size and exempt are not judged and stop nothing, as "
    "publication.compress names no file that would be published"
)
_PUBLICATION = (
    "publication: nothing is judged or signed, as publication.compress names no file that would be published"
)
_DEFAULT_COLLUDING = Privacy.model_fields["colluding"].default


def not_in_force(terms: Terms) -> tuple[str, ...]:
    """One sentence for each part of these terms that this release does not act on.

    A section that says nothing (no fairness condition, publication left as it is by default) is not among them.
    """
    found = []
    if terms.privacy.mechanism != "distributed" and terms.privacy.colluding != _DEFAULT_COLLUDING:
        found.append(_COLLUDING)
    if not terms.published and terms.fairness != Fairness(metric=terms.fairness.metric):
        found.append(_FAIRNESS)
    if not terms.published and terms.publication != Publication():
        found.append(_PUBLICATION)
    return tuple(found)
