"""Pages of the site that lie outside of docs/: notebooks, pictures of benchmarks, source files."""

import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"\]\((?:\.\./)+([^)#\s]+)(#[^)]*)?\)")


@event_priority(100)  # before notebooks are made pages
def on_files(files: Files, config: Any) -> Files:
    """Adds the notebooks and the pictures that pages show."""
    for folder, pattern in (("examples", "notebooks/*.ipynb"), ("benchmarks", "results/*.png")):
        for path in sorted((ROOT / folder).glob(pattern)):
            place = path.relative_to(ROOT / folder).as_posix()
            source = str(ROOT / folder)
            files.append(File(place, source, config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Links that leave docs/ lead to the copies above, or into the repository."""
    up = "../" * page.file.src_uri.count("/")

    def moved(match: re.Match) -> str:
        target, anchor = match[1], match[2] or ""
        for folder in ("examples/notebooks/", "benchmarks/results/"):
            if target.startswith(folder) and target.endswith((".ipynb", ".png")):
                return f"]({up}{target.split('/', 1)[1]}{anchor})"
        # From a notebook, docs/ is elsewhere.
        if target.startswith("docs/"):
            return f"]({up}{target.removeprefix('docs/')}{anchor})"
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{page.file.src_uri}: {target} is not in the repository")
        return f"]({config.repo_url}/blob/main/{target}{anchor})"

    return _OUTSIDE.sub(moved, markdown)
