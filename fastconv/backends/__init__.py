"""Implementations only; `fastconv.dispatch` chooses among them."""
