"""What an audit tells somebody who answers for privacy: nine groups of values, on a page or as JSON.

`audit_report` reads the logs that an audit has checked and says what they show; what they cannot show is said too.
`report_text` writes it. Nothing here imports matplotlib or jinja2 before a page is drawn.
"""

from hansa.audit.report.compiling import audit_report
from hansa.audit.report.files import FORMS, report_text
from hansa.audit.report.page import render_html
from hansa.audit.report.schema import AuditReport

__all__ = ["FORMS", "AuditReport", "audit_report", "render_html", "report_text"]
