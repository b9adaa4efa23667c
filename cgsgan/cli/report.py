"""``cgsgan report RUN``: one self-contained HTML page about a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Write a page with config, curves, samples, turntable, checkpoints and the last log rows of a run.

    Attributes:
        run: a run folder; the run may still be going on.
        out: the page; default RUN/report.html.
    """

    run: Annotated[Path, tyro.conf.Positional]
    out: Path | None = None


def run(argv: list[str]) -> int:
    """Write the page and say where it is."""
    arguments = tyro.cli(ReportArguments, args=argv, prog="cgsgan report")

    from cgsgan.training.report import write_report
    from cgsgan.training.run_folder import RunFolder

    out = arguments.out or arguments.run / "report.html"
    write_report(RunFolder(arguments.run), out)
    print(f"wrote {out}")
    return 0
