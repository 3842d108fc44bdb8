"""What a user sees of the package: its names, their help, and their types."""

import inspect
import json
import pydoc
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import rdejax
import rdejax.propagate

SNIPPET = """
import numpy as np
import rdejax
from rdejax.propagate import Geometry, prepare, propagate

frames = np.zeros((2, 8, 8, 3), np.uint8)
model = rdejax.load_model("rde-lite", every=3, size=None, top_k=40)
reveal_type(model)
reveal_type(rdejax.segment_video(model, frames, frames[0, ..., 0]))
reveal_type(rdejax.segment_video(model, frames, frames[0, ..., 0], return_probs=True))
stream = rdejax.stream(model, chunk=6)
reveal_type(stream)
reveal_type(stream.step(frames[0]))
reveal_type(rdejax.check_rule("mine.py"))
reveal_type(rdejax.sweep_settings(model, frames, frames[0, ..., 0], tau=[0.1]))
reveal_type(Geometry.of((8, 8), None))
rdejax.load_model("rde-lite", every="3")
rdejax.nothing
"""


def test_dir_and_help_show_the_public_names() -> None:
    assert set(rdejax.__all__) <= set(dir(rdejax))
    text = pydoc.plain(pydoc.render_doc(rdejax))
    for name in rdejax.__all__:
        assert getattr(rdejax, name) is not None and name in text
    assert "load_model(name_or_path: str, *, memory: str = <the model's own>" in text
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rdejax.nothing  # noqa: B018


def test_importing_is_quick_and_names_are_found_late() -> None:
    code = "import sys, rdejax; dir(rdejax); print('jax' in sys.modules, rdejax.Stream.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False Stream\n", done.stderr


@pytest.mark.parametrize("module", [rdejax, rdejax.propagate])
def test_everything_public_is_explained(module) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        assert (inspect.getdoc(value) or "").strip(), name
        if inspect.isfunction(value):
            sections = inspect.getdoc(value) or ""
            for parameter in inspect.signature(value).parameters:
                assert "Args:" not in sections or f"{parameter}:" in sections, (name, parameter)


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files("rdejax").joinpath("py.typed").is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    not Path(sys.executable).with_name("pyright").exists() and shutil.which("pyright") is None,
    reason="pyright is not installed",
)
def test_what_a_type_checker_sees_is_no_any(tmp_path) -> None:
    (tmp_path / "user.py").write_text(SNIPPET)
    place = Path(rdejax.__file__).parents[1]
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(place)]}))
    pyright = Path(sys.executable).with_name("pyright")
    command = [str(pyright if pyright.exists() else "pyright"), "--outputjson"]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    types = [d["message"] for d in found if d["severity"] == "information"]
    seen = [message.split(" is ", 1)[1].strip('"') for message in types]
    assert [name.split("[")[0] for name in seen] == [
        "System", "ndarray", "ndarray", "Stream", "ndarray", "RuleCheck", "ndarray", "Geometry",
    ]  # fmt: skip
    assert "unsigned" in seen[1] and "floating" in seen[2]  # as NumPy spells them
    errors = [d["message"] for d in found if d["severity"] == "error"]
    assert len(errors) == 2 and "every" in errors[0] and '"nothing"' in errors[1], errors
