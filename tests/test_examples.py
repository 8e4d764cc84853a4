"""The example notebooks run, and are kept as they ran."""

import importlib.util
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = {"shortcut": {"EPOCHS": 2, "PAIRS": 2}, "vibration": {"EPOCHS": 2}}


@pytest.fixture(scope="module")
def execute():
    pytest.importorskip("ipykernel")
    spec = importlib.util.spec_from_file_location("execute", EXAMPLES / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_small(name, execute):
    notebook = execute.execute(EXAMPLES / f"{name}.ipynb", **NOTEBOOKS[name])
    assert set(execute.pictures(notebook)) == tagged(notebook)


def tagged(notebook):
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", ())}
    return {tag.removeprefix("picture:") for tag in tags if tag.startswith("picture:")}


def test_every_notebook_is_kept_with_its_outputs_and_small():
    paths = sorted(EXAMPLES.glob("*.ipynb"))
    assert [path.stem for path in paths] == sorted(NOTEBOOKS)
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells)
        assert not [o for c in cells for o in c.outputs if o.output_type == "error"]
        assert path.stat().st_size < 1_500_000


def test_the_tutorial_shows_the_pictures_of_the_notebooks():
    page = (EXAMPLES.parent / "docs" / "tutorial.md").read_text()
    for path in EXAMPLES.glob("*.ipynb"):
        for name in tagged(nbformat.read(path, as_version=4)):
            assert f"images/tutorial/{name}.png" in page
            assert (EXAMPLES.parent / "docs" / "images" / "tutorial" / f"{name}.png").is_file()
