"""A run's configuration: a recipe of this package by its name, or a file of one's own."""

import ast
import difflib
import importlib.util
from pathlib import Path

from rdejax.errors import RdejaxError
from rdejax.registry import running
from rdejax.train.config import TrainConfig


def recipe_files() -> dict[str, Path]:
    """The recipes of this package, name -> file, sorted."""
    spec = importlib.util.find_spec("rdejax.configs")
    assert spec is not None and spec.origin is not None
    files = Path(spec.origin).parent.glob("*.py")
    return {file.stem: file for file in sorted(files) if not file.stem.startswith("_")}


def load_config(name: str) -> TrainConfig:
    """The `config` that a recipe or a Python file defines.

    Args:
      name: of a recipe, "rde_stage3", or the path of a file that ends in .py.

    Raises:
      RdejaxError: no such recipe or file, one that Python cannot run, or one without a
        configuration.
    """
    recipes = recipe_files()
    file = recipes.get(name, Path(name))
    if file.suffix != ".py" or not file.is_file():
        near = difflib.get_close_matches(file.stem, recipes, n=1)
        hint = f"did you mean {near[0]}" if near else f"the recipes are {', '.join(recipes)}"
        raise RdejaxError(
            f"{name}: no such configuration; give a recipe's name or a .py file ({hint})"
        )
    spec = importlib.util.spec_from_file_location("experiment", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with running(name, file):
        spec.loader.exec_module(module)
    if not isinstance(getattr(module, "config", None), TrainConfig):
        raise RdejaxError(
            f"{name}: defines no `config = TrainConfig(...)`; see the recipes in rdejax/configs"
        )
    return module.config


def describe_recipes() -> str:
    """One line for each recipe: its name and the first line of its text."""
    lines = []
    for name, file in recipe_files().items():
        text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        lines.append(f"  {name:16} {text.partition(chr(10))[0]}")
    return "\n".join(lines)
