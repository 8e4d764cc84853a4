"""Pictures as arrays: numpy and Pillow only."""
