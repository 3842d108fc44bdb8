"""hf:// addresses and `rdejax push`, against a stand-in of the hub on this machine."""

import base64
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import rdejax
from rdejax import hub
from rdejax.errors import RdejaxError
from rdejax.models import create
from rdejax.models.weights import save_weights, weights_of

constants = pytest.importorskip("huggingface_hub.constants", reason="pip install '.[hub]'")
TINY = {"key_channels": 16, "value_channels": 32, "decoder_widths": (16, 16, 16)}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as its client uses for small files."""

    models: dict[str, dict[str, bytes]] = {}
    gated: set[str] = set()
    commits: list[str] = []

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        repo = "/".join(parts[:2])
        if parts[2:3] != ["resolve"] or repo not in self.models:
            return self.answer(404, X_Error_Code="RepoNotFound")
        if repo in self.gated:
            return self.answer(403, X_Error_Code="GatedRepo")
        if parts[3] not in ("main", COMMIT):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        body = self.models[repo].get("/".join(parts[4:]))
        if body is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        return self.answer(200, body, ETag=etag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "authorization" not in {name.lower() for name in self.headers}:
            return self.answer(401)
        if self.path == "/api/repos/create":
            told = json.loads(body)
            repo = (
                f"{told['organization']}/{told['name']}"
                if told.get("organization")
                else told["name"]
            )
            self.models.setdefault(repo, {})
            return self.json({"url": f"http://{self.headers['Host']}/{repo}", "name": repo})
        if self.path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        repo = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            files = [
                {**f, "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.json({"files": files})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.models[repo][value["path"]] = base64.b64decode(value["content"])
                else:
                    self.commits.append(line["value"]["summary"])
            return self.json(
                {
                    "commitUrl": f"http://{self.headers['Host']}/{repo}/commit/{COMMIT}",
                    "commitOid": COMMIT,
                }
            )
        return self.answer(404)

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The stand-in, with an empty cache and a login."""
    Hub.models, Hub.gated, Hub.commits = {}, set(), []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_standin")
    yield Hub
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, create("rde-lite", config=TINY, memory="average"), step=7)
    return path


def test_what_is_pushed_is_loaded(server, weights, monkeypatch) -> None:
    hub.push(str(weights), "hf://someone/a-model", license="apache-2.0")
    files = server.models["someone/a-model"]
    assert set(files) == {"weights.safetensors", "README.md"}
    assert files["weights.safetensors"] == weights.read_bytes() and len(server.commits) == 1
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: rdejax\nlicense: apache-2.0\n")
    assert 'rdejax.load_model("hf://someone/a-model")' in card and '{"step": 7}' in card
    loaded, local = rdejax.load_model("hf://someone/a-model"), rdejax.load_model(str(weights))
    for name, array in weights_of(local).items():
        np.testing.assert_array_equal(weights_of(loaded)[name], array)
    # Offline the cache will do, and what is not in it is told.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.download("hf://someone/a-model").read_bytes() == weights.read_bytes()
    with pytest.raises(RdejaxError, match="not in the cache .* HF_HUB_OFFLINE is set"):
        hub.download("hf://someone/another")


@pytest.mark.slow
def test_without_a_network_the_cache_will_do(server, weights, monkeypatch) -> None:
    server.models["a/b"] = {"weights.safetensors": weights.read_bytes()}
    hub.download("hf://a/b")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.download("hf://a/b").read_bytes() == weights.read_bytes()
    with pytest.raises(RdejaxError, match="not in the cache .* the hub cannot be reached"):
        hub.download("hf://a/c")


def test_what_is_not_there_is_told(server, weights) -> None:
    server.models |= {"a/empty": {}, "a/gated": {}}
    server.gated.add("a/gated")
    for address, told in {
        "hf://a/none": "no such model, or a private one",
        "hf://a/empty": "holds no weights.safetensors",
        "hf://a/empty@v2": "no revision 'v2'",
        "hf://a/gated": "needs the owner's consent",
    }.items():
        with pytest.raises(RdejaxError, match=told):
            hub.download(address)


def test_files_that_are_no_weights_are_refused(server) -> None:
    server.models["a/hostile"] = {"weights.safetensors": b"cos\nsystem\n(S'x'\ntR."}
    with pytest.raises(RdejaxError, match="not a readable safetensors file"):
        rdejax.load_model("hf://a/hostile")


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://a",
        "hf://a/../../etc",
        "hf://../a",
        "hf://a/b/../../x.safetensors",
        "hf://a/b//etc/x.safetensors",
        "hf://a/b/x.safetensors/..",
        "hf://a b/c",
        "hf://a/b@-x y",
        "hf://a/b?x=1",
        "hf://a/b\n",
        "hf://user:word@host/a/b",
    ],
)
def test_addresses_that_lead_elsewhere_are_refused(address) -> None:
    with pytest.raises(RdejaxError, match="not understood|only .safetensors"):
        hub.Address.parse(address)


def test_addresses() -> None:
    assert hub.Address.parse("hf://a/b.c-d_e") == hub.Address("a/b.c-d_e")
    whole = hub.Address.parse("hf://a/b@v1.0/models/x.safetensors")
    assert whole == hub.Address("a/b", "v1.0", "models/x.safetensors")
    with pytest.raises(RdejaxError, match="only .safetensors files .* rdejax convert"):
        hub.Address.parse("hf://a/b/model.pth")


def test_bad_pushes_change_nothing(server, weights, tmp_path, monkeypatch) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    for given, address, more, told in (
        (weights, "hf://a/b@main", {}, "give hf://OWNER/NAME alone"),
        (weights, "hf://a/b", {"license": "my own"}, "give an identifier"),
        (tmp_path / "bad.safetensors", "hf://a/b", {}, "not a readable safetensors"),
        (tmp_path / "none", "hf://a/b", {}, "no such model or weights file"),
        (weights, "hf://a/b", {"card": tmp_path / "none.md"}, "none.md: not a readable text"),
    ):
        with pytest.raises(RdejaxError, match=told):
            hub.push(str(given), address, **{"license": "other", **more})
    assert server.models == {} and server.commits == []


def test_without_the_library_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RdejaxError, match=r"pip install 'rdejax\[hub\]'"):
        rdejax.load_model("hf://a/b")
