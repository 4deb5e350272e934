"""python -m reference.detection.limits: the limits of the monitor as the table of docs/warnings.md, from watch.LIMITS."""
from __future__ import annotations

from revode.watch import LIMITS, Limits

KINDS = {"grid": "a given grid", "adaptive": "adaptive steps", "driven": "noise, or a rough control"}


def rows() -> list[str]:
    head = ["solve", "`k`", *(f"`{name}`" for name in Limits._fields)]
    made = [[KINDS[kind], sign, *(f"{x:g}" for x in limits)]
            for kind, pair in LIMITS.items() for sign, limits in zip(("> 0", "< 0"), pair, strict=True)]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *made)]


if __name__ == "__main__":
    print("\n".join(rows()))
