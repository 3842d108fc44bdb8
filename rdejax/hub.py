"""Weights on the Hugging Face Hub: `hf://OWNER/NAME`, by `huggingface_hub`."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

from rdejax.errors import RdejaxError, first_line
from rdejax.models.weights import StoredModel, find_weights, read_model, read_weights

PREFIX = "hf://"
FILE = "weights.safetensors"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_ADDRESS = re.compile(
    rf"{PREFIX}(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>.+))?"
)


@dataclasses.dataclass(frozen=True)
class Address:
    """Where weights lie on the hub.

    Attributes:
      repo: "owner/name".
      revision: branch, tag or commit; None: the main branch.
      file: path of the .safetensors file in the repository.
    """

    repo: str
    revision: str | None = None
    file: str = FILE

    @staticmethod
    def parse(text: str) -> "Address":
        """The address that `hf://OWNER/NAME[@REVISION][/FILE.safetensors]` means.

        Raises:
          RdejaxError: not of that form, a path that leads elsewhere, or a file of a kind that can
            hold programs.
        """
        match = _ADDRESS.fullmatch(text)
        if not match or ".." in text or "--" in match["repo"]:
            raise RdejaxError(
                f"{text}: not understood; give hf://OWNER/NAME, with @REVISION or "
                "/FILE.safetensors behind it where need be"
            )
        file = match["file"] or FILE
        if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)*\.safetensors", file):
            raise RdejaxError(
                f"{text}: only .safetensors files are loaded from the hub, which run no code; "
                "download another kind yourself and use rdejax convert"
            )
        return Address(match["repo"], match["revision"], file)


def locate(name: str) -> Path:
    """The file or folder of weights: `download` of an address, `find_weights` of anything else.

    Raises:
      RdejaxError: see there.
    """
    return download(name) if name.startswith(PREFIX) else find_weights(name)


def download(text: str) -> Path:
    """The weights of an address, from the hub or from its cache on this machine.

    With `HF_HUB_OFFLINE=1` only the cache is looked at; without a network, too, where the file is
    in it. `HF_HOME` says where the cache is.

    Raises:
      RdejaxError: `huggingface_hub` is missing, a bad address, nothing there, no right to read it,
        or no network and nothing in the cache.
    """
    address = Address.parse(text)
    hub, errors = _library()
    try:
        path = hub.hf_hub_download(
            address.repo, address.file, revision=address.revision, endpoint=_endpoint()
        )
    except errors.GatedRepoError:
        raise RdejaxError(
            f"{text}: needs the owner's consent; ask for it on the model's page, then hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise RdejaxError(
            f"{text}: no such model, or a private one; look at its name, or log in (hf auth login)"
        ) from None
    except errors.RevisionNotFoundError:
        raise RdejaxError(f"{text}: the model has no revision {address.revision!r}") from None
    except errors.LocalEntryNotFoundError as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
        why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise RdejaxError(
            f"{text}: not in the cache of this machine, and {why}; load it once with a network, or "
            "give the file itself"
        ) from error
    except errors.EntryNotFoundError:
        raise RdejaxError(
            f"{text}: holds no {address.file}; was it pushed with rdejax push? Another file is "
            f"named as {PREFIX}{address.repo}/FILE.safetensors"
        ) from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        raise RdejaxError(f"{text}: could not be loaded ({first_line(error, 200)})") from error
    return Path(path)


def push(
    weights: str,
    address: str,
    *,
    license: str,
    private: bool = False,
    card: Path | None = None,
    message: str | None = None,
) -> str:
    """Puts weights and a model card on the hub, in one commit; makes the model if need be.

    Args:
      weights: name of bundled weights, a .safetensors file, or the folder of a training run.
      address: `hf://OWNER/NAME`.
      license: identifier as the hub knows it ("apache-2.0", "other", ...).
      private: make a new model private; one that is there stays as it is.
      card: Markdown for the card, in place of the one that is written from the weights.
      message: of the commit.

    Returns:
      The model's page.

    Raises:
      RdejaxError: bad weights, a bad address, no login or no right to write; nothing was changed
        then.
    """
    target = Address.parse(address)
    if target.revision or target.file != FILE:
        raise RdejaxError(f"{address}: give hf://OWNER/NAME alone; the file becomes {FILE}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise RdejaxError(f"license {license!r}: give an identifier such as apache-2.0 or other")
    file = find_weights(weights)
    if file.suffix != ".safetensors":
        raise RdejaxError(f"{weights}: has no finished weights; give a .safetensors file")
    stored = read_model(file)
    if str(stored.settings.memory).endswith(".py"):
        raise RdejaxError(
            f"{weights}: its memory rule is the program {stored.settings.memory}, which the hub "
            "would not carry; put the rule into a package, or push with another rule's settings"
        )
    stored.build()  # weights that do not fit or are not finite are found here
    text = _read_card(card) if card else model_card(stored, target.repo, read_weights(file)[1])
    hub, errors = _library()
    api = hub.HfApi(endpoint=_endpoint())
    operations = [
        hub.CommitOperationAdd(FILE, str(file)),
        hub.CommitOperationAdd("README.md", _with_front(text, license).encode()),
    ]
    try:
        api.create_repo(target.repo, private=private or None, exist_ok=True)
        done = api.create_commit(
            target.repo, operations, commit_message=message or f"{stored.system} by rdejax push"
        )
    except errors.LocalTokenNotFoundError:
        raise RdejaxError("not logged in to the hub; run hf auth login, or set HF_TOKEN") from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        raise RdejaxError(f"{address}: could not be written ({first_line(error, 200)})") from error
    return str(getattr(done, "repo_url", None) or f"{api.endpoint}/{target.repo}")


def model_card(stored: StoredModel, repo: str, metadata: dict[str, str]) -> str:
    """Markdown that says what weights are, from what is stored with them."""
    count = sum(array.size for array in stored.arrays.values())
    rule = ", ".join(f"{k} = {v}" for k, v in stored.settings.memory_settings) or "its defaults"
    sizes = ", ".join(f"{k} = {v}" for k, v in stored.config.items()) or "the published ones"
    return "\n".join(
        [
            f"# {repo.split('/')[1]}",
            "",
            "Semi-supervised video object segmentation: an object's mask in one frame goes in, "
            "its masks in all frames come out.",
            "",
            "| | |",
            "|---|---|",
            f"| system | `{stored.system}` ({sizes}) |",
            f"| memory | `{stored.settings.memory}` ({rule}), every {stored.settings.every} "
            "frames |",
            f"| weights | {count:,} numbers |",
            f"| stored with them | `{metadata.get('extra', '{}')}` |",
            "",
            "```python",
            "import rdejax",
            "",
            f'model = rdejax.load_model("{PREFIX}{repo}")',
            "masks = rdejax.segment_video(model, frames, first_mask)",
            "```",
            "",
        ]
    )


def _with_front(text: str, license: str) -> str:
    """The card with what the hub reads of it, unless it begins with that itself."""
    if text.startswith("---\n"):
        return text
    front = ["---", "library_name: rdejax", f"license: {license}"]
    front += ["tags:", "- video-object-segmentation", "- jax", "---", ""]
    return "\n".join(front) + text


def _read_card(card: Path) -> str:
    try:
        return card.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RdejaxError(f"{card}: not a readable text ({error})") from None


def _library() -> tuple[Any, Any]:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise RdejaxError(
            "hf:// needs huggingface_hub, which is not installed; pip install 'rdejax[hub]'"
        ) from None
    return huggingface_hub, huggingface_hub.errors


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None
