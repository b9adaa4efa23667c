"""``cgsgan train [config.yaml] [--out DIR] [--resume [DIR]] [--overrides]``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cgsgan.cli.parsing import parse_arguments
from cgsgan.config import ConfigError, ExperimentConfig, load_config

DEFAULT_CONFIG = Path("configs/quickstart.yaml")
RUNS = Path("runs")
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Train a generator. The first argument may be a config file; every value in it can be overridden here.

    Attributes:
        experiment: the config.
        out: run folder; default runs/NAME, or the first free runs/NAME-2, -3...
        resume: continue the run in --out (or in the folder given here) from its newest checkpoint. A bare --resume with
            a config and an --out that holds nothing yet starts the run: one command for a job that is started again and
            again.
    """

    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
    out: Path | None = None
    resume: str | None = None


def run(argv: list[str]) -> int:
    """Parse, train, say where everything is."""
    config_file, options = _split_config(argv)
    options = _bare_resume(options, may_start=config_file is not None)
    resumed = _resumed_folder(options)
    if config_file is None:
        config_file = DEFAULT_CONFIG if resumed is None else resumed / "config.yaml"
    default = TrainArguments(experiment=load_config(find_config(config_file)))
    # The kinds of generator and renderer are the file's to choose: overrides stay flags, not subcommands.
    arguments = parse_arguments(
        TrainArguments,
        options,
        default=default,
        prog="train.py [config.yaml]",
        config=(tyro.conf.AvoidSubcommands,),
    )
    config = arguments.experiment.with_overrides_checked(default.experiment)

    from cgsgan import experiment
    from cgsgan.training.interruption import exit_code
    from cgsgan.training.run_folder import RunFolder, free_run_folder

    if resumed is not None:
        result = experiment.train(config, RunFolder(resumed), resume=True)
    else:
        out = RunFolder(arguments.out) if arguments.out else free_run_folder(RUNS, config.name)
        result = experiment.train(config, out)
    if result.stopped_by is not None:
        return exit_code(result.stopped_by)
    if result.files:
        print(f"\nrun folder: {result.run.path}")
        for name, path in result.files.items():
            print(f"  {name:16s} {path}")
        ply = " --ply" if config.generator.kind == "gaussians" else ""
        print(f"more pictures: python render.py {result.run.path} --seeds 0-7 --turntable webp{ply}")
    return 0


def find_config(path: Path) -> Path:
    """The config file itself, or the one of this name that ships with the package.

    In a checkout ``configs/`` lies beside the package, in an installed wheel inside it; either way
    ``configs/quickstart.yaml`` names the same file from any working directory.
    """
    if path.exists() or path.is_absolute():
        return path
    shipped = [root / path for root in (PACKAGE.parent, PACKAGE)]
    return next((candidate for candidate in shipped if candidate.is_file()), path)


def _split_config(argv: list[str]) -> tuple[Path | None, list[str]]:
    if argv and not argv[0].startswith("-"):
        return Path(argv[0]), argv[1:]
    return None, argv


def _bare_resume(options: list[str], *, may_start: bool) -> list[str]:
    """``--resume`` without a value means the folder of ``--out``; give it that value, or drop it for a first start."""
    if "--resume" not in options:
        return options
    at = options.index("--resume")
    if at + 1 < len(options) and not options[at + 1].startswith("-"):
        return options
    out = _value(options, "--out")
    if out is None:
        raise ConfigError("--resume: which run? give its folder, `--resume DIR` or `--out DIR --resume`")
    if may_start and not (Path(out).is_dir() and any(Path(out).iterdir())):
        return [*options[:at], *options[at + 1 :]]
    return [*options[: at + 1], out, *options[at + 1 :]]


def _resumed_folder(options: list[str]) -> Path | None:
    value = _value(options, "--resume")
    if value is None:
        return None
    out = _value(options, "--out")
    if out is not None and os.path.normpath(out) != os.path.normpath(value):
        raise ConfigError(f"--resume {value} and --out {out} name different folders; a run continues where it is")
    if not (Path(value) / "config.yaml").is_file():
        raise ConfigError(f"--resume {value}: not a run folder (it has no config.yaml)")
    return Path(value)


def _value(options: list[str], name: str) -> str | None:
    for index, option in enumerate(options):
        if option == name and index + 1 < len(options):
            return options[index + 1]
        if option.startswith(name + "="):
            return option.split("=", 1)[1]
    return None
