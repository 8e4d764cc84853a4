"""A finished run for other eyes: pages, pictures and the files of other programs."""

from fastconv.export.report import report

__all__ = ["report"]
