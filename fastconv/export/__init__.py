"""Pictures of a run: figures, TensorBoard, the network as a graph."""

from fastconv.export.figure_folder import figures
from fastconv.export.network import graph
from fastconv.export.tensorboard_log import tensorboard

__all__ = ["figures", "graph", "tensorboard"]
