"""``cgsgan view [RUN_OR_CHECKPOINT]``: explore a generator in a browser."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class ViewArguments:
    """Explore what a generator makes, with the mouse, in a browser.

    Attributes:
        checkpoint: a run folder, a checkpoint folder, a generator.safetensors, or what `cgsgan invert` wrote; default
            the generator that comes with the package.
        inversions: folders that `cgsgan invert` wrote with this generator, to choose heads from.
        port: where the page is served; 0 takes any that is free.
        host: address to listen on. Everybody who reaches another one than this machine's own can use the explorer.
        out: folder that pictures, .ply files and videos are saved to.
        most_mb: nothing more is saved once the folder holds this many megabytes.
        most_pixels: edge length of the largest picture that a page can ask for.
        device: where the generator runs, like cpu or cuda.
        best: of a run folder, the checkpoint with the best score instead of the newest.
    """

    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    inversions: tuple[Path, ...] = ()
    port: int = 8080
    host: str = "127.0.0.1"
    out: Path = Path("explored")
    most_mb: int = 1024
    most_pixels: int = 1024
    device: str = "cpu"
    best: bool = False


def run(argv: list[str]) -> int:
    """Parse, serve until Ctrl-C."""
    arguments = tyro.cli(ViewArguments, args=argv, prog="cgsgan view")
    _check(arguments)
    from cgsgan.generators import load_generator
    from cgsgan.viewer.heads import Heads
    from cgsgan.viewer.saving import OutputFolder
    from cgsgan.viewer.scene import Explorer
    from cgsgan.viewer.server import Viewer, ViewerOptions

    generator = load_generator(arguments.checkpoint, best=arguments.best)
    try:
        generator.to(arguments.device)
    except (RuntimeError, AssertionError) as error:  # torch says it in either
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {arguments.device}: expected one like cpu or cuda that torch has ({reason})"
        ) from None
    explorer = Explorer(Heads(generator, arguments.inversions), most_pixels=arguments.most_pixels)
    folder = OutputFolder(arguments.out, most_bytes=arguments.most_mb << 20)
    viewer = Viewer(explorer, ViewerOptions(host=arguments.host, port=arguments.port, folder=folder))
    # No threading.Event: its lock may be held by the very moment that a signal interrupts, and set() waits for it.
    asked: list[int] = []
    # SIGTERM is what a container or a job scheduler sends; a SIGINT that the parent had ignored stays ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: asked.append(number))
    try:
        for line in _instructions(arguments, viewer.port):
            print(line, flush=True)
        while not asked:
            time.sleep(0.2)
        print("\nstopped", flush=True)
    finally:
        viewer.stop()
    return 0


def _check(arguments: ViewArguments) -> None:
    if not 0 <= arguments.port <= 65535:
        raise ValueError(f"--port: expected 0 to 65535, got {arguments.port}")
    if not 64 <= arguments.most_pixels <= 8192:
        raise ValueError(f"--most-pixels: expected 64 to 8192, got {arguments.most_pixels}")
    if not 1 <= arguments.most_mb <= 1 << 20:
        raise ValueError(f"--most-mb: expected 1 to {1 << 20}, got {arguments.most_mb}")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out}: is a file; expected a folder to save to")


def _instructions(arguments: ViewArguments, port: int) -> list[str]:
    from cgsgan.viewer.gate import LOOPBACK

    saved = f"saves to {arguments.out}; Ctrl-C ends it"
    if arguments.host in LOOPBACK:
        return [
            f"explorer: http://localhost:{port}",
            f"from another machine: ssh -L {port}:localhost:{port} THIS_MACHINE, then the same address there",
            saved,
        ]
    return [
        f"explorer: http://{arguments.host}:{port}",
        "warning: whoever reaches this address can use the explorer, and there is no password",
        saved,
    ]
