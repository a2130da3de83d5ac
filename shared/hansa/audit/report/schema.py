"""What an audit report says: nine groups of values, frozen, and the same in JSON and on a page.

The groups are those that somebody who answers for privacy asks for, in the order of NIST SP 800-226 and of the registry
of deployments of differential privacy.
"""

from __future__ import annotations

from typing import Final, Literal

from hansa.audit.report.evidence import Composition, Empirical, Integrity, Trust, Utility
from hansa.audit.report.promises import Coverage, Guarantee, Identity, Mechanisms
from hansa.audit.report.value import Value

AUDIT_REPORT_VERSION: Final = 1


class AuditReport(Value):
    """Everything that copies of logs and public keys tell about the privacy of a federation.

    Attributes:
        schema_version: of this form.
        made: when the report was made, ISO 8601.
        identity, guarantee, mechanisms, coverage, composition, trust, empirical, utility, integrity: the nine groups.
    """

    schema_version: Literal[1] = AUDIT_REPORT_VERSION
    made: str
    identity: Identity
    guarantee: Guarantee
    mechanisms: Mechanisms
    coverage: Coverage
    composition: Composition
    trust: Trust
    empirical: Empirical
    utility: Utility
    integrity: Integrity
