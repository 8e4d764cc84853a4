"""One file per op: schema, fake, checks, docstring and public function."""
