"""--checkpoint FILE of `revode train`: written while it trains, and gone on from where it is there already.

For each row the file has the parameters, the optimiser's state, the best parameters, the losses and the seconds: what the next
iteration needs, in all its bits. It is whole, or it is the one before (rv.save).
"""
from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..archive import load, save
from ..ranks import together
from .backends import UserError
from .ranks import joined

EVERY = 10               # iterations


class Reached(NamedTuple):
    """A training after some iterations."""
    params: Any
    state: Any               # of the optimiser
    best: Any
    losses: list[float]
    seconds: list[float]


class Checkpoint:
    """The file of a command: a Reached for each row that has been begun."""

    def __init__(self, path: str, what: dict[str, str]) -> None:
        """what: the experiment and its options, which are those of the file."""
        self.path = path if path.endswith(".npz") else f"{path}.npz"
        self.what, self.rows, ranks = what, {}, joined()
        self.writes = ranks is None or ranks.Get_rank() == 0
        found = self.read() if ranks is None else together(
            ranks, lambda: self.read() if self.writes else None, lambda a, b: a)
        if found is None:
            return
        if not isinstance(found, dict) or found.get("what") != what:
            said = {} if not isinstance(found, dict) else found.get("what", {})
            other = ", ".join(f"{name} {said[name]}" for name in said if said[name] != what.get(name))
            raise UserError(f"{path} is of another training ({other or 'not by --checkpoint'}); go "
                            "on with the options that began it, or choose another file")
        self.rows = {name: Reached(row["params"], row["state"], row["best"], row["losses"].tolist(),
                                   row["seconds"].tolist()) for name, row in found["rows"].items()}

    def read(self) -> Any:
        if not Path(self.path).exists():
            return None
        try:
            return load(self.path)
        except (OSError, ValueError) as error:
            raise UserError(f"--checkpoint {self.path} cannot be gone on from: {error}") from None

    def begun(self, name: str) -> str:
        """What there is of a row, in words."""
        return f"{name} goes on after {len(self.rows[name].losses):,} iterations"

    def keep(self, name: str, reached: Reached) -> None:
        """Write the file, with this row as it is now."""
        self.rows[name] = reached
        if not self.writes:
            return
        rows = {name: {**row._asdict(), "losses": np.asarray(row.losses),
                       "seconds": np.asarray(row.seconds)} for name, row in self.rows.items()}
        try:
            save(self.path, {"what": self.what, "rows": rows})
        except OSError as error:
            raise UserError(f"--checkpoint {self.path} could not be written: "
                            f"{error.strerror or error}") from None
