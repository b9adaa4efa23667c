"""WebDataset shards: the format itself, damage, and that everything is as with a zip."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgsgan.cli import main
from cgsgan.data import BatchStream, DataConfig, DatasetError, open_dataset
from cgsgan.data.check import check_dataset
from cgsgan.data.packing import PackConfig, pack_dataset
from cgsgan.data.shard_files import expand_braces
from cgsgan.data.shard_index import split_name
from cgsgan.data.shards import ShardSource

Files = tuple[dict[str, bytes], dict[str, Any]]
WriteSet = Callable[..., Path]
WriteTar = Callable[..., Path]
Encode = Callable[..., bytes]


def config(path: Path | str, **changes: Any) -> DataConfig:
    return DataConfig(**{"path": str(path), "resolution": 8, "preload": False, **changes})


def error_of(path: Path | str, **changes: Any) -> str:
    def read_it() -> None:
        dataset = open_dataset(config(path, **changes))
        dataset.read(range(len(dataset)))

    with pytest.raises(DatasetError) as caught:
        read_it()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def packed(write_set: WriteSet, files: Files, tmp_path: Path) -> tuple[Path, Path]:
    """The same pictures as a folder or zip, and as three shards."""
    path = write_set(*files)
    assert pack_dataset(path, tmp_path / "heads", PackConfig(shards=3)) == 6
    return path, tmp_path / "heads"


def sample(files: Files, number: int = 0) -> dict[str, bytes]:
    name, label = files[1]["labels"][number]
    return {"a.png": files[0][name], "a.json": json.dumps(label).encode()}


class TestSameAsZip:
    @pytest.mark.parametrize("preload", [True, False])
    def test_the_same_bits_in_the_same_order(self, packed: tuple[Path, Path], tmp_path: Path, preload: bool) -> None:
        listed = tmp_path / "list.json"
        listed.write_text(json.dumps([3, 3, "00000/img0001.png", 0, 5]))
        for settings in ({}, {"index_list": str(listed)}, {"max_size": 4, "x_flip": False}, {"resolution": 4}):
            one, other = (open_dataset(config(path, preload=preload, **settings)) for path in packed)
            assert one.names == other.names
            assert torch.equal(one.labels, other.labels)
            streams = [BatchStream(d, 4, 7, rank=1, world_size=2, workers=2) for d in (one, other)]
            for _ in range(5):
                a, b = (stream.next() for stream in streams)
                assert torch.equal(a.premultiplied, b.premultiplied)
                assert torch.equal(a.camera_labels, b.camera_labels)
            assert streams[0].state_dict() == streams[1].state_dict()
            assert one.content_key([0, 1]) == other.content_key([0, 1])
            for stream in streams:
                stream.close()

    def test_every_way_to_name_them(self, packed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        expected = open_dataset(config(packed[0])).names
        shards = packed[1]
        for path in (shards, f"{shards}/heads-{{000000..000002}}.tar", f"{shards}/heads-*.tar", f"file://{shards}"):
            assert open_dataset(config(path)).names == expected
        monkeypatch.chdir(shards)
        assert open_dataset(config("heads-{000000,000001,000002}.tar")).names == expected
        assert open_dataset(config("heads-000001.tar")).names == expected[2:4]
        assert error_of("heads-{000000..000003}.tar") == "heads-000003.tar: no such shard"

    def test_a_source_survives_pickling_to_a_worker(self, packed: tuple[Path, Path]) -> None:
        source = pickle.loads(pickle.dumps(ShardSource(str(packed[1]))))
        assert source.read("00000/img0004.png") == ShardSource(str(packed[1])).read("00000/img0004.png")

    def test_commands_read_them(self, packed: tuple[Path, Path], tmp_path: Path, capsys) -> None:
        path = str(packed[1])
        assert main(["data", "check", path]) == 0
        assert "6 labels, 6 readable pictures (6 RGBA), size 8 px" in capsys.readouterr().out
        assert main(["data", "preview", path, "--out", str(tmp_path / "p.png"), "--resolution", "8"]) == 0
        assert main(["data", "stats", path, "--out", str(tmp_path / "s.png"), "--resolution", "8"]) == 0
        assert main(["data", "rebalance", path, "--out", str(tmp_path / "list.json"), "--bins", "2"]) == 0
        assert len(json.loads((tmp_path / "list.json").read_text())) == 6


class TestFormat:
    def test_a_plain_reader_finds_each_sample_together(self, packed: tuple[Path, Path], files: Files) -> None:
        """What WebDataset's reader relies on: the files of a sample one after the other, keys up to the first dot."""
        found = []
        for shard in sorted(packed[1].glob("*.tar")):
            with tarfile.open(shard) as archive:
                members = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
            for (label_name, label), (name, content) in zip(members[::2], members[1::2], strict=True):
                assert label_name == name.replace(".png", ".json")
                found.append([name, json.loads(label)["label"]])
                assert content == files[0][name]
        assert found == files[1]["labels"]

    def test_webdataset_itself_reads_them(self, packed: tuple[Path, Path], files: Files) -> None:
        webdataset = pytest.importorskip("webdataset")
        urls = sorted(str(path) for path in packed[1].glob("*.tar"))
        found = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pilrgb"))
        assert [item["__key__"] + ".png" for item in found] == [name for name, _ in files[1]["labels"]]
        assert [item["json"]["label"] for item in found] == [label for _, label in files[1]["labels"]]
        assert all(item["png"].size == (8, 8) for item in found)

    def test_what_webdataset_writes_is_read(self, files: Files, tmp_path: Path) -> None:
        webdataset = pytest.importorskip("webdataset")
        with webdataset.ShardWriter(str(tmp_path / "w-%06d.tar"), maxcount=4, verbose=0) as writer:
            for name, label in files[1]["labels"]:
                writer.write({"__key__": name[:-4], "png": files[0][name], "json": {"label": label}, "cls": 3})
        dataset = open_dataset(config(f"{tmp_path}/w-{{000000..000001}}.tar", x_flip=False))
        assert dataset.names == [name for name, _ in files[1]["labels"]]
        assert torch.equal(dataset.labels, torch.tensor([label for _, label in files[1]["labels"]]))

    def test_foreign_layouts(self, files: Files, tmp_path: Path, tar_writer: WriteTar) -> None:
        """Labels as a plain list, before or after, with other files between, ./ before names, long and odd names."""
        label = json.dumps(files[1]["labels"][0][1]).encode()
        content = files[0]["00000/img0000.png"]
        long = f"{'n' * 120}é"
        members = {"./b/x.cls": b"3", "./b/x.png": content, f"{long}.json": label, "__x__.json": b"", "README": b"x"}
        members |= {"./b/x.txt": b"smile", "b/x.json": label, f"{long}.PNG": content}
        dataset = open_dataset(config(tar_writer(tmp_path / "a.tar", members), x_flip=False))
        assert dataset.names == ["b/x.png", f"{long}.PNG"]
        pictures = dataset.read([0, 1]).premultiplied
        assert torch.equal(pictures[0], pictures[1])

    def test_masks_beside_pictures(self, files: Files, tmp_path: Path, encode_image: Encode, tar_writer) -> None:
        rng = np.random.default_rng(0)
        for i in range(6):
            path = tmp_path / "set" / "mask" / f"img{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_image(rng.integers(0, 256, (4, 4), dtype=np.uint8)))
        for name, content in files[0].items():
            (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "set" / name).write_bytes(content)
        (tmp_path / "set" / "dataset.json").write_text(json.dumps(files[1]))
        pack = PackConfig(shards=2, mask_folder="mask")
        pack_dataset(tmp_path / "set", tmp_path / "heads", pack)
        expected = open_dataset(config(tmp_path / "set", mask_folder="mask")).read(range(12)).premultiplied
        assert torch.equal(open_dataset(config(tmp_path / "heads")).read(range(12)).premultiplied, expected)
        assert not check_dataset(tmp_path / "heads").problems
        for out, settings in (("z.zip", {"mask_folder": "mask"}), ("w", {})):
            again = PackConfig(webp=out == "w", shards=3 if out == "w" else None)  # from shards, with their masks
            pack_dataset(tmp_path / "heads", tmp_path / out, again)
            got = open_dataset(config(tmp_path / out, **settings)).read(range(12)).premultiplied
            # Multiplied into the alpha, it is rounded to 8 bits once, as it is in the reader.
            assert torch.equal(got, expected)
        one = {"b.png": files[0]["00000/img0000.png"], "b.json": json.dumps(files[1]["labels"][0][1]).encode()}
        path = tar_writer(tmp_path / "a.tar", {**sample(files), "a.mask.png": b"x", **one})
        assert "there is no 'b.mask.png', but others have masks" in error_of(path)
        assert [str(p) for p in check_dataset(path).problems] == [
            "1 x mask: not a PNG, JPEG or WebP file: a.mask.png",
            "1 x mask missing: b.png",
        ]

    @pytest.mark.parametrize(
        ("name", "split"),
        [
            ("a/b.c.png", ("a/b", ".c.png")),
            ("a.b/c.PNG", ("a.b/c", ".png")),
            ("x.mask.png", ("x", ".mask.png")),
            (".hidden.png", None),
            ("nodot", None),
            ("__meta__.json", None),
        ],
    )
    def test_keys_end_at_the_first_dot(self, name: str, split: tuple[str, str] | None) -> None:
        assert split_name(name) == split

    def test_braces(self) -> None:
        assert expand_braces("a.tar") == ["a.tar"]
        assert expand_braces("{a,b}-{08..11}.tar")[:5] == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar", "b-08.tar"]
        for bad in ("{3..1}.tar", "{0..9999999}.tar", "{0..9999}{0..9999}.tar"):
            with pytest.raises(DatasetError, match=r"expected (a range|at most)"):
                expand_braces(bad)


class TestPacking:
    def test_the_same_pictures_give_the_same_bytes(self, packed: tuple[Path, Path], tmp_path: Path) -> None:
        pack_dataset(packed[0], tmp_path / "again" / "heads", PackConfig(shards=3))
        one, other = ({p.name: p.read_bytes() for p in d.iterdir()} for d in (packed[1], tmp_path / "again" / "heads"))
        assert sorted(one) == sorted(f"heads-{i:06d}{suffix}" for i in range(3) for suffix in (".index.npz", ".tar"))
        assert {n: c for n, c in one.items() if n.endswith(".tar")} == {
            n: c for n, c in other.items() if n.endswith(".tar")
        }

    def test_sizes(self, write_set: WriteSet, files: Files, tmp_path: Path) -> None:
        path = write_set(*files)
        pack_dataset(path, tmp_path / "s", PackConfig(shard_mb=10 / 1024))
        sizes = [p.stat().st_size for p in sorted((tmp_path / "s").glob("*.tar"))]
        assert sizes == [10240] * 2  # five samples of 3 blocks, two blocks of zeros, to a whole record; then the rest
        pack_dataset(path, tmp_path / "t", PackConfig(shard_mb=0.001))
        assert len(list((tmp_path / "t").glob("*.tar"))) == 6  # one picture each is the least
        pack_dataset(path, tmp_path / "u", PackConfig(shards=4))
        counts = [len(ShardSource(str(p)).labels) for p in sorted((tmp_path / "u").glob("*.tar"))]
        assert sorted(counts) == [1, 1, 2, 2]

    def test_refusals_leave_what_was_there(self, packed: tuple[Path, Path], tmp_path: Path) -> None:
        path, shards = packed
        before = {p.name: p.read_bytes() for p in shards.iterdir()}
        for config_, out, message in (
            (PackConfig(shards=2), shards, "exists"),
            (PackConfig(shards=7), tmp_path / "new", "6 pictures do not fill 7 shards"),
            (PackConfig(shards=2), tmp_path / "new.zip", "without .zip"),
            (PackConfig(shards=2, resolution=16), tmp_path / "new", "smaller than --resolution 16"),
        ):
            with pytest.raises(DatasetError, match=message):
                pack_dataset(path, out, config_)
        with pytest.raises(DatasetError, match="smaller than"):
            pack_dataset(path, shards, PackConfig(shards=2, resolution=16), overwrite=True)
        assert {p.name: p.read_bytes() for p in shards.iterdir()} == before
        assert not list(tmp_path.glob(".*"))
        (shards / "notes.txt").write_text("precious")
        with pytest.raises(DatasetError, match=r"it holds 'notes\.txt'"):
            pack_dataset(path, shards, PackConfig(shards=2), overwrite=True)
        (shards / "notes.txt").unlink()
        pack_dataset(path, shards, PackConfig(shards=2), overwrite=True)
        assert len(list(shards.iterdir())) == 4
        for bad in ({"shards": 0}, {"shard_mb": 0.0}, {"shards": 1, "shard_mb": 1.0}):
            with pytest.raises(DatasetError, match="--shard"):
                PackConfig(**bad)

    def test_names_that_shards_cannot_hold(self, write_set: WriteSet, files: Files, tmp_path: Path) -> None:
        label = files[1]["labels"][0][1]
        path = write_set({"a.b.png": files[0]["00000/img0000.png"]}, {"labels": [["a.b.png", label]]})
        with pytest.raises(DatasetError, match=r"'a\.b\.png' cannot be put into shards"):
            pack_dataset(path, tmp_path / "out", PackConfig(shards=1))
        assert not (tmp_path / "out").exists()


class TestBadShards:
    """Each gives one line that names the shard or the sample."""

    @pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png", "C:/a.png"])
    def test_names_that_leave_the_folder(self, tmp_path: Path, files: Files, tar_writer: WriteTar, name: str) -> None:
        path = tar_writer(tmp_path / "a.tar", {**sample(files), name: b"x"})
        assert error_of(path) == (
            f"{path}: entry {name!r} points outside the data set; refused (expected a relative name with forward "
            "slashes, without '..')"
        )
        assert [problem.count for problem in check_dataset(path).problems] == [1]

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
    def test_links_and_devices(self, tmp_path: Path, files: Files, tar_writer: WriteTar, kind: bytes) -> None:
        path = tar_writer(tmp_path / "a.tar", sample(files))
        with tarfile.open(path, "a") as archive:
            member = tarfile.TarInfo("b.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        what = "a link" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "no plain file"
        assert error_of(path) == f"{path}: 'b.png' is {what}; refused (expected plain files in a .tar)"

    def test_cut_anywhere(self, tmp_path: Path, files: Files, tar_writer: WriteTar) -> None:
        path = tar_writer(tmp_path / "a.tar", {**sample(files), "b.png": b"x" * 700, "b.json": b"[]"})
        good = path.read_bytes()
        end = len(good.rstrip(b"\0")) // 512 * 512 + 512
        for size in [0, 1, 511, 512, 513, *range(700, end, 256), end]:
            path.write_bytes(good[:size])
            assert f"{path}: damaged or cut short after" in error_of(path, cache=False)
        for other in (b"x" * 3000, b"PK\3\4" + b"\0" * 999, tarfile_gz(good)):
            path.write_bytes(other)
            assert "expected a whole, uncompressed .tar" in error_of(path)

    def test_damage_anywhere_is_one_clear_error(self, tmp_path: Path, files: Files, tar_writer: WriteTar) -> None:
        path = tar_writer(tmp_path / "a.tar", {f"{'n' * 120}.cls": b"1", **sample(files)})
        good = path.read_bytes().rstrip(b"\0") + bytes(1024)
        random = np.random.default_rng(0)
        refused = 0
        for _ in range(300):
            content = bytearray(good)
            for position in random.integers(0, len(good), 3):
                content[position] = random.integers(256)
            path.write_bytes(content[: random.integers(len(good) // 2, len(good) + 1)])
            try:
                source = ShardSource(str(path), use_cache=False)
                for name in source.names:
                    source.read(name)
            except DatasetError as error:
                refused += "\n" not in str(error)
        assert refused > 200
        path.write_bytes(good.replace(b"00000000" + b"001\0", b"\xff" * 11 + b"\x00"))  # a size of -256
        assert "damaged or cut short" in error_of(path, cache=False)

    def test_samples(self, tmp_path: Path, files: Files, tar_writer: WriteTar) -> None:
        good = files[1]["labels"][0][1]
        content = files[0]["00000/img0000.png"]
        cases = {
            "there is no a.json with its camera": {"a.png": content},
            "label: expected 25 numbers, got 24 numbers": {"a.png": content, "a.json": json.dumps(good[:24]).encode()},
            "label: expected 25 numbers, got NoneType": {"a.png": content, "a.json": b"{}"},
            "its .json is not valid JSON": {"a.png": content, "a.json": b'{"label": ['},
            "label: it holds NaN or infinity": {
                "a.png": content,
                "a.json": json.dumps({"label": [float("nan"), *good[1:]]}).encode(),
            },
            "label: expected numbers only": {"a.png": content, "a.json": json.dumps([10**400, *good[1:]]).encode()},
            "more than one picture, camera or mask of one key": {**sample(files), "a.jpg": content},
        }
        for fault, members in cases.items():
            path = tar_writer(tmp_path / "a.tar", members)
            assert error_of(path, cache=False) == f"{path}: 'a.png': {fault}"
            (problem,) = check_dataset(path).problems
            assert (problem.kind, problem.examples) == (fault, ("a.png",))
        path = tar_writer(tmp_path / "a.tar", {"a.json": json.dumps(good).encode()})
        assert error_of(path, cache=False) == f"{path}: 'a': a camera without a picture"
        everything = {f"{i}{n[1:]}": c for i, case in enumerate(cases.values()) for n, c in case.items()}
        report = check_dataset(tar_writer(tmp_path / "b.tar", {**everything, **sample(files)}))
        assert len(report.problems) == len(cases)  # all of them at once, and the good sample is seen
        assert report.summary.pictures == 1

    def test_empty_and_repeated(self, tmp_path: Path, files: Files, tar_writer: WriteTar) -> None:
        path = tar_writer(tmp_path / "a.tar", {"README": b"x"})
        assert error_of(path) == (
            f"{path}: there is no sample in its shards; expected KEY.png (or .webp, .jpg) and KEY.json"
        )
        for number in range(2):
            tar_writer(tmp_path / "s" / f"{number}.tar", sample(files, number))
        assert error_of(tmp_path / "s") == (
            f"{tmp_path / 's'}: 'a.png' is in it twice; names must differ, also between shards"
        )

    @pytest.mark.parametrize("preload", [True, False])
    def test_a_shard_replaced_while_it_is_read(self, packed: tuple[Path, Path], preload: bool) -> None:
        dataset = open_dataset(config(packed[1]))
        shard = packed[1] / "heads-000001.tar"
        content = bytearray(shard.read_bytes())
        content[: len(content) // 2] = bytes(reversed(content[: len(content) // 2]))
        shard.write_bytes(content)
        dataset.read([0, 1, 4, 5])
        with pytest.raises(DatasetError, match="damaged or was replaced"):
            dataset.read([2])


def tarfile_gz(content: bytes) -> bytes:
    import gzip

    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as file:
        file.write(content)
    return buffer.getvalue()


class TestIndex:
    def test_kept_and_made_anew_when_the_shard_changes(self, packed: tuple[Path, Path], cache_folder: Path) -> None:
        for beside in packed[1].glob("*.npz"):
            beside.unlink()
        expected = open_dataset(config(packed[1])).read(range(12))
        kept = sorted((cache_folder / "shards").glob("*.npz"))
        assert len(kept) == 3
        stamps = [path.stat().st_mtime_ns for path in kept]
        assert torch.equal(open_dataset(config(packed[1])).read(range(12)).premultiplied, expected.premultiplied)
        assert [path.stat().st_mtime_ns for path in kept] == stamps
        kept[0].write_bytes(kept[0].read_bytes()[:100])
        assert torch.equal(open_dataset(config(packed[1])).read(range(12)).premultiplied, expected.premultiplied)
        first, last = packed[1] / "heads-000000.tar", packed[1] / "heads-000002.tar"
        one, other = first.read_bytes(), last.read_bytes()
        first.write_bytes(other)
        last.write_bytes(one)
        swapped = open_dataset(config(packed[1], x_flip=False))
        assert torch.equal(swapped.read([4, 5, 2, 3, 0, 1]).premultiplied, expected.premultiplied[:6])

    def test_the_one_beside_is_used_and_a_stale_one_is_not(self, packed: tuple[Path, Path], monkeypatch) -> None:
        import cgsgan.data.shards as module

        expected = open_dataset(config(packed[1], cache=False)).names
        with monkeypatch.context() as patch:
            patch.setattr(module, "index_shard", lambda *_: pytest.fail("the shard was read"))
            assert open_dataset(config(packed[1], cache=False)).names == expected
        pack_dataset(packed[1], packed[1].with_name("longer"), PackConfig(shards=1))
        (packed[1] / "heads-000000.tar").write_bytes((packed[1].with_name("longer") / "longer-000000.tar").read_bytes())
        assert open_dataset(config(packed[1] / "heads-000000.tar", cache=False)).names == expected
