"""A finished run for other eyes: pages, pictures and the files of other programs."""

from fastconv.export.figure_folder import figures
from fastconv.export.network import graph
from fastconv.export.report import report
from fastconv.export.tensorboard_log import tensorboard

__all__ = ["figures", "graph", "report", "tensorboard"]
