"""HTML elements as strings in which everything is escaped unless it is markup already."""

import base64
import html
from collections.abc import Iterable

# Elements that have no content, hence no closing tag.
_VOID = frozenset({"br", "img", "link", "meta"})


class Html(str):
    """Markup that goes into the page as it stands."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: object) -> Html:
    """One element.

    Args:
      name: of the element.
      *children: text, which is escaped, or `Html`, which is not.
      **attributes: a trailing underscore is dropped (`class_`), others become hyphens; True gives
        a bare attribute, None and False none at all. Values are escaped.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Children one after the other, text escaped."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))


def escape(text: str) -> str:
    """Text that cannot be taken for markup, inside elements and quoted attributes.

    File names need not be valid UTF-8; what is not becomes the replacement character.
    """
    return html.escape(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def data_uri(kind: str, content: bytes) -> str:
    """A file inside an attribute; `kind` is its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
