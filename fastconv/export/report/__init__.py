"""The report: one self-contained HTML page that shows a finished run."""

from fastconv.export.report.build import report

__all__ = ["report"]
