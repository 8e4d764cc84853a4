"""One run of a model over a data set: what was asked, the work, and its result."""
