"""`python -m fastconv`, the same as the `fastconv` command."""

from fastconv.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
