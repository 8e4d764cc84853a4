"""Pictures of what a run holds: numpy in, uint8 pictures out."""
