"""Receptive fields over the executed graph."""

from fastconv.capture.receptive_field.field import Reach, layer_fields
from fastconv.capture.receptive_field.propagate import propagate

__all__ = ["Reach", "layer_fields", "propagate"]
