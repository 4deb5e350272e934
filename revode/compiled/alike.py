"""Loops over elements that differ only in where their values lie, as one function: what a compiler makes of each is then made once.

A field that a step evaluates several times has every one of its elementary functions as often, dozens of operations each time.
"""
from __future__ import annotations

import re
from collections import Counter

LOOP = re.compile(r"^(  // op: [^\n]*\n)?  EACH\((\d+)\) \{\n(.*?)\n  \}$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"(?<=\b[SPQGH]\[)\d+(?= )|\bs\d+\b")         # where values begin, and numbers of the grid
MEMORY = {"S": "real*", "P": "const real*", "Q": "const real*", "G": "const double*", "H": "const double*"}


def alike(text: str) -> str:
    """The generated text for the host, where what stands in it more than once as a loop over features and lanes is called."""
    seen = Counter(general(found)[0] for found in LOOP.finditer(text))
    functions: dict[str, str] = {}

    def called(found: re.Match) -> str:
        loop, given = general(found)
        if seen[loop] < 2:
            return found[0]
        memory = [x for x in MEMORY if f"{x}[" in loop]
        if loop not in functions:
            takes = [f"{MEMORY[x]} {x}" for x in memory] + [f"{'real' if x[0] == 's' else 'int'} {name}" for x, name in given.items()]
            functions[loop] = f"APART void loop_{len(functions)}({', '.join(takes)}) {{\n{found[1] or ''}{loop}\n}}"
        return f"{found[1] or ''}  loop_{[*functions].index(loop)}({', '.join((*memory, *given))});"

    steps = LOOP.sub(called, text)
    return re.sub(r"(SELDOM\n)?STEP void", lambda first: "\n".join([*functions.values(), first[0]]), steps, count=1)


def general(found: re.Match) -> tuple[str, dict[str, str]]:
    """A loop, with names for what differs, and what these stand for here."""
    names: dict[str, str] = {}
    body = PLACE.sub(lambda place: names.setdefault(place[0], f"{'s' if place[0][0] == 's' else 'at'}_{len(names)}"), found[3])
    return f"  EACH({found[2]}) {{\n{body}\n  }}", names
