"""What a running party says about itself: log lines and numbers for a monitor, and nothing of its data.

`logs` writes events to a file or a stream, as lines for people or as one JSON object each; `exchanges` names what a
request is about; `settings` is the section ``[metrics]``; `scraped` serves numbers to a Prometheus on this machine.
"""

from hansa.observing.exchanges import About, about_request
from hansa.observing.logs import LogFormat, about, log_to
from hansa.observing.settings import Metrics

__all__ = ["About", "LogFormat", "Metrics", "about", "about_request", "log_to"]
