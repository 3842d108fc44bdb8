"""The web face of a session; what it means is in `session`, what is drawn becomes in `drawing`."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from nicegui import events, run, ui

from rdejax.app import drawing
from rdejax.app.session import Session
from rdejax.errors import RdejaxError
from rdejax.io.overlay import render_overlay
from rdejax.io.palette import davis_palette

_TOOLS = {"brush": "Brush", "eraser": "Eraser", "polygon": "Polygon", "box": "Box"}
_HINTS = {
    "brush": "Paint over the object. “Find edges” makes the object of a few strokes inside it.",
    "eraser": "Take pixels away from the chosen object.",
    "polygon": "Click the corners; click the first one again to close.",
    "box": "Draw a box close around the object: it is cut out, and takes the place of its mask. "
    "Brush and eraser mend what is left.",
}
_QUALITY = 90
# A click so close to the first corner (pixels on a frame 480 high) closes a polygon.
_CLOSE = 10


class Page:
    """One browser tab: a frame to look at and draw on, and what is done with it."""

    def __init__(self, session: Session, output: Path):
        """Builds the page in the tab that asks for it.

        Args:
          session: shared by all tabs.
          output: where results are saved.
        """
        self._session, self._output = session, output
        self._number, self._object, self._tool = 0, 1, "brush"
        self._points: list[drawing.Point] = []
        self._cutting = False
        self._strokes: list[tuple[int, drawing.Region]] = []
        self._shown: tuple[int, int] | None = None
        height, width = session.source.size
        self._scale, self._aspect = height / 480, width / height
        self._build()
        self._show()
        ui.timer(0.3, self._tick)

    def _build(self) -> None:
        ui.query(".nicegui-content").classes("p-2")
        with ui.row().classes("w-full no-wrap items-start gap-4"):
            with ui.column().classes("grow min-w-0 gap-1"):
                self._image = (
                    ui.interactive_image(
                        content=" ",
                        events=["mousedown", "mousemove", "mouseup"],
                        on_mouse=self._mouse,
                        cross=False,
                        sanitize=False,
                    )
                    .classes("select-none")
                    .props("data-test=frame draggable=false")
                    .style(
                        f"width: min(100%, calc(78vh * {self._aspect:.4f})); cursor: crosshair; "
                        "touch-action: none"
                    )
                )
                self._slider = ui.slider(
                    min=0, max=len(self._session) - 1, value=0, on_change=self._slid
                ).props("data-test=slider aria-label=frame")
                with ui.row().classes("w-full items-center gap-2"):
                    ui.button(icon="chevron_left", on_click=lambda: self._go(-1)).props(
                        "flat dense data-test=back aria-label='previous frame'"
                    )
                    self._where = ui.label().props("data-test=where")
                    ui.button(icon="chevron_right", on_click=lambda: self._go(1)).props(
                        "flat dense data-test=next aria-label='next frame'"
                    )
                    self._status = ui.label().classes("text-gray-600").props("data-test=status")
                self._progress = ui.linear_progress(value=0, show_value=False).props(
                    "data-test=progress"
                )
            with ui.column().classes("w-72 shrink-0 gap-2"):
                self._build_objects()
                self._build_tools()
                self._build_actions()
        ui.keyboard(self._key)

    def _build_objects(self) -> None:
        ui.label("Objects").classes("text-weight-medium")
        self._list = ui.row().classes("gap-1").props("data-test=objects")
        with ui.row().classes("gap-1"):
            self._button("New object", self._new_object, "new-object", icon="add")
            self._button("Remove", self._remove, "remove", icon="delete")

    def _build_tools(self) -> None:
        ui.label("Draw").classes("text-weight-medium")
        ui.toggle(_TOOLS, value=self._tool, on_change=lambda e: self._choose(e.value)).props(
            "dense no-caps data-test=tools"
        )
        self._hint = ui.label(_HINTS[self._tool]).classes("text-caption text-gray-600")
        with ui.row().classes("w-full items-center no-wrap"):
            ui.label("Width").classes("text-caption")
            self._width = ui.slider(min=2, max=80, value=16).props("data-test=width")
        with ui.row().classes("gap-1"):
            self._button("Find edges", self._find_edges, "edges", icon="auto_fix_high")
            self._button("Take back", self._take_back, "take-back", icon="undo")

    def _build_actions(self) -> None:
        ui.separator()
        self._go_on = self._button("Propagate", self._propagate, "propagate", icon="play_arrow")
        self._go_on.props("color=primary")
        self._halt = self._button("Stop", self._session.stop, "stop", icon="stop")
        self._follow = ui.switch("Watch it", value=True).props("data-test=follow")
        ui.separator()
        self._button(f"Save to {self._output}", self._save, "save", icon="save")

    def _button(self, text: str, action: Callable, name: str, icon: str) -> ui.button:
        async def safely() -> None:
            try:
                result = action()
                if hasattr(result, "__await__"):
                    await result
            except (RdejaxError, OSError) as error:
                ui.notify(str(error), type="negative", multi_line=True, close_button=True)

        props = f"no-caps dense outline data-test={name}"
        return ui.button(text, icon=icon, on_click=safely).props(props).classes("px-2")

    # ---------------------------------------------------------------- looking

    def _show(self) -> None:
        """Puts the frame and its masks on the page."""
        session, number = self._session, self._number
        picture = render_overlay(session.frame(number), session.mask(number))
        quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
        text = base64.b64encode(data.tobytes()).decode("ascii")
        self._image.set_source(f"data:image/jpeg;base64,{text}")
        self._shown = (number, session.done)
        drawn = " · drawn" if number in session.told else ""
        self._where.set_text(f"frame {session.source.names[number]} of {len(session)}{drawn}")
        self._list_objects()

    def _list_objects(self) -> None:
        self._list.clear()
        with self._list:
            for index in sorted({*self._session.objects, self._object}):
                colour = _colour(index)
                chosen = index == self._object
                ui.button(str(index), on_click=lambda _, i=index: self._choose_object(i)).props(
                    f"dense {'unelevated' if chosen else 'outline'} data-test=object-{index}"
                ).style(
                    f"min-width: 2.4em; border: 2px solid {colour}; "
                    + (f"background: {colour} !important; color: white" if chosen else "")
                )

    def _tick(self) -> None:
        """Keeps the page in step with what goes on."""
        session = self._session
        self._progress.set_value(session.done / len(session) if session.told else 0.0)
        self._halt.set_enabled(session.busy)
        self._go_on.set_enabled(not session.busy)
        if session.busy:
            said = f"{session.done} of {len(session)} frames" if session.done else "compiling"
        elif self._cutting:
            said = "cutting it out"
        elif not session.told:
            said = "outline an object in some frame"
        elif session.done < len(session):
            said = f"propagate from frame {session.done} on"
        else:
            said = "all frames are done"
        self._status.set_text(said)
        if session.busy and self._follow.value and session.done and not self._points:
            self._number = min(session.done, len(session)) - 1
        if self._shown != (self._number, session.done):
            self._slider.set_value(self._number)
            self._show()

    def _slid(self, event: events.ValueChangeEventArguments) -> None:
        if int(event.value) != self._number:
            self._turn_to(int(event.value))

    def _go(self, step: int) -> None:
        self._slider.set_value(min(max(self._number + step, 0), len(self._session) - 1))

    def _turn_to(self, number: int) -> None:
        self._number, self._points, self._strokes = number, [], []
        self._sketch()
        self._show()

    def _key(self, event: events.KeyEventArguments) -> None:
        if event.action.keydown and event.key.arrow_left:
            self._go(-1)
        elif event.action.keydown and event.key.arrow_right:
            self._go(1)

    # ---------------------------------------------------------------- drawing

    def _choose(self, tool: str) -> None:
        self._tool, self._points = tool, []
        self._hint.set_text(_HINTS[tool])
        self._sketch()

    def _choose_object(self, index: int) -> None:
        self._object = index
        self._list_objects()

    def _new_object(self) -> None:
        taken = {*self._session.objects}
        self._choose_object(next(index for index in range(1, 256) if index not in taken))

    async def _mouse(self, event: events.MouseEventArguments) -> None:
        point = (event.image_x, event.image_y)
        if self._session.busy or self._cutting:
            if event.type == "mousedown":
                what = "frames are gone through" if self._session.busy else "an object is cut out"
                ui.notify(f"not drawn: {what}; wait, or press Stop", type="warning")
            return
        if self._tool == "polygon":
            if event.type == "mousedown":
                await self._corner(point)
        elif event.type == "mousedown":
            self._points = [point]
        elif event.type == "mousemove" and self._points and event.buttons & 1:
            self._points = (
                [self._points[0], point] if self._tool == "box" else [*self._points, point]
            )
        elif event.type == "mouseup" and self._points:
            self._points.append(point)
            await self._finish()
        else:
            return
        self._sketch()

    async def _corner(self, point: drawing.Point) -> None:
        first = self._points[0] if len(self._points) > 2 else None
        if (
            first
            and max(abs(a - b) for a, b in zip(first, point, strict=True)) < _CLOSE * self._scale
        ):
            await self._finish()
        else:
            self._points.append(point)

    async def _finish(self) -> None:
        """Makes a mask of what was drawn."""
        points, self._points = self._points, []
        size, frame = self._session.source.size, self._session.frame(self._number)
        try:
            if self._tool == "polygon":
                region = drawing.polygon(size, points)
            elif self._tool == "box":
                inside = drawing.box(size, points[0], points[-1])
                region = await self._cut_out(drawing.cut_out_box, frame, inside)
            else:
                region = drawing.stroke(size, points, self._brush)
            how: Any = {"eraser": "erase", "box": "replace"}.get(self._tool, "add")
            self._session.draw(self._number, self._object, region, how)
        except RdejaxError as error:
            ui.notify(str(error), type="negative", multi_line=True)
            return
        if self._tool == "brush":
            self._strokes.append((self._object, region))
        self._show()

    async def _cut_out(self, by: Callable, *inputs: Any) -> drawing.Region:
        """What GrabCut finds, while the page stays alive."""
        self._cutting = True
        try:
            found = await run.io_bound(by, *inputs)
            assert found is not None  # only while the program ends
            return found
        finally:
            self._cutting = False

    @property
    def _brush(self) -> float:
        """Width of the brush in pixels of the frame."""
        return float(self._width.value or 1) * self._scale

    def _sketch(self) -> None:
        """Shows what is being drawn over the frame."""
        colour, width = _colour(self._object), self._brush
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in self._points)
        line = f'fill="none" stroke="{colour}" stroke-linecap="round" stroke-linejoin="round"'
        if not self._points:
            content = " "
        elif self._tool == "box":
            (a, b), (c, d) = self._points[0], self._points[-1]
            content = (
                f'<rect x="{min(a, c)}" y="{min(b, d)}" width="{abs(a - c)}" height="{abs(b - d)}" '
                f'{line} stroke-width="{2 * self._scale}" />'
            )
        elif self._tool == "polygon":
            dots = "".join(
                f'<circle cx="{x}" cy="{y}" r="{4 * self._scale}" fill="{colour}" />'
                for x, y in self._points
            )
            content = f'<polyline points="{path}" {line} stroke-width="{2 * self._scale}" />{dots}'
        else:
            content = f'<polyline points="{path}" {line} stroke-width="{width}" opacity="0.6" />'
        self._image.set_content(content)

    # ---------------------------------------------------------------- doing

    async def _find_edges(self) -> None:
        """Makes the object of the strokes that were drawn in it."""
        session, number, index = self._session, self._number, self._object
        drawn = [region for of, region in self._strokes if of == index]
        inside = drawn[0] if drawn else session.mask(number) == index
        for region in drawn[1:]:
            inside = inside | region
        region = await self._cut_out(drawing.cut_out_strokes, session.frame(number), inside)
        session.draw(number, index, region, "replace")
        self._strokes = []
        self._show()

    def _take_back(self) -> None:
        self._session.take_back(self._number)
        self._strokes, self._points = [], []
        self._sketch()
        self._show()

    def _remove(self) -> None:
        self._session.remove(self._object)
        self._object = (self._session.objects or [1])[0]
        self._strokes = []
        self._show()

    async def _propagate(self) -> None:
        self._strokes = []
        await run.io_bound(self._session.propagate)
        if self._follow.value:
            self._slider.set_value(max(self._session.done, 1) - 1)
        self._show()

    async def _save(self) -> None:
        summary = await run.io_bound(self._session.save, self._output)
        assert summary is not None  # only while the program ends
        ui.notify(f"saved {summary['frames']} frames to {self._output}", type="positive")


def _colour(index: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*davis_palette()[index].tolist())
