"""Which layers of a model to capture, what they see of the input, and the hooked forward."""

from fastconv.capture.forward import capture_forward
from fastconv.capture.targets import CaptureTarget, plan_capture
from fastconv.capture.trace import graph_signature

__all__ = ["CaptureTarget", "capture_forward", "graph_signature", "plan_capture"]
