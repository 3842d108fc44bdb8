"""Settings as text, the way every command line takes them."""

import ast
from typing import Any


def name_and_value(text: str) -> tuple[str, Any]:
    """Name and value of "NAME=VALUE"; a value that is no Python literal is text.

    Raises:
      ValueError: it does not look like that.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise ValueError(text)
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
