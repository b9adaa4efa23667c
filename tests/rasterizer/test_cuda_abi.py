"""The launcher of the CUDA core: its struct, its checks, what it asks of a driver, and its words when that fails."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rasterizer import cuda_abi
from rasterizer.backend import BackendError
from rasterizer.cuda_abi import POINTERS, CudaLibrary, CudaParams, Stage
from tests.rasterizer.driver.build import CONTEXT, HEADERS, IMAGE, FakeDriver, build_driver, copy_core, copy_driver

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the driver of these tests is built with g++ for ELF")

# What each stage cannot do without, by params.h.
SCENE = {"means", "quats", "scales", "opacities", "colors", "viewmats", "intrinsics"}
LISTS = {"records", "colors", "entries", "tile_ranges", "out_colors", "out_alphas", "out_depths", "last_ids"}
NEEDED = {
    Stage.PROJECT: SCENE | {"records", "footprints", "sort_depths", "counts", "totals"},
    Stage.EMIT: {"records", "footprints", "counts", "order", "ends", "first_slots", "keys", "payloads"},
    Stage.LIST: {"payloads", "sorted_keys", "sorted_slots", "entries", "tile_ranges"},
    Stage.BLEND: LISTS,
    Stage.BLEND_BACKWARD: LISTS | {"touched", "gradients"},
    Stage.PROJECT_BACKWARD: SCENE | {"counts", "records", "first_slots", "touched", "gradients"},
}


@pytest.fixture(scope="session")
def built_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(built_driver: Path, tmp_path: Path) -> FakeDriver:
    driver = copy_driver(built_driver, tmp_path)
    driver.enter(CONTEXT)
    return driver


@pytest.fixture
def core(tmp_path: Path) -> CudaLibrary:
    return copy_core(tmp_path)


@pytest.fixture
def opened(core: CudaLibrary, driver: FakeDriver) -> CudaLibrary:
    core.open(driver.path)
    return core


def make_params(**changes: float) -> CudaParams:
    """Two scenes of 300 Gaussians, three views each, 50 x 37 pixels, and an address for every array."""
    values: dict[str, float] = {name: 0x1000 * (i + 1) for i, name in enumerate(POINTERS)}
    values |= {"batch": 2, "views": 3, "gaussians": 300, "channels": 3, "instances": 1000, "key_bytes": 4}
    values |= {"width": 50, "height": 37, "tiles_x": 4, "tiles_y": 3, "depth": 1, "near_plane": 0.25}
    return CudaParams(**{**values, **changes})


def test_struct_mirrors_the_header(tmp_path: Path):
    names = [name for name, *_ in CudaParams._fields_]
    offsets = "\n".join(f"offsetof(RzCudaParams, {name})," for name in names)
    (tmp_path / "probe.cpp").write_text(
        f"""#include <stddef.h>
        #include <stdio.h>
        #include "params.h"
        int main() {{
            const size_t values[] = {{{offsets} sizeof(RzCudaParams)}};
            for (size_t value : values) printf("%zu ", value);
        }}"""
    )
    subprocess.run(["g++", f"-I{HEADERS}", tmp_path / "probe.cpp", "-o", tmp_path / "probe"], check=True)
    found = subprocess.run([tmp_path / "probe"], check=True, capture_output=True, text=True).stdout.split()
    expected = [getattr(CudaParams, name).offset for name in names] + [ctypes.sizeof(CudaParams)]
    assert [int(word) for word in found] == expected


def test_constants_mirror_the_header():
    header = (HEADERS / "params.h").read_text()
    body = header[header.index("typedef struct RzCudaParams {") : header.index("} RzCudaParams;")]
    assert re.findall(r"(\w+);", re.sub(r"//.*", "", body)) == [name for name, *_ in CudaParams._fields_]
    found = {name: int(value) for name, value in re.findall(r"#define RZ_CUDA_(\w+) (\d+)", header)}
    names = ("ABI_VERSION", "RECORD_FLOATS", "FOOTPRINT_FLOATS", "CAMERA_FLOATS", "MOMENTS", "MAX_GAUSSIANS")
    assert found == {name: getattr(cuda_abi, name) for name in (*names, "SHORT_KEY_BIAS")}
    stages = {name: int(value) for name, value in re.findall(r"RZ_STAGE_(\w+) = (\d+)", header)}
    assert stages == {**{stage.name: stage.value for stage in Stage}, "COUNT": len(Stage)}


def test_library_of_another_version_is_refused(core: CudaLibrary, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda_abi, "ABI_VERSION", cuda_abi.ABI_VERSION + 1)
    with pytest.raises(BackendError, match=r"left over from another build; rebuild it with `pip install \.`"):
        CudaLibrary(core.path)


def test_library_without_the_launcher_is_refused(built_driver: Path, tmp_path: Path):
    with pytest.raises(BackendError, match=r"cannot be used.*rz_cuda_abi.*pip install \."):
        CudaLibrary(built_driver)
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(BackendError, match=r"cannot be used.*pip install \."):
        CudaLibrary(tmp_path / "text.so")


@pytest.mark.parametrize(
    ("stage", "grid", "block"),
    [
        (Stage.PROJECT, (2, 2, 1), 256),  # ceil(300 / 256) blocks, a row per scene
        (Stage.EMIT, (8, 1, 1), 256),  # 2 * 3 * 300 = 1800 ranks
        (Stage.LIST, (4, 1, 1), 256),  # 1000 instances
        (Stage.BLEND, (72, 1, 1), 256),  # six images of 4 x 3 tiles
        (Stage.BLEND_BACKWARD, (72, 1, 1), 128),
        (Stage.PROJECT_BACKWARD, (3, 2, 1), 128),  # ceil(300 / 128)
    ],
)
def test_launch(opened: CudaLibrary, driver: FakeDriver, stage: Stage, grid: tuple[int, ...], block: int):
    params = make_params()
    opened.launch(opened.load(IMAGE), stage, params, 0xABC0)
    (launch,) = driver.launches()
    assert launch.kernel.decode() == stage.kernel
    assert tuple(launch.grid) == grid
    assert tuple(launch.block) == (block, 1, 1)
    assert launch.shared_bytes == 0
    assert launch.stream == 0xABC0
    assert bytes(launch.params) == bytes(params)


def test_default_stream(opened: CudaLibrary, driver: FakeDriver):
    opened.launch(opened.load(IMAGE), Stage.BLEND, make_params(), 0)
    assert driver.launches()[0].stream is None


@pytest.mark.parametrize(("gaussians", "blocks"), [(0, 0), (1, 1), (128, 1), (129, 2), (1 << 24, 1 << 17)])
def test_camera_blocks(opened: CudaLibrary, driver: FakeDriver, gaussians: int, blocks: int):
    params = make_params(gaussians=gaussians)
    assert opened.camera_blocks(params) == blocks
    opened.launch(opened.load(IMAGE), Stage.PROJECT_BACKWARD, params, 0)
    assert [launch.grid[0] for launch in driver.launches()] == ([blocks] if blocks else [])


@pytest.mark.parametrize("stage", Stage)
def test_every_needed_array_is_asked_for(opened: CudaLibrary, driver: FakeDriver, stage: Stage):
    module = opened.load(IMAGE)
    for name in NEEDED[stage]:
        with pytest.raises(BackendError, match=f": {name} is null$"):
            opened.launch(module, stage, make_params(**{name: 0}), 0)
    opened.launch(module, stage, make_params(**{name: 0 for name in POINTERS if name not in NEEDED[stage]}), 0)
    assert len(driver.launches()) == 1


@pytest.mark.parametrize(
    ("stage", "launched", "sizes"),
    [
        (Stage.PROJECT, 0, {"gaussians": 0}),
        (Stage.EMIT, 0, {"gaussians": 0, "instances": 0}),
        (Stage.LIST, 0, {"instances": 0}),
        (Stage.BLEND, 1, {"gaussians": 0, "instances": 0}),  # the background is to be written
        (Stage.BLEND_BACKWARD, 1, {"gaussians": 0, "instances": 0}),
        (Stage.BLEND_BACKWARD, 0, {"batch": 0, "instances": 0}),
        (Stage.PROJECT_BACKWARD, 0, {"gaussians": 0, "instances": 0}),
    ],
)
def test_arrays_without_elements_may_be_null(
    opened: CudaLibrary, driver: FakeDriver, stage: Stage, launched: int, sizes: dict[str, int]
):
    written = {"out_colors", "out_alphas", "out_depths", "last_ids", "tile_ranges", "totals", "viewmats", "intrinsics"}
    nulls = {name: 0 for name in POINTERS if name not in written}
    opened.launch(opened.load(IMAGE), stage, make_params(**nulls, **sizes), 0)
    assert len(driver.launches()) == launched


def test_optional_arrays(opened: CudaLibrary, driver: FakeDriver):
    module = opened.load(IMAGE)
    opened.launch(module, Stage.BLEND, make_params(depth=0, out_depths=0), 0)
    opened.launch(module, Stage.PROJECT_BACKWARD, make_params(atomics=1, first_slots=0), 0)
    assert len(driver.launches()) == 2


@pytest.mark.parametrize(
    ("stage", "changes", "words"),
    [
        (Stage.PROJECT, {"batch": -1}, "batch is -1: expected 0 to 65535"),
        (Stage.PROJECT, {"batch": 65536}, "batch is 65536: expected 0 to 65535"),
        (Stage.PROJECT, {"gaussians": (1 << 24) + 1}, "gaussians is 16777217: expected 0 to 16777216"),
        (Stage.PROJECT, {"views": 1 << 62}, "views is"),
        (Stage.PROJECT, {"batch": 65535, "views": 65535}, "images is 4294836225: expected 0 to 2147483647"),
        (Stage.BLEND, {"channels": 0}, "channels is 0: expected 1 to 32"),
        (Stage.BLEND, {"channels": 33}, "channels is 33: expected 1 to 32"),
        (Stage.LIST, {"instances": 1 << 31}, "instances is 2147483648"),
        (Stage.BLEND, {"width": 0}, "width is 0: expected 1 to 65536"),
        (Stage.BLEND, {"height": 65537}, "height is 65537"),
        (Stage.BLEND, {"tiles_x": 3}, "tiles_x is 3: expected 4 to 4"),
        (Stage.BLEND, {"tiles_y": 4}, "tiles_y is 4: expected 3 to 3"),
        (Stage.BLEND, {"views": 1 << 28}, "tiles of all images is 6442450944: expected 0 to 2147483647"),
        (Stage.EMIT, {"key_bytes": 3}, "key_bytes is 3: expected 2 or 4"),
        (Stage.EMIT, {"key_bytes": 2, "views": 2731}, "tiles of all images with 2-byte keys is 65544"),
        (Stage.LIST, {"key_bytes": 2, "views": 2731}, "tiles of all images with 2-byte keys is 65544"),
        (Stage.PROJECT, {"sh_coefficients": 16, "sh_degree": 4}, "sh_degree is 4: expected 0 to 3"),
        (Stage.PROJECT, {"sh_coefficients": 8, "sh_degree": 2}, "sh_coefficients is 8: expected 9"),
        (Stage.PROJECT, {"sh_coefficients": 1, "channels": 4}, "channels with spherical harmonics is 4"),
        (Stage.BLEND, {"records": 0x1008}, "records is not aligned to 16 bytes"),
        (Stage.LIST, {"sorted_keys": 0x1002}, "sorted_keys is not aligned to 4 bytes"),
    ],
)
def test_sizes_out_of_range(opened: CudaLibrary, driver: FakeDriver, stage: Stage, changes: dict[str, int], words: str):
    with pytest.raises(BackendError, match=rf"\(stage {stage.name}\).*{words}"):
        opened.launch(opened.load(IMAGE), stage, make_params(**changes), 0)
    assert driver.launches() == []


def test_largest_short_keys(opened: CudaLibrary, driver: FakeDriver):
    sizes = {"key_bytes": 2, "batch": 1, "views": 65535, "width": 16, "height": 16, "tiles_x": 1, "tiles_y": 1}
    opened.launch(opened.load(IMAGE), Stage.EMIT, make_params(**sizes), 0)
    with pytest.raises(BackendError, match="is 65536: expected 0 to 65535"):
        opened.launch(opened.load(IMAGE), Stage.EMIT, make_params(**{**sizes, "views": 65536}), 0)
    assert len(driver.launches()) == 1


@pytest.mark.parametrize("stage", [-1, 6])
def test_unknown_stage(opened: CudaLibrary, stage: int):
    with pytest.raises(BackendError, match=f"stage is {stage}: expected 0 to 5"):
        opened.launch(opened.load(IMAGE), stage, make_params(), 0)


def test_missing_driver(core: CudaLibrary, tmp_path: Path, driver: FakeDriver):
    with pytest.raises(BackendError, match=r"no CUDA driver was found; install the NVIDIA driver.*or use CPU tensors"):
        core.open(tmp_path / "nothing.so")
    core.open(driver.path)  # the failure is not remembered


def test_old_driver(core: CudaLibrary, tmp_path: Path):
    path = build_driver(tmp_path, "-DRZ_WITHOUT_LAUNCH")
    with pytest.raises(BackendError, match=r"too old; update the NVIDIA driver.*has no cuLaunchKernel"):
        core.open(path)


@pytest.mark.parametrize("call", ["cuInit", "cuCtxGetCurrent", "cuModuleLoadData", "cuModuleGetFunction"])
def test_failing_driver_while_loading(core: CudaLibrary, driver: FakeDriver, call: str):
    driver.fail(call, 700)
    with pytest.raises(BackendError) as caught:  # noqa: PT012 - the first fails for cuInit, the second for the rest
        core.open(driver.path)
        core.load(IMAGE)
    words = str(caught.value)
    assert "the CUDA driver reported an error" in words
    assert call in words
    assert "CUDA_ERROR_OF_THE_TEST (700), as the test wished; the driver supports CUDA 12.8" in words
    assert driver.library.fake_unloads() == (call == "cuModuleGetFunction")
    driver.fail("", 0)
    core.open(driver.path)
    assert core.load(IMAGE) != 0


def test_failing_launch(opened: CudaLibrary, driver: FakeDriver):
    module = opened.load(IMAGE)
    driver.fail("cuLaunchKernel", 999)
    with pytest.raises(BackendError, match=r"\(stage LIST\).*cuLaunchKernel of rz_list failed.*999.*no description"):
        opened.launch(module, Stage.LIST, make_params(), 0)


def test_image_that_the_driver_refuses(opened: CudaLibrary):
    with pytest.raises(BackendError, match=r"cuModuleLoadData failed: CUDA_ERROR_OF_THE_TEST \(200\)"):
        opened.load(b"no image")
    with pytest.raises(BackendError, match="image is empty"):
        opened.load(b"")


def test_long_messages_are_cut(core: CudaLibrary):
    message = ctypes.create_string_buffer(b"\xff" * 32)
    assert core._library.rz_cuda_open(b"/a/path/that/is/too/long", message, 16) == 2
    assert message.raw[:17] == b"cannot open /a/\0\xff"


def test_calls_out_of_order(core: CudaLibrary, driver: FakeDriver):
    with pytest.raises(BackendError, match="not open: call rz_cuda_open"):
        core.load(IMAGE)
    core.open(driver.path)
    with pytest.raises(BackendError, match="module is null: call rz_cuda_load"):
        core.launch(0, Stage.BLEND, make_params(), 0)
    with pytest.raises(BackendError, match=f"already open, from {driver.path}"):
        core.open("another.so")
    core.open(driver.path)


def test_load_needs_a_context(opened: CudaLibrary, driver: FakeDriver):
    driver.enter(0)
    with pytest.raises(BackendError, match="no CUDA context: create a tensor on the device first"):
        opened.load(IMAGE)


def test_launch_from_a_thread_without_a_context(opened: CudaLibrary, driver: FakeDriver):
    module = opened.load(IMAGE)
    thread = threading.Thread(target=lambda: opened.launch(module, Stage.BLEND_BACKWARD, make_params(), 0))
    thread.start()
    thread.join()
    assert [launch.context for launch in driver.launches()] == [CONTEXT]


def test_launch_on_another_device(opened: CudaLibrary, driver: FakeDriver):
    module = opened.load(IMAGE)
    driver.enter(CONTEXT + 1)
    with pytest.raises(BackendError, match="loaded for another device than the current one"):
        opened.launch(module, Stage.BLEND, make_params(), 0)
    assert opened.load(IMAGE) != module


def test_threads_open_the_driver_once(core: CudaLibrary, driver: FakeDriver):
    errors: list[BaseException] = []

    def use() -> None:
        try:
            core.open(driver.path)
            driver.enter(CONTEXT)
            module = core.load(IMAGE)
            for stage in Stage:
                core.launch(module, stage, make_params(), 0)
        except BackendError as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert driver.library.fake_starts() == 1
    assert len(driver.launches()) == 8 * len(Stage)


def test_no_driver_here_is_said_in_words():
    code = (
        "from rasterizer.backend import BackendError\nfrom rasterizer.cuda_abi import load_cuda_library\n"
        "try:\n    load_cuda_library()\nexcept BackendError as error:\n    print(error)\nelse:\n    print('opened')"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert re.search("^opened$|install the NVIDIA driver|the CUDA driver reported", result.stdout)
