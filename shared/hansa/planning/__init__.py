"""What an agreement could be, before anybody signs: both mechanisms, several step counts and rates, one recommendation.

Everything here follows from public numbers: members' declared units, ε, δ, the dimension, the threshold, c.
"""

from hansa.planning.advice import Advice, advise
from hansa.planning.options import Option, Plan, make_plan, upload_bytes
from hansa.planning.text import plan_text

__all__ = ["Advice", "Option", "Plan", "advise", "make_plan", "plan_text", "upload_bytes"]
