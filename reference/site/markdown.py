"""Docstrings as they are written here, as Markdown.

    Parameters, with `name : what it is`        a list (types stand in the signature)
    Returns, Raises, Yields, Cost:, Source:     paragraphs
    Example                                     code
"""
from __future__ import annotations

import re

NAMES = "Parameters|Attributes|Returns|Yields|Raises|Cost|Source|Sources|State|Order|Stability|Pitfalls|Example|Examples"
HEAD = re.compile(rf"^(?:({NAMES})\n-{{3,}}$|({NAMES}): |(Returns|Raises|Yields)(?= ))", re.M)


def readable(text: str) -> str:
    text = re.sub(r"^State: (.*?)\. Cost", r"State: `\1`.\nCost", text, flags=re.M)
    text = re.sub(r"^Cost (for [^:]*): ", r"Cost: \1, ", text, flags=re.M)
    heads = list(HEAD.finditer(text))
    ends = [*(head.start() for head in heads), len(text)]
    out = [escaped(text[:ends[0]])]
    for head, after in zip(heads, ends[1:], strict=True):
        name, body = head[1] or head[2] or head[3], text[head.end():after].strip("\n")
        if name in ("Parameters", "Attributes") and head[1]:
            out.append(f"**{name}**\n\n" + re.sub(r"^(\S[^\n]*?) : (.*)$", lambda m: f"- `{m[1]}`: {m[2]}", escaped(body), flags=re.M))
        elif name in ("Example", "Examples"):
            out.append(f"**Example**\n\n```pycon\n{body}\n```")
        else:
            words = escaped(body).lstrip()
            begins = words[:1].upper() if re.match(r"[a-z]{2}|a ", words) else words[:1]     # symbols keep their case
            out.append(f"**{name}.** {begins}{words[1:]}")
    return "\n\n".join(out)


def escaped(text: str) -> str:
    """Stars of formulas, outside code and indented blocks, are no emphasis."""
    star = re.compile(r"(?<!\*)\*(?!\*)|\*\*(?=\w)")
    lines = text.split("\n")
    return "\n".join(line if line.startswith("    ") else star.sub(lambda m: m[0].replace("*", r"\*"), line) for line in lines)
