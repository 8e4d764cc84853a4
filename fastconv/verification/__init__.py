"""Recomputing what a file says from the model and the data."""
