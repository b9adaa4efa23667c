"""Shards through fsspec: memory, a store that fails, what is kept on the disk."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

import cgsgan.data.shards as shards_module  # noqa: E402
from cgsgan.data import BatchStream, DataConfig, DatasetError, HeadDataset, open_dataset  # noqa: E402
from cgsgan.data.errors import UnreachableError  # noqa: E402
from cgsgan.data.packing import PackConfig, pack_dataset  # noqa: E402
from cgsgan.data.shard_files import open_system  # noqa: E402

Files = tuple[dict[str, bytes], dict[str, Any]]


class FlakyStore(MemoryFileSystem):
    """A store whose reads can be made to fail, and are counted."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012 (fsspec's way)
    pseudo_dirs = [""]  # noqa: RUF012
    failures: list[Exception] = []  # noqa: RUF012
    reads = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("flaky://").strip("/")

    def unstrip_protocol(self, name: str) -> str:
        return f"flaky://{name.lstrip('/')}"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **rest: Any) -> bytes:
        type(self).reads += 1
        if self.failures:
            raise self.failures.pop(0)
        return super().cat_file(path, start=start, end=end, **rest)


fsspec.register_implementation("flaky", FlakyStore, clobber=True)


@pytest.fixture
def local(files: Files, tmp_path: Path) -> Path:
    for name, content in files[0].items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content)
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(files[1]))
    pack_dataset(tmp_path / "set", tmp_path / "heads", PackConfig(shards=3))
    return tmp_path / "heads"


@pytest.fixture(params=["memory", "flaky"])
def remote(request: pytest.FixtureRequest, local: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same shards in a store, with the folder's URL."""
    monkeypatch.setattr(shards_module, "PAUSES", (0.0, 0.0))
    open_system.cache_clear()
    system = fsspec.filesystem(request.param)
    for file in local.iterdir():
        system.pipe_file(f"/bucket/{file.name}", file.read_bytes())
    FlakyStore.reads, FlakyStore.failures = 0, []
    yield f"{request.param}://bucket"
    system.rm("/bucket", recursive=True)


def opened(path: Path | str, **changes: Any) -> HeadDataset:
    return open_dataset(DataConfig(**{"path": str(path), "resolution": 8, "preload": False, **changes}))


@pytest.mark.parametrize("name", ["", "/heads-{000000..000002}.tar", "/heads-*.tar"])
def test_the_same_batches_as_from_the_disk(local: Path, remote: str, name: str) -> None:
    streams = [BatchStream(opened(path), 4, 7, workers=2) for path in (local, remote + name)]
    for _ in range(5):
        one, other = (stream.next() for stream in streams)
        assert torch.equal(one.premultiplied, other.premultiplied)
        assert torch.equal(one.camera_labels, other.camera_labels)
    for stream in streams:
        stream.close()


def test_headers_are_read_where_no_index_lies_beside(local: Path, remote: str) -> None:
    system, path = fsspec.core.url_to_fs(remote)
    for name in system.glob(f"{path}/*.npz"):
        system.rm_file(name)
    assert torch.equal(opened(remote).read(range(12)).premultiplied, opened(local).read(range(12)).premultiplied)


def test_bad_places_are_one_line(remote: str) -> None:
    for path, message in (
        (f"{remote}/heads-{{000000..000003}}.tar", "heads-000003.tar: no such shard"),
        (f"{remote}/none", "no such shard"),
        (f"{remote}/none-*.tar", "there is no shard"),
        ("nosuch://bucket/a.tar", "Protocol not known"),
    ):
        with pytest.raises(DatasetError, match=r"^[^\n]*$") as caught:
            opened(path)
        assert message in str(caught.value)


@pytest.mark.parametrize("remote", ["flaky"], indirect=True)
class TestFailures:
    def test_a_short_failure_is_waited_out(self, local: Path, remote: str) -> None:
        dataset = opened(remote)
        FlakyStore.failures = [TimeoutError("slow"), OSError(errno.ECONNRESET, "reset")]
        assert torch.equal(dataset.read([3]).premultiplied, opened(local).read([3]).premultiplied)

    @pytest.mark.parametrize("on_damaged", ["refuse", "skip"])
    def test_a_long_one_ends_the_run_and_is_no_damage(self, remote: str, on_damaged: str) -> None:
        dataset = opened(remote, on_damaged=on_damaged)
        FlakyStore.failures = [OSError("no\nroute")] * 3
        with pytest.raises(UnreachableError, match=r"heads-000001\.tar: cannot be read \(no route\)$"):
            dataset.read([3])
        assert dataset.damaged == 0
        assert len(dataset.read([3]).premultiplied) == 1

    def test_a_shard_that_was_replaced(self, remote: str) -> None:
        dataset = opened(remote, on_damaged="skip", x_flip=False)
        system = fsspec.filesystem("flaky")
        system.pipe_file("/bucket/heads-000001.tar", system.cat_file("/bucket/heads-000000.tar")[:4000])
        with pytest.warns(UserWarning, match="damaged picture"):
            batch = dataset.read(range(6))
        assert dataset.damaged == 2
        assert torch.equal(batch.camera_labels, dataset.labels[[0, 1, 4, 4, 4, 5]])


@pytest.mark.parametrize("remote", ["flaky"], indirect=True)
class TestKept:
    def test_all_of_it(self, local: Path, remote: str, cache_folder: Path) -> None:
        expected = opened(local).read(range(12))
        dataset = opened(remote, remote_cache_gb=1.0)
        dataset.read(range(12))
        FlakyStore.failures = [OSError("gone")] * 100
        again = opened(remote, remote_cache_gb=1.0)
        assert torch.equal(again.read(range(12)).premultiplied, expected.premultiplied)
        for kept in (cache_folder / "shards").glob("*/*"):
            kept.write_bytes(kept.read_bytes()[:20])  # as a crash might leave them
        FlakyStore.failures = []
        assert torch.equal(again.read(range(12)).premultiplied, expected.premultiplied)

    def test_never_more_than_was_allowed(self, local: Path, remote: str, cache_folder: Path) -> None:
        size = (local / "heads-000000.tar").stat().st_size
        dataset = opened(remote, remote_cache_gb=size / 1e9)
        for _ in range(2):
            before = FlakyStore.reads
            dataset.read(range(6))
            after = FlakyStore.reads
        assert after - before == 4  # the two of the first shard are on the disk
        kept = list((cache_folder / "shards").glob("*/*"))
        assert len(kept) == 2
        assert sum(path.stat().st_size for path in kept) <= size

    def test_nothing_by_default(self, remote: str, cache_folder: Path) -> None:
        opened(remote).read(range(12))
        assert not list((cache_folder / "shards").glob("*/*"))
        with pytest.raises(DatasetError, match="remote_cache_gb"):
            DataConfig(remote_cache_gb=-1.0)
