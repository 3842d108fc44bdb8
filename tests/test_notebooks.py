"""The notebooks run from top to bottom, as a user runs them, where nothing else is."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install '.[docs]' for the notebooks")
nbclient = pytest.importorskip("nbclient", reason="pip install '.[docs]' for the notebooks")
pytest.importorskip("ipykernel", reason="pip install '.[docs]' for the notebooks")

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
# `STORE_NOTEBOOKS=1 pytest -m slow tests/test_notebooks.py` writes their outputs into them.
STORE = bool(os.environ.get("STORE_NOTEBOOKS"))


def test_there_are_notebooks_with_outputs_and_nothing_of_this_machine() -> None:
    assert len(NOTEBOOKS) >= 4
    for path in NOTEBOOKS:
        text = path.read_text("utf-8")
        assert '"output_type"' in text, path.name
        assert str(EXAMPLES.parent) not in text and "/tmp/pytest" not in text, path.name
        assert '"ename"' not in text and '"stderr"' not in text, path.name


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs(path, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (tmp_path / "demo").symlink_to(EXAMPLES / "demo")
    monkeypatch.setenv("JAX_NUMPY_RANK_PROMOTION", "allow")  # as users have it
    notebook = nbformat.read(path, 4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()  # raises what a cell raises
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which change
    if STORE:
        text = nbformat.writes(notebook).replace(f"{folder}/", "")
        path.write_text(text + "\n", "utf-8")
