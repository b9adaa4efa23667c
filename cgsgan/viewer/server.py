"""The page's server: controls change the state, the worker shows it to all pages.

One explorer has one state. All its pages show the same head; a page's own camera is that of whoever moved last.
"""

from __future__ import annotations

import contextlib
import io
import math
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cgsgan.cameras import ORBIT_RADIUS
from cgsgan.export.images import to_uint8
from cgsgan.types import Gaussians
from cgsgan.viewer.controls import ControlPanel
from cgsgan.viewer.gate import LOOPBACK, Gate, gated
from cgsgan.viewer.saving import OutputFolder, SaveRefusedError, save_picture, save_splats, save_turn
from cgsgan.viewer.scene import Explorer, state_camera
from cgsgan.viewer.splats import add_splats, splat_arrays
from cgsgan.viewer.state import FRONTAL_FOV, SEEDS, SPLATS, RefusedValueError, State
from cgsgan.viewer.worker import Worker

RANDOM_SEEDS = 1_000_000
DEAF_SECONDS = 0.5
"""After a slider moved the cameras, pages report where they were before; for so long they are not listened to."""
COUNTED_SECONDS = 2.0
WIDEST_ASPECT = 4.0


@dataclass(frozen=True, kw_only=True)
class ViewerOptions:
    """How the explorer is served.

    Attributes:
        host: address to listen on; other than loopback, everybody who reaches it may use it.
        port: 0 takes any that is free.
        folder: where files are saved.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    folder: OutputFolder


class Viewer:
    """The explorer, served from its construction until :meth:`stop`.

    Args:
        explorer: draws.
        options: how to serve.

    Raises:
        ValueError: without viser, or when the address cannot be listened on.
    """

    def __init__(self, explorer: Explorer, options: ViewerOptions) -> None:
        viser = _import_viser()
        _check_address(options.host, options.port)
        self.explorer, self.options = explorer, options
        self.state = State.start(explorer.limits)
        loopback = options.host in LOOPBACK
        self.gate = Gate(hosts=LOOPBACK if loopback else None)
        with contextlib.redirect_stdout(io.StringIO()), gated(self.gate):
            self.server: Any = viser.ViserServer(host=options.host, port=options.port, verbose=False)
        self.worker = Worker(self._show)
        self._deaf_until = 0.0
        self._shown_at: deque[float] = deque(maxlen=256)
        self._splats_key: object = None
        self._cameras_moved = False
        self._build_page()
        self.server.on_client_connect(self._meet)
        self.worker.start()
        self.worker.want(self.state)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.get_port()

    def stop(self) -> None:
        """End the server and the worker."""
        self.worker.stop()
        self.server.stop()

    def change(self, name: str, value: Any) -> None:
        """A page changed a control; what no control can have changes nothing."""
        with contextlib.suppress(RefusedValueError):
            state = self.state.with_value(self.explorer.limits, name, value)
            if name in ("yaw", "pitch", "radius", "fov"):
                self._deafen()
            self._become(state)

    def _build_page(self) -> None:
        gui, scene = self.server.gui, self.server.scene
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        gui.set_panel_label("cgsgan")
        scene.set_up_direction("+y")
        scene.configure_environment_map(None)
        camera = self.server.initial_camera
        camera.position, camera.look_at = (0.0, 0.0, ORBIT_RADIUS), (0.0, 0.0, 0.0)
        camera.fov = math.radians(FRONTAL_FOV)
        self.splats: Any = add_splats(scene, "/head") if self.explorer.splats else None
        self.picture = gui.add_image(np.full((64, 64, 3), 255, np.uint8), format="png")
        self.picture.format = "png"
        self.figures = gui.add_markdown("")
        save: dict[str, Callable[[], None]] = {"Save picture": lambda: self._save(save_picture)}
        if self.explorer.splats:
            save["Save PLY"] = lambda: self._save(save_splats)
        save["Save video"] = lambda: self._save(self._save_turn)
        limits = self.explorer.limits
        buttons: dict[str, dict[str, Callable[[], None]]] = {
            "Head": {"Random head": self._draw_head},
            "Second head": {"Random second head": lambda: self._randomize("other_seed")},
            "Directions": {"Reset directions": self._straighten},
            "Camera": {"Front": self._to_front},
            "Save": save,
        }
        self.panel = ControlPanel(gui, limits, self.state, self.change, buttons)
        self.gate.cleaners |= self.panel.cleaners
        self.news = gui.add_markdown("")

    def _become(self, state: State) -> None:
        self.state = state
        self.panel.show(state)
        self.worker.want(state)

    def _randomize(self, name: str) -> None:
        self.change(name, secrets.randbelow(RANDOM_SEEDS))

    def _draw_head(self) -> None:
        # While a head that was found is shown, another seed would change nothing.
        self._become(replace(self.state, head=SEEDS))
        self._randomize("seed")

    def _straighten(self) -> None:
        self._become(replace(self.state, steps=State.start(self.explorer.limits).steps))

    def _to_front(self) -> None:
        start = State.start(self.explorer.limits)
        self._deafen()
        self._become(replace(self.state, yaw=0.0, pitch=0.0, radius=start.radius, fov=start.fov, target=start.target))

    async def _meet(self, client: Any) -> None:
        """A page opened: it is shown what there is, and its camera is listened to."""
        self._deaf_until = time.monotonic() + DEAF_SECONDS
        self._move_camera(client)

        async def moved(camera: Any) -> None:
            if time.monotonic() < self._deaf_until:
                return
            with contextlib.suppress(RefusedValueError):
                pose = camera.position.tolist(), camera.look_at.tolist(), camera.fov
                self._become(self.state.with_camera(self.explorer.limits, *pose))

        client.camera.on_update(moved)
        self.worker.want(self.state)

    def _deafen(self) -> None:
        """A slider moved the cameras: the worker tells the pages, which will report where they were before."""
        self._cameras_moved = True
        self._deaf_until = time.monotonic() + DEAF_SECONDS

    def _move_camera(self, client: Any) -> None:
        position = state_camera(self.state).cam_to_world[0, 0, :3, 3].tolist()
        # A page may have reported a camera without a direction, to which viser can relate no other.
        with contextlib.suppress(ValueError), client.atomic():
            client.camera.fov = math.radians(self.state.fov)
            client.camera.position = tuple(position)
            client.camera.look_at = self.state.target

    def _show(self, state: State) -> None:
        if self._cameras_moved:
            self._cameras_moved = False
            for client in self.server.get_clients().values():
                self._move_camera(client)
        begun = time.monotonic()
        shown = self.explorer.scene(state)
        scene_ready = time.monotonic()
        if self.splats is not None and isinstance(shown.scenes, Gaussians):
            self._show_splats(state, shown.scenes.scene(0))
        drawing = time.monotonic()
        self.picture.image = to_uint8(self.explorer.picture(state))
        drawn = time.monotonic()
        self._show_background(state)
        self._shown_at.append(drawn)
        while drawn - self._shown_at[0] > COUNTED_SECONDS:
            self._shown_at.popleft()
        rate = len(self._shown_at) / COUNTED_SECONDS
        count = "" if shown.count is None else f"**{shown.count:,}** of {shown.total:,} Gaussians · "
        self.figures.content = (
            f"{count}scene {(scene_ready - begun) * 1e3:.0f} ms · picture {(drawn - drawing) * 1e3:.0f} ms · "
            f"{rate:.1f} pictures/s · pages {len(self.gate.open)}"
        )

    def _show_splats(self, state: State, scene: Gaussians) -> None:
        self.splats.visible = state.view == SPLATS
        key = state.latent, state.level, state.scale
        if key != self._splats_key:
            self.splats.set_gaussians(**splat_arrays(scene, self.explorer.heads.generator.dilation))
            self._splats_key = key

    def _show_background(self, state: State) -> None:
        """Behind the splats a colour; without them, each page's picture in the shape of its window."""
        if state.view == SPLATS:
            plain = np.broadcast_to(np.asarray(state.background, np.uint8), (2, 2, 3))
            self.server.scene.set_background_image(np.ascontiguousarray(plain), format="png")
            return
        pictures: dict[float, np.ndarray] = {}
        for client in self.server.get_clients().values():
            aspect = min(max(round(client.camera.aspect, 2), 1 / WIDEST_ASPECT), WIDEST_ASPECT)
            if aspect not in pictures:
                pictures[aspect] = to_uint8(self.explorer.wide_picture(state, aspect))
            client.scene.set_background_image(pictures[aspect], format="jpeg", jpeg_quality=90)

    def _save(self, save: Callable[[OutputFolder, Explorer, State], Path]) -> None:
        state = self.state

        def task() -> None:
            self.news.content = "saving ..."  # colours of a large head are fitted for some seconds
            try:
                self.news.content = f"saved {save(self.options.folder, self.explorer, state).name}"
            except SaveRefusedError as error:
                self.news.content = f"not saved: {error}"
            except OSError as error:  # its message would name folders of this machine
                self.news.content = f"not saved: {error.strerror}"

        if not self.worker.do(task):
            self.news.content = "not saved: another file is being written"

    def _save_turn(self, folder: OutputFolder, explorer: Explorer, state: State) -> Path:
        def between(frame: int) -> None:
            self.worker.catch_up()
            if frame % 8 == 0:
                self.news.content = f"video: frame {frame}"

        return save_turn(folder, explorer, state, between)


def _import_viser() -> Any:
    try:
        import viser
    except ImportError:
        raise ValueError('the explorer needs viser: pip install "cgsgan[viewer]"') from None
    return viser


def _check_address(host: str, port: int) -> None:
    """Where the host is wrong viser would try ports for ever, and take another where the port is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(f"cannot listen on {host} port {port} ({error}); choose another --host or --port") from None
