"""Train a generator: ``python train.py [config.yaml] [--overrides]``; the same as ``cgsgan train``."""

import sys

from cgsgan.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
