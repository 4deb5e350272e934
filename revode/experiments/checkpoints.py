"""--checkpoint FILE of what trains: written while it trains, and gone on from where it is there already.

For each row the file has the parameters, the optimiser's state, the best parameters, the losses, the seconds and what was looked at
on the way: with the seed, what the next iteration needs, in all its bits. It is whole, or it is the one before (rv.save).
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..archive import load, save
from ..ranks import together
from .backends import UserError
from .ranks import joined

if TYPE_CHECKING:
    from .training import Run

EVERY = 10               # iterations
LISTS = "losses", "seconds", "along"       # of a Run


def add_option(parser: Any) -> None:
    parser.add_argument("--checkpoint", metavar="RUN.npz",
                        help=f"write the training every {EVERY} iterations; go on from there if the file is there")


def begun(path: str | None, what: dict[str, Any], jobs: Sequence[Run]) -> tuple[Checkpoint | None, list[str]]:
    """The file of this --checkpoint, if there is one, and what it has of the rows, in words."""
    if path is None:
        return None, []
    kept = Checkpoint(path, {name: str(x) for name, x in what.items()})
    done = {job.name: len(kept.rows[job.name]["losses"]) for job in jobs if job.name in kept.rows}
    return kept, [f"{name} goes on after {n:,} iterations" for name, n in done.items()]


class Checkpoint:
    """The file of a command; for each row that has been begun: params, state, best, and LISTS."""

    def __init__(self, path: str, what: dict[str, str]) -> None:
        """what: the experiment and its options, which are those of the file."""
        self.path = path if path.endswith(".npz") else f"{path}.npz"
        self.what, ranks = what, joined()
        self.rows: dict[str, dict] = {}
        self.writes = ranks is None or ranks.Get_rank() == 0
        found = self.read() if ranks is None else together(ranks, lambda: self.read() if self.writes else None, lambda a, b: a)
        if found is None:
            return
        if not isinstance(found, dict) or found.get("what") != what:
            said = {} if not isinstance(found, dict) else found.get("what", {})
            other = ", ".join(f"{name} {said[name]}" for name in said if said[name] != what.get(name))
            raise UserError(f"{path} is of another training ({other or 'not by --checkpoint'}); go on with the options that began it, "
                            "or choose another file")
        self.rows = found["rows"]

    def read(self) -> Any:
        if not Path(self.path).exists():
            return None
        try:
            return load(self.path)
        except (OSError, ValueError) as error:
            raise UserError(f"--checkpoint {self.path} cannot be gone on from: {error}") from None

    def restore(self, run: Run) -> None:
        """Make a run what the file has of its row, if it has any."""
        if (row := self.rows.get(run.name)) is not None:
            vars(run).update(row | {name: np.asarray(row.get(name, ())).tolist() for name in LISTS})
            vars(run).update(done=len(run.losses), least=min(run.losses), spent=sum(run.seconds))

    def keep(self, run: Run) -> None:
        """Write the file, with this row as it is now."""
        self.rows[run.name] = {"params": run.params, "state": run.state, "best": run.best,
                               **{name: np.asarray(getattr(run, name)[:run.done]) for name in LISTS}}
        if not self.writes:
            return
        try:
            save(self.path, {"what": self.what, "rows": self.rows})
        except OSError as error:
            raise UserError(f"--checkpoint {self.path} could not be written: {error.strerror or error}") from None
