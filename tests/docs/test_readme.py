"""The README is true: its code runs, and the commands in its table are known."""
from __future__ import annotations

import re
from pathlib import Path

from revode.__main__ import parser

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_code_runs(capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(compile(block, "README.md", "exec"), names)
    out = capsys.readouterr().out
    loss, certificate = out.splitlines()
    found = re.fullmatch(r"loss 0\.541824, states held 2, round trip (\de[-+]\d\d)", loss)         # the start and the end
    # RK4 is undone to O(h^5) a step: at most 1000 * .005**5 = 3e-9 for a field of size 1, and this one is small and smooth
    assert found and float(found[1]) < 3e-9, out
    shown = re.search(r"# (error below.*\))\n", README)
    assert shown and certificate == shown[1]


def test_the_gpu_example_runs_on_the_host(capsys, monkeypatch):
    """A short version of it, on arrays that stay where they are: the names and the shapes are right, and the loss falls."""
    import revode_cuda
    monkeypatch.setattr(revode_cuda, "to_device", lambda tree: tree)
    block, = re.findall(r"```py\n(.*?)```", README, re.S)
    for long, short in (("(256, 16)", "(4, 16)"), ("np.arange(201)", "np.arange(9)"), ("range(100)", "range(3)")):
        assert long in block
        block = block.replace(long, short)
    exec(compile(block + "\nfirst = float(loss(rv.to_device(params)))", "README.md", "exec"), names := {})
    assert re.fullmatch(r"loss \d\.\d{4}\n", capsys.readouterr().out)
    assert names["first"] < float(names["value"])


def test_the_commands_exist():
    """Every command in the table of experiments, `a`, `b` after a command standing for its other experiments."""
    table = README[README.index("## Experiments"):README.index("## Where to look")]
    found = 0
    for cell in re.findall(r"^\| (`revode .*?) \|", table, re.M):
        command: list[str] = []
        for words in re.findall(r"`([^`]*)`", cell):
            words = re.sub(r" ?\[(.*?)\]", r" \1", words).split()
            if words[0] == "revode":
                command = words[1:2]
                words = words[1:]
            elif words[0] != "compare":
                words = [*command, *words]
            else:
                continue
            assert parser().parse_args(words).plan
            found += 1
    assert found >= 13
