"""Figures of a run with matplotlib, the extra `figures`."""
