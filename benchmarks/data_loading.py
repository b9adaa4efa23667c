"""How many pictures one core reads and decodes in a second, from a folder, a zip and shards, by kind of picture.

    python benchmarks/data_loading.py [--count 100] [--size 512] [--rate 400] [--clock]

Pictures are procedural heads of half the size, enlarged, with the noise of a camera added: as hard to decode as
photographs. Files come from the system's memory of them, so disks and networks are not in the figures. RATE is what the
GPUs eat, pictures per second.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from cgsgan.data import BatchStream, DataConfig, HeadDataset, SyntheticConfig, open_dataset
from cgsgan.data.decoding import decode_image, premultiply_and_reduce
from cgsgan.data.packing import PackConfig, pack_dataset

RESULTS = Path(__file__).parent / "results"
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "PNG, RGBA": ("RGBA", "PNG", {}),
    "PNG, RGB": ("RGB", "PNG", {}),
    "JPEG 95, RGB": ("RGB", "JPEG", {"quality": 95}),
    "WebP lossless, RGBA": ("RGBA", "WEBP", {"lossless": True}),
    "WebP 95, RGBA": ("RGBA", "WEBP", {"quality": 95}),
}
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
NOISE = 2.0
"""Standard deviation, steps of 8 bits."""


def make_heads(count: int, size: int) -> tuple[list[Image.Image], list[list[float]]]:
    """RGBA pictures and their labels."""
    synthetic = SyntheticConfig(count=count, resolution=size // 2)
    dataset = open_dataset(DataConfig(resolution=size // 2, x_flip=False, preload=False, synthetic=synthetic))
    rng = np.random.default_rng(0)
    heads = []
    for index in range(count):
        pixels = dataset.read([index]).premultiplied[0].permute(1, 2, 0).numpy()
        pixels[..., :3] += 1 - pixels[..., 3:]
        enlarged = Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(enlarged).astype(np.float32)
        noisy[..., :3] += rng.normal(0, NOISE, (size, size, 3))
        heads.append(Image.fromarray(np.rint(noisy.clip(0, 255)).astype(np.uint8)))
    return heads, dataset.labels.tolist()


def write_sets(folder: Path, heads: list[Image.Image], labels: list[list[float]], kind: str) -> dict[str, Path]:
    """The same files as a folder, a zip and shards."""
    mode, coding, options = KINDS[kind]
    places = {"folder": folder / "set", "zip": folder / "set.zip", "shards": folder / "shards"}
    places["folder"].mkdir(parents=True)
    names = [f"img{i:06d}{SUFFIXES[coding]}" for i in range(len(heads))]
    for name, head in zip(names, heads):
        buffer = io.BytesIO()
        head.convert(mode).save(buffer, coding, **options)
        (places["folder"] / name).write_bytes(buffer.getvalue())
    document = {"labels": list(zip(names, labels))}
    (places["folder"] / "dataset.json").write_text(json.dumps(document))
    pack_dataset(places["folder"], places["zip"], PackConfig())
    pack_dataset(places["folder"], places["shards"], PackConfig(shards=4))
    return places


def seconds(action: Callable[[], object]) -> float:
    """How long one core works for it; others' use of the machine does not count."""
    begin = time.process_time()
    action()
    return time.process_time() - begin


def measure_rates(datasets: dict[str, HeadDataset], repeats: int) -> dict[str, float]:
    """Pictures per second of one core from each place; the best of interleaved repeats."""
    count = len(next(iter(datasets.values())))
    order = np.random.default_rng(1).permutation(count)
    best = dict.fromkeys(datasets, np.inf)
    for _ in range(repeats):
        for place, dataset in datasets.items():
            taken = seconds(lambda dataset=dataset: [dataset.read(order[i : i + 4]) for i in range(0, count, 4)])
            best[place] = min(best[place], taken)
    return {place: count / taken for place, taken in best.items()}


def measure_parts(place: Path, repeats: int) -> dict[str, float]:
    """Milliseconds of a picture's steps, from a folder; the best of the repeats."""
    files = sorted(path for path in place.iterdir() if path.suffix != ".json")
    contents = [path.read_bytes() for path in files]
    images = [decode_image(content, "", place) for content in contents]
    steps: dict[str, Callable[[], object]] = {
        "read": lambda: [path.read_bytes() for path in files],
        "decode": lambda: [decode_image(content, "", place) for content in contents],
        "premultiply": lambda: [premultiply_and_reduce(image, image.width) for image in images],
    }
    return {name: 1e3 * min(seconds(step) for _ in range(repeats)) / len(files) for name, step in steps.items()}


def measure_workers(dataset: HeadDataset, workers: int, batches: int = 40) -> float:
    """Pictures per second, by the clock, of a stream with so many threads."""
    stream = BatchStream(dataset, 8, seed=0, workers=workers)
    stream.next()
    begin = time.perf_counter()
    for _ in range(batches):
        stream.next()
    rate = 8 * batches / (time.perf_counter() - begin)
    stream.close()
    return rate


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """A row for each kind of picture."""
    heads, labels = make_heads(arguments.count, arguments.size)
    rows = {}
    for number, kind in enumerate(KINDS):
        places = write_sets(folder / str(number), heads, labels, kind)
        opened = {
            place: open_dataset(DataConfig(path=str(path), resolution=arguments.size, x_flip=False, preload=False))
            for place, path in places.items()
        }
        size = sum(path.stat().st_size for path in places["folder"].iterdir()) / arguments.count / 1024
        rates = measure_rates(opened, arguments.repeats)
        rows[kind] = {"KiB": size, **rates, **measure_parts(places["folder"], arguments.repeats)}
        for workers in (1, os.cpu_count() or 1) if arguments.clock else ():
            by_clock = max(measure_workers(opened["shards"], workers) for _ in range(arguments.repeats))
            rows[kind][f"by clock, {workers} threads"] = by_clock
        rows[kind]["cores needed"] = arguments.rate / rates["shards"]
    return rows


def main() -> int:
    """Print the table and write results/data_loading.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--clock", action="store_true", help="also by the clock, with 1 and all threads (quiet machines)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder))
    title = f"{arguments.count} pictures of {arguments.size} px: pictures/s of one core, ms of its steps"
    table = Table("pictures", *next(iter(rows.values())), title=title)
    for kind, row in rows.items():
        table.add_row(kind, *(f"{value:.3g}" for value in row.values()))
    Console(width=150).print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "data_loading.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
