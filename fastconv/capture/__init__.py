"""Which layers of a model to capture, what they see of the input, and the hooked forward."""

from fastconv.capture.forward import capture_forward
from fastconv.capture.network import Forward, Network
from fastconv.capture.probe import Probe, graph_signature, plan_capture, probe
from fastconv.capture.targets import CaptureTarget

__all__ = [
    "CaptureTarget",
    "Forward",
    "Network",
    "Probe",
    "capture_forward",
    "graph_signature",
    "plan_capture",
    "probe",
]
