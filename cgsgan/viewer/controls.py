"""The elements of the page, one for each control that applies to a generator, and what they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cgsgan.viewer.state import Choice, Color, Flag, Kind, Limits, Number, RefusedValueError, State, kinds

FOLDERS = {
    "Head": ("head", "seed", "psi"),
    "Show": ("view", "look", "size", "background", "level", "scale"),
    "Camera": ("yaw", "pitch", "radius", "fov"),
    "Second head": ("other_seed", "share", "mixed"),
    "Directions": ("steps",),
}
"""Which fields of the state stand together."""
FOLDED = ("Directions",)
"""What a press opens."""
LABELS = {
    "head": ("Head", "from a seed, or one that was found in a photograph"),
    "seed": ("Seed", "which head"),
    "psi": ("Truncation", "1 is full variety, 0 the average head"),
    "other_seed": ("Second seed", "the head to move towards, and to take styles from"),
    "share": ("Blend", "0 is the first head, 1 the second"),
    "mixed": ("Mix in {}", "take these styles from the second head; the first groups are coarse, the last ones fine"),
    "steps": ("Direction {}", "along which heads vary most; in standard deviations"),
    "yaw": ("Yaw", "degrees; 0 is in front of the face"),
    "pitch": ("Pitch", "degrees; above 0 the camera looks down"),
    "radius": ("Distance", "from the camera to what it looks at; the head is about 1 wide"),
    "fov": ("Field of view", "degrees"),
    "view": ("Large view", "splats drawn here, or pictures drawn by the server"),
    "look": ("Exact picture", "what it shows"),
    "size": ("Its size", "pixels"),
    "background": ("Background", "behind the head"),
    "level": ("Levels", "of detail; fewer show the coarse Gaussians alone"),
    "scale": ("Scale", "factor on the sizes of the Gaussians"),
}
SEED_FIELDS = ("seed", "other_seed")
Changed = Callable[[str, Any], None]


class ControlPanel:
    """Builds the elements, and says what came in them.

    Args:
        gui: viser's.
        limits: what there is to choose from.
        state: what they show at first.
        changed: told the control's name and its value whenever a page changed it.
        buttons: for each folder, labels of its buttons and what they do.
    """

    def __init__(
        self,
        gui: Any,
        limits: Limits,
        state: State,
        changed: Changed,
        buttons: dict[str, dict[str, Callable[[], None]]],
    ) -> None:
        self._gui, self._limits, self._changed = gui, limits, changed
        self.handles: dict[str, Any] = {}
        self.buttons: dict[str, Any] = {}
        self.cleaners: dict[str, Callable[[Any], Any]] = {}
        """What each element may send, by its id."""
        known = kinds(limits)
        for folder, fields in FOLDERS.items():
            names = [name for name in known if name.partition(".")[0] in fields]
            names.sort(key=lambda name: fields.index(name.partition(".")[0]))
            if not names:
                continue
            with gui.add_folder(folder, expand_by_default=folder not in FOLDED):
                for name in names:
                    self._add(name, known[name], state)
                self._add_buttons(buttons.get(folder, {}))
        for folder in buttons.keys() - FOLDERS.keys():
            with gui.add_folder(folder):
                self._add_buttons(buttons[folder])

    def show(self, state: State) -> None:
        """Make all elements say what the state does."""
        for name, handle in self.handles.items():
            handle.value = state.value(name)

    def _add(self, name: str, kind: Kind, state: State) -> None:
        field, _, index = name.partition(".")
        label, hint = LABELS[field]
        if field == "mixed":
            label = label.format(self._limits.layers[int(index)])
        elif field == "steps":
            label = label.format(int(index) + 1)
        handle = _element(self._gui, label, kind, state.value(name), hint=hint, typed=field in SEED_FIELDS)

        async def update(event: Any) -> None:
            if event.client_id is not None:  # else the server itself set it
                self._changed(name, handle.value)

        handle.on_update(update)
        self.handles[name] = handle
        self.cleaners[element_id(handle)] = kind.clean

    def _add_buttons(self, buttons: dict[str, Callable[[], None]]) -> None:
        for label, press in buttons.items():
            handle = self._gui.add_button(label)

            async def click(_: Any, press: Callable[[], None] = press) -> None:
                press()

            handle.on_click(click)
            self.buttons[label] = handle
            self.cleaners[element_id(handle)] = _pressed


def element_id(handle: Any) -> str:
    """Of an element, in messages and as its id in the page."""
    return handle._impl.uuid


def _pressed(value: Any) -> bool:
    if value is not True:
        raise RefusedValueError("expected true, a press")
    return True


def _element(gui: Any, label: str, kind: Kind, value: Any, *, hint: str, typed: bool) -> Any:
    if isinstance(kind, Flag):
        return gui.add_checkbox(label, value, hint=hint)
    if isinstance(kind, Choice):
        return gui.add_dropdown(label, kind.options, initial_value=value, hint=hint)
    if isinstance(kind, Color):
        return gui.add_rgb(label, value, hint=hint)
    assert isinstance(kind, Number)
    if typed:
        return gui.add_number(label, value, min=kind.low, max=kind.high, step=kind.step, hint=hint)
    return gui.add_slider(label, min=kind.low, max=kind.high, step=kind.step, initial_value=value, hint=hint)
