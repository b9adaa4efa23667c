"""The command line: parse, call, print. A user's mistake gives one message and exit code 2, never a traceback."""

from __future__ import annotations

import importlib
import keyword
import os
import sys

# OpenMP threads wait by spinning. Spin long, and on a machine that does anything else they starve each other; sleep at
# once, and waking them costs more than the small tensors here. Steps of the 64 px config on two busy cores: 700 ms with
# the default, 260 ms with OMP_WAIT_POLICY=PASSIVE, 150 ms with this. It is read when torch loads OpenMP, so it stands
# here. What the user has set stays.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

COMMANDS = {
    "train": "train a generator: cgsgan train [config.yaml] [--overrides]",
    "render": "pictures, turntables and .ply files of a trained generator",
    "mesh": "a coloured mesh (.glb, .ply, .obj) of a head that a trained generator makes",
    "export": "a generated head, or a splat file, in a format that viewers open",
    "import": "weights of the published CGS-GAN and EG3D networks, read without running their files",
    "invert": "a photograph to a head of a trained generator",
    "edit": "a head changed: towards another one, mixed with it, along a direction",
    "view": "explore a generator in a browser: seeds, mixing, directions, camera",
    "evaluate": "FID, KID, precision/recall, multi-view consistency, pose and depth of a trained generator",
    "compare": "two or more generators side by side: size, speed, quality, consistency; one HTML page",
    "data": "make, check or preview a data set",
    "report": "one self-contained HTML page about a run",
    "info": "what a splat file or a checkpoint holds, or why it is refused",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        _print_usage()
        return 0 if argv else 2
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        print(f"cgsgan: unknown command {command!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        module = f"{command}_" if keyword.iskeyword(command) else command
        return importlib.import_module(f"cgsgan.cli.{module}").run(rest)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"cgsgan {command}: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print(f"cgsgan {command}: out of memory; try a smaller --size, batch or resolution", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"cgsgan {command}: stopped", file=sys.stderr)
        return 130


def _print_usage() -> None:
    print("usage: cgsgan COMMAND [arguments]; COMMAND --help says more\n")
    for name, text in COMMANDS.items():
        print(f"  {name:8s} {text}")
