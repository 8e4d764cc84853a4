"""The file on disk: written once and whole, read without model or data set."""
