"""The command line: parse, call, print. A user's mistake gives one message and exit code 2, never a traceback."""

from __future__ import annotations

import importlib
import os
import sys

# OpenMP threads that wait by spinning starve each other as soon as anything else runs on the machine (measured on two
# busy cores: 10 times slower). It is read when torch loads OpenMP, so it has to be here. A value set by the user stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS = {
    "train": "train a generator: cgsgan train [config.yaml] [--overrides]",
    "render": "pictures, turntables and .ply files of a trained generator",
    "data": "make, check or preview a data set",
    "info": "what a .ply or a checkpoint holds, or why it is refused",
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
        return importlib.import_module(f"cgsgan.cli.{command}").run(rest)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"cgsgan {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"cgsgan {command}: stopped", file=sys.stderr)
        return 130


def _print_usage() -> None:
    print("usage: cgsgan COMMAND [arguments]; COMMAND --help says more\n")
    for name, text in COMMANDS.items():
        print(f"  {name:8s} {text}")
