"""Whatever a page sends, the state stays one that can be drawn."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cgsgan.cameras import yaw_pitch
from cgsgan.viewer.scene import state_camera
from cgsgan.viewer.state import FARTHEST_TARGET, SPLATS, Limits, RefusedValueError, State, kinds

LIMITS = Limits(
    heads=("found 0", "seed"),
    levels=3,
    layers=("level 1", "level 2"),
    directions=2,
    looks=("colour", "depth"),
    sizes=(64, 256),
    size=64,
    splats=True,
)
NAMES = sorted(kinds(LIMITS))
NUMBERS = st.floats() | st.integers() | st.sampled_from([1e300, -1e300, 2**63, -1, math.nan, math.inf, -math.inf, 0])
ANYTHING = st.recursive(
    NUMBERS | st.text(max_size=5) | st.booleans() | st.none() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


def assert_drawable(state: State) -> None:
    for name, kind in kinds(LIMITS).items():
        assert kind.clean(state.value(name)) == state.value(name), name
    assert all(abs(part) <= FARTHEST_TARGET for part in state.target)
    camera = state_camera(state)
    assert bool(camera.viewmats.isfinite().all())
    assert bool(camera.Ks_normalized.isfinite().all())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*NAMES, "mixed.9", "steps", "target", "__class__", ""]), ANYTHING)
def test_any_value_leaves_a_state_that_can_be_drawn(name: str, value: Any):
    state = State.start(LIMITS)
    try:
        changed = state.with_value(LIMITS, name, value)
    except RefusedValueError:
        return
    assert name in NAMES
    assert_drawable(changed)
    others = [field.name for field in fields(State) if field.name != name.partition(".")[0]]
    assert all(getattr(changed, other) == getattr(state, other) for other in others)


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, max_size=4) | ANYTHING, st.lists(NUMBERS, max_size=4) | ANYTHING, NUMBERS | ANYTHING)
def test_any_camera_leaves_a_state_that_can_be_drawn(position: Any, target: Any, fov: Any):
    try:
        state = State.start(LIMITS).with_camera(LIMITS, position, target, fov)
    except RefusedValueError:
        return
    assert_drawable(state)


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("seed", 1e300, (1 << 31) - 1),
        ("seed", -3, 0),
        ("seed", 2.6, 3),
        ("psi", -1, 0.0),
        ("size", "256", 256),
        ("level", 99, 3),
        ("mixed.1", True, True),
        ("steps.0", -1e9, -4.0),
        ("background", [0, 300, -5], (0, 255, 0)),
        ("head", "seed", "seed"),
        ("view", SPLATS, SPLATS),
    ],
)
def test_values_are_made_to_fit(name: str, value: Any, held: Any):
    state = State.start(LIMITS).with_value(LIMITS, name, value)
    field, dot, index = name.partition(".")
    found = getattr(state, field)[int(index)] if dot else getattr(state, field)
    assert found == held
    assert type(found) is type(held)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", math.nan),
        ("seed", math.inf),
        ("seed", "7"),
        ("seed", True),
        ("psi", None),
        ("size", 256),
        ("size", "8192"),
        ("head", "../../etc/passwd"),
        ("head", "seed" * 1000),
        ("mixed.0", 1),
        ("mixed.2", True),
        ("background", [0, 0]),
        ("background", "#ffffff"),
        ("look", "normals"),
        ("out", "/tmp"),
    ],
)
def test_what_no_control_can_have_is_refused(name: str, value: Any):
    with pytest.raises(RefusedValueError):
        State.start(LIMITS).with_value(LIMITS, name, value)


@settings(max_examples=60, deadline=None)
@given(st.floats(-179, 179), st.floats(-80, 80), st.floats(1, 9), st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_a_pages_camera_and_the_states_are_the_same_one(
    yaw: float, pitch: float, radius: float, target: tuple[float, float, float]
):
    start = State.start(LIMITS)
    a, b = math.radians(yaw), math.radians(pitch)
    offset = (math.sin(a) * math.cos(b), math.sin(b), math.cos(a) * math.cos(b))
    position = [t + radius * part for t, part in zip(target, offset)]
    state = start.with_camera(LIMITS, position, list(target), 0.5)
    camera = state_camera(state)
    centre = camera.cam_to_world[0, 0, :3, 3]
    assert centre.tolist() == pytest.approx(position, abs=5e-5)  # observed 1e-6 in float32
    seen = camera.viewmats[0, 0] @ torch.tensor([*target, 1.0])
    assert seen[:3].tolist() == pytest.approx([0, 0, radius], abs=5e-5)
    assert state.fov == pytest.approx(math.degrees(0.5))


def test_the_start_is_the_view_of_the_data():
    state = State.start(LIMITS)
    assert state.head == "found 0"
    camera = state_camera(state)
    assert float(camera.Ks_normalized[0, 0, 0, 0]) == pytest.approx(4.2647)
    assert [float(angle) for angle in yaw_pitch(camera)] == [0, 0]


def test_controls_that_do_not_apply_are_absent():
    planes = Limits(
        heads=("seed",), levels=1, layers=(), directions=0, looks=("colour",), sizes=(64,), size=64, splats=False
    )
    assert not {"head", "level", "scale", "view", "mixed.0", "steps.0"} & kinds(planes).keys()
    assert {"seed", "psi", "yaw", "look", "background"} <= kinds(planes).keys()
