"""Who is who: P-256 keys, certificates of the consortium's authority, the roster that an agreement pins.

A signature counts when it is by a key of the roster, over these very bytes, for this very purpose. Certificates
say to which institution a key belongs and serve TLS; they admit nobody to a sum by themselves.
"""

from hansa.identity.amendment import Amendment, amend
from hansa.identity.authority import Authority
from hansa.identity.certificates import check_certificate, request_certificate
from hansa.identity.keys import Signer, fingerprint
from hansa.identity.roster import COORDINATOR, Roster
from hansa.identity.statement import Statement

__all__ = [
    "COORDINATOR",
    "Amendment",
    "Authority",
    "Roster",
    "Signer",
    "Statement",
    "amend",
    "check_certificate",
    "fingerprint",
    "request_certificate",
]
