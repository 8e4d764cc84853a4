"""Plain data of a result, for which numpy suffices."""
