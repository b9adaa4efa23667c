"""Show what a generator makes: ``python render.py [RUN_OR_CHECKPOINT] [options]``; the same as ``cgsgan render``."""

import sys

from cgsgan.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["render", *sys.argv[1:]]))
