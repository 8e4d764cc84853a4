"""Per ATen operation: what its output sees, given what its inputs see.

An operation without a rule here is taken to see everything.
"""

from fastconv.capture.receptive_field.rules import mixing, shapes, windows  # noqa: F401 - they register
from fastconv.capture.receptive_field.rules.pointwise import pointwise
from fastconv.capture.receptive_field.rules.rule import RULES, Context, unknown

__all__ = ["RULES", "Context", "pointwise", "unknown"]
