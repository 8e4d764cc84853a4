"""Mergeable running states: their bits never depend on how the data was split."""
