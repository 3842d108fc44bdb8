"""Command line: `rdejax app VIDEO`."""

import dataclasses
import importlib.util
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError
from rdejax.options import parse_options

_HOST = "127.0.0.1"
_PORT = 8080


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Opens a video in the browser: outline objects, follow them, mend frames, save.

    The page is served to this machine alone and loads nothing from elsewhere. What is saved is as
    rdejax infer writes it. Ctrl-C ends.
    """

    video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO_OR_FRAMES_DIR")]
    """Video file or folder of images."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="OUT")] = None
    """Folder for the results; <video>-masks unless given."""
    mask: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Masks to begin with, as rdejax infer takes them."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = "rde-lite"
    """Bundled weights by name, or a checkpoint."""
    size: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Shorter side the network works at; the model's own unless given, else 480."""
    chunk: int | None = None
    """Frames handed to the model at once."""
    port: int | None = None
    """Of the page; 8080 or another free one unless given."""
    no_browser: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Do not open a browser."""


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the page until it is ended; exits non-zero with one sentence on a problem.

    Args:
      argv: arguments; the process's own by default.
    """
    with cli_errors(memory="try a smaller --size or --chunk"):
        args = parse_options(Arguments, args=argv)
        if importlib.util.find_spec("nicegui") is None:
            raise RdejaxError("nicegui is not installed: pip install 'rdejax[app]' (or '.[app]')")
        from rdejax.infer.cli import ModelOptions
        from rdejax.infer.model import load
        from rdejax.io.video import open_frames

        source = open_frames(args.video)
        _port(args.port)  # so that one that is taken is told at once
        model = load(ModelOptions(args.checkpoint, args.size, chunk=args.chunk))
        from rdejax.app.session import Session

        with Session(source, model, chunk=args.chunk) as session:
            if args.mask is not None:
                session.begin_with(args.mask)
            output = args.output or args.video.with_name(f"{args.video.stem}-masks")
            # Anew, for it may have been taken while the model was loaded.
            _serve(session, output, _port(args.port), show=not args.no_browser)


def _serve(session: Any, output: Path, port: int, *, show: bool) -> None:
    from nicegui import app, ui
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from rdejax.app.page import Page

    # Nobody else's page may speak to this one, under whatever name it finds this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[_HOST, "localhost"])
    app.add_middleware(_SameOrigin, allowed={f"http://{_HOST}:{port}", f"http://localhost:{port}"})

    @ui.page("/", title=f"{session.source.path.name} · rdejax")
    def index() -> None:
        Page(session, output)

    print(f"http://{_HOST}:{port} (Ctrl-C ends)", flush=True)
    ui.run(
        host=_HOST,
        port=port,
        reload=False,
        show=show,
        show_welcome_message=False,
        favicon="🦜",
    )


class _SameOrigin:
    """Refuses what a page of another origin asks for."""

    def __init__(self, app: Any, allowed: set[str]):
        self._app, self._allowed = app, allowed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        origin = dict(scope.get("headers", ())).get(b"origin", b"").decode("latin-1")
        if scope["type"] in ("http", "websocket") and origin and origin not in self._allowed:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            from starlette.responses import PlainTextResponse

            await PlainTextResponse("another origin", status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _port(wanted: int | None) -> int:
    """A port that is free.

    Raises:
      RdejaxError: the wanted one is not.
    """
    for port in (wanted,) if wanted is not None else (_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except (OSError, OverflowError):
                continue
            return probe.getsockname()[1]
    raise RdejaxError(f"--port {wanted}: not free; choose another one, or leave --port out")


if __name__ == "__main__":
    main()
