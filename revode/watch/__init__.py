"""One monitor for every engine: what a solve and its reverse sweep say about how far they can be trusted.

    forward    gap          G    the companion's gap, entry by entry, against the size of y                 (two-copy methods)
               steps        h J  the field's eigenvalues, where steps leave the field (stiffness.py)       (explicit flows)
    back       parasite     S_p, S_y, S_d    what each step put into the gap, weighted with the cotangents       (two-copy methods)
               round trip   W_p, W_y    what came back beside what had been there, weighted likewise
               defects      E    what each undone step missed, weighted with the cotangent behind it        (nearly reversible)

All but the steps is made of states and cotangents that the march has at hand: no evaluation of the field, nothing stored. (Where
steps are large the field is asked, and at the end of a plain solve, once.) They are looked at in a few places, which depend on the
grid alone, so that the verdict does not depend on who ran the steps.
Weights are multiplied entry by entry and judged by batch member: norms over a batch let one large entry hide another.

places.py    where it is looked            ahead.py    the watch over a march
sizes.py     sizes of states               back.py     the watch over a reverse sweep
alarms.py    warnings, and how they are raised
causes.py    limits, causes and remedies          quiet.py   what mostly tells that there is nothing to say
"""
from .ahead import Ahead
from .alarms import (
    AdjointError,
    AdjointWarning,
    Complaint,
    NonFiniteError,
    NonFiniteWarning,
    ParasiteError,
    ParasiteWarning,
    ReconstructionError,
    ReconstructionWarning,
    RevodeWarning,
    StabilityError,
    StabilityWarning,
    Verdict,
    complain,
    report,
)
from .back import Back, RoundTrip
from .causes import CLOSE, LIMITS, MANY, STORED, TOL, Limits
from .places import LOOKS, ROOM, compared, grouped, looks, places, runs, within
from .quiet import Quiet, deferred
from .sizes import begins, flat, size, stacked

__all__ = [
    "CLOSE", "LIMITS", "LOOKS", "MANY", "ROOM", "STORED", "TOL", "AdjointError", "AdjointWarning", "Ahead", "Back", "Complaint",
    "Limits", "NonFiniteError", "NonFiniteWarning", "ParasiteError", "ParasiteWarning", "Quiet", "ReconstructionError",
    "ReconstructionWarning", "RevodeWarning", "RoundTrip", "StabilityError", "StabilityWarning", "Verdict", "begins", "compared",
    "complain", "deferred", "flat", "grouped", "looks", "places", "report", "runs", "size", "stacked", "within",
]
