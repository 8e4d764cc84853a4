"""Run the notebooks of this folder again, and put their pictures where docs/tutorial.md shows them.

python examples/execute.py
"""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
PICTURES = HERE.parent / "docs" / "images" / "tutorial"


def execute(path: Path, **parameters: object) -> nbformat.NotebookNode:
    """A notebook with outputs; `parameters` stand in place of the cell that is tagged so."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if parameters and "parameters" in cell.metadata.get("tags", ()):
            cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which change with every run
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> dict[str, bytes]:
    """PNGs by the name in the tag `picture:NAME` of their cell."""
    found = {}
    for cell in notebook.cells:
        tags = [t for t in cell.metadata.get("tags", ()) if t.startswith("picture:")]
        data = [output.get("data", {}) for output in cell.get("outputs", ())]
        images = [one["image/png"] for one in data if "image/png" in one]
        if tags and images:
            found[tags[0].removeprefix("picture:")] = base64.b64decode(images[-1])
    return found


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in sorted(HERE.glob("*.ipynb")):
        notebook = execute(path)
        nbformat.write(notebook, path)
        for name, png in pictures(notebook).items():
            (PICTURES / f"{name}.png").write_bytes(png)


if __name__ == "__main__":
    main()
