"""--checkpoint FILE of `revode train`: written while it trains, and gone on from where it is there already.

For each row the file has the parameters, the optimiser's state, the best parameters, the losses and the seconds: what the next
iteration needs, in all its bits. It is whole, or it is the one before (rv.save).
"""
from __future__ import annotations

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


class Checkpoint:
    """The file of a command; for each row that has been begun: params, state, best, losses, seconds."""

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

    def begun(self, name: str) -> str:
        """What there is of a row, in words."""
        return f"{name} goes on after {len(self.rows[name]['losses']):,} iterations"

    def restore(self, run: Run) -> None:
        """Make a run what the file has of its row, if it has any."""
        if (row := self.rows.get(run.name)) is not None:
            losses, seconds = row["losses"].tolist(), row["seconds"].tolist()
            vars(run).update(row, losses=losses, seconds=seconds, done=len(losses), least=min(losses), spent=sum(seconds))

    def keep(self, run: Run) -> None:
        """Write the file, with this row as it is now."""
        self.rows[run.name] = {"params": run.params, "state": run.state, "best": run.best,
                               "losses": np.asarray(run.losses[:run.done]), "seconds": np.asarray(run.seconds[:run.done])}
        if not self.writes:
            return
        try:
            save(self.path, {"what": self.what, "rows": self.rows})
        except OSError as error:
            raise UserError(f"--checkpoint {self.path} could not be written: {error.strerror or error}") from None
