"""The one object that describes an experiment, and its strict reader and writer.

One yaml is one run. It may name one parent with ``base:`` (a path relative to itself); its own values win. Unknown
keys, wrong types and contradictory sizes are errors that name the dotted path and, where there is one, the word that
was probably meant.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from cgsgan.data.dataset import DataConfig
from cgsgan.models.discriminator import DiscriminatorConfig
from cgsgan.models.gaussian_generator import GaussianGeneratorConfig
from cgsgan.models.implicit.generator import ImplicitGeneratorConfig
from cgsgan.models.triplane.generator import TriPlaneGeneratorConfig
from cgsgan.models.triplane.sdf import SdfGeneratorConfig
from cgsgan.rendering.robust_settings import RobustConfig
from cgsgan.rendering.splatting import SplattingConfig
from cgsgan.rendering.volume import VolumeConfig
from cgsgan.training.settings import TrainingConfig

T = TypeVar("T")

DRAWN_BY = {"gaussians": "splatting", "triplanes": "volume", "implicit": "volume", "sdf_planes": "robust"}
"""What renders the scenes of each kind of generator."""


class ConfigError(ValueError):
    """A config that cannot be used; the message names the place and the fix."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that decides a run. Resolved, it is written into the run folder and every checkpoint.

    Attributes:
        name: default name of the run folder.
        resolution: image size in pixels: data, discriminator, renderer and generator follow it.
        data: where images and labels come from.
        generator: latents to scenes; its ``kind`` says which: ``gaussians``, ``triplanes``, ``implicit`` or
            ``sdf_planes``.
        discriminator: images and labels to logits.
        rendering: scenes to images; ``splatting`` draws Gaussians, ``robust`` tri-planes of signed distance,
            ``volume`` the others.
        training: losses, optimiser, length.
    """

    name: str = "cgsgan"
    resolution: int = 512
    data: DataConfig = field(default_factory=DataConfig)
    generator: GaussianGeneratorConfig | TriPlaneGeneratorConfig | ImplicitGeneratorConfig | SdfGeneratorConfig = field(
        default_factory=GaussianGeneratorConfig
    )
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    rendering: SplattingConfig | VolumeConfig | RobustConfig = field(default_factory=SplattingConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other.

        Raises:
            ConfigError: names both.
        """
        made, drawn = self.generator.kind, self.rendering.kind
        if drawn != DRAWN_BY[made]:
            raise ConfigError(
                f"generator.kind is {made}, which rendering.kind {DRAWN_BY[made]} draws; got rendering.kind {drawn}"
            )
        self.training.growth.check_resolution(self.resolution)
        if self.training.growth.sizes and made == "sdf_planes":
            raise ConfigError("training.growth: signed distance has stages of its own, see training.surface")
        if self.training.growth.sizes and self.discriminator.dual:
            raise ConfigError(
                "training.growth: a dual discriminator sees two sizes already; set discriminator.dual: false"
            )
        self.training.poses.check_use(
            labelled=self.data.labels,
            x_flip=self.data.x_flip,
            lookers={
                "discriminator.camera_conditioning": self.discriminator.camera_conditioning,
                "generator.camera_conditioning": getattr(self.generator, "camera_conditioning", False),
            },
        )
        self._check_heads()
        planes = self.training.planes
        if made == "gaussians" and (self.discriminator.dual or planes.density_weight > 0):
            wrong = "discriminator.dual" if self.discriminator.dual else "training.planes.density_weight"
            raise ConfigError(f"{wrong}: only for generator.kind triplanes, got {made}")
        if isinstance(self.generator, SdfGeneratorConfig) and isinstance(self.rendering, RobustConfig):
            self._check_surface(self.generator, self.rendering)
        if self.discriminator.dual and getattr(self.generator, "superresolution", None) is None:
            raise ConfigError(
                "discriminator.dual compares pictures before and after super-resolution, but generator.superresolution "
                "is null; set discriminator.dual: false"
            )

    def _check_surface(self, generator: SdfGeneratorConfig, rendering: RobustConfig) -> None:
        """Refuse a proposal network, planes or stages that do not fit the renderer or the pictures."""
        proposal, surface = generator.proposal, self.training.surface
        for one, other in (
            (("generator.proposal.bins", proposal.bins), ("rendering.bins", rendering.bins)),
            (
                ("generator.proposal.probe_resolution", proposal.probe_resolution),
                ("rendering.probe_resolution", rendering.probe_resolution),
            ),
            (("generator.decoder.box_size", generator.decoder.box_size), ("rendering.box_warp", rendering.box_warp)),
        ):
            if one[1] != other[1]:
                raise ConfigError(
                    f"{one[0]} is {one[1]} but {other[0]} is {other[1]}; they describe one thing: set both"
                )
        if rendering.plane_axes != "corrected":
            raise ConfigError(
                f"rendering.plane_axes: scenes of signed distance start as a shape on corrected axes, got "
                f"{rendering.plane_axes}"
            )
        for name in ("low_resolution", "patch_size"):
            if getattr(surface, name) > self.resolution:
                raise ConfigError(
                    f"training.surface.{name}: expected at most the resolution of {self.resolution} px, got "
                    f"{getattr(surface, name)}"
                )

    def _check_heads(self) -> None:
        """What a discriminator is to name must be there, and be one."""
        named, z_dim = self.discriminator.latent_head, self.generator.mapping.z_dim
        if named not in (0, z_dim):
            raise ConfigError(
                f"discriminator.latent_head: expected generator.mapping.z_dim, {z_dim}, or 0, got {named}"
            )
        if named and self.training.style_mixing > 0:
            raise ConfigError(
                "discriminator.latent_head names the one latent of a picture, but training.style_mixing "
                f"{self.training.style_mixing:g} makes pictures of two; set one of them to 0"
            )

    def with_overrides_checked(self, before: ExperimentConfig) -> ExperimentConfig:
        """The resolved config, after the command line changed ``before`` into this one.

        Raises:
            ConfigError: when a part was given a resolution of its own.
        """
        for part in ("data", "generator", "discriminator"):
            own = getattr(self, part).resolution
            if own not in (getattr(before, part).resolution, self.resolution):
                raise ConfigError(
                    f"--{part}.resolution {own} but resolution is {self.resolution}; set --resolution only"
                )
        return self.resolved()

    def resolved(self) -> ExperimentConfig:
        """The same config with every component at ``resolution``.

        Raises:
            ValueError: when a part cannot be had at it.
        """
        size = {"resolution": self.resolution}
        return dataclasses.replace(
            self,
            data=dataclasses.replace(self.data, **size),
            generator=dataclasses.replace(self.generator, **size),
            discriminator=dataclasses.replace(self.discriminator, **size),
        )


def load_config(path: Path | str) -> ExperimentConfig:
    """Read a config file with its parent, strictly.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type, contradictory resolution; names file and dotted path.
    """
    return parse_config(_read_merged(Path(path)), source=str(path))


def parse_config(values: dict[str, Any], *, source: str) -> ExperimentConfig:
    """Plain data to a resolved config; ``source`` is named in errors."""
    try:
        return _build(ExperimentConfig, _with_sizes(values), "").resolved()
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None


def config_to_dict(config: Any) -> dict[str, Any]:
    """A config as plain data (dicts, lists, numbers, strings), ready for yaml or JSON."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else value

    return plain(config)


def dump_config(config: ExperimentConfig) -> str:
    """The resolved config as yaml that :func:`load_config` reads back equal."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False)


def flat_config(config: ExperimentConfig) -> dict[str, Any]:
    """A config as plain values by their dotted paths."""

    def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in values.items():
            flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return flat

    return flatten(config_to_dict(config))


def differing_fields(first: ExperimentConfig, second: ExperimentConfig) -> list[str]:
    """Dotted paths at which two configs differ, with both values."""
    a, b = flat_config(first), flat_config(second)
    return [f"{key}: {a.get(key)!r} -> {b.get(key)!r}" for key in sorted(a | b) if a.get(key) != b.get(key)]


def _read_merged(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "")
        raise ConfigError(f"{path}: not valid yaml ({reason})") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of settings at the top, got {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    if len(children) >= 1:
        raise ConfigError(f"{path}: has a 'base' of its own; one parent is the limit, so that a run stays readable")
    return _merge(_read_merged(path.parent / str(base), (*children, path)), values)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _with_sizes(values: dict[str, Any]) -> dict[str, Any]:
    """Hand the one ``resolution`` down to the parts, which check their other values against it."""
    resolution = values.get("resolution", ExperimentConfig.resolution)
    sized = dict(values)
    for part in ("data", "generator", "discriminator"):
        own = values.get(part) or {}
        if isinstance(own, dict):
            if own.get("resolution", resolution) != resolution:
                raise ConfigError(
                    f"{part}.resolution is {own['resolution']} but resolution is {resolution}; "
                    "set `resolution` at the top only"
                )
            sized[part] = {**own, "resolution": resolution}
    return sized


def _build(kind: type[T], values: Any, path: str) -> T:
    if not isinstance(values, dict):
        raise ConfigError(f"{path or 'config'}: expected a mapping, got {values!r}")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {path}{close[0]}?" if close else f"known here: {', '.join(names)}"
            raise ConfigError(f"unknown key {path}{key}; {hint}")
    given = {key: _convert(hints[key], value, f"{path}{key}") for key, value in values.items()}
    return kind(**given)


def _convert(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(kind, {} if value is None else value, path + ".")  # type: ignore[arg-type]
    if origin is Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value
        close = difflib.get_close_matches(str(value), [str(a) for a in arguments], n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{path}: expected one of {list(arguments)}, got {value!r}{meant}")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = [a for a in arguments if a is not type(None)]
        return _convert(inner[0] if len(inner) == 1 else _chosen(inner, value, path), value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}: expected a list, got {value!r}")
        return tuple(_convert(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    return _convert_scalar(kind, value, path)


def _chosen(kinds: list[Any], value: Any, path: str) -> Any:
    """The one of several configs that ``kind`` names; without it the first, which was once the only one."""
    named = {kind.kind: kind for kind in kinds}
    wanted = value.get("kind", kinds[0].kind) if isinstance(value, dict) else kinds[0].kind
    if wanted not in named:
        close = difflib.get_close_matches(str(wanted), named, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{path}.kind: expected one of {list(named)}, got {wanted!r}{meant}")
    return named[wanted]


def _convert_scalar(kind: Any, value: Any, path: str) -> Any:
    if kind is float:
        # yaml 1.1 reads 1e-3 (without a dot) as a string; a number is what its writer meant.
        try:
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                return float(value)
        except ValueError:
            pass
    elif type(value) is kind:
        return value
    raise ConfigError(f"{path}: expected {kind.__name__}, got {value!r} ({type(value).__name__})")
