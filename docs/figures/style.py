"""What the figures of the book share: the style of the commands' pictures, with letters that a slide can show, and where a
picture goes."""
import io
from pathlib import Path
from typing import Any

from revode.plotting import STYLE


def subplots(columns: int, width: float, height: float, **how: Any) -> tuple[Any, Any]:
    """A figure of this size in inches, and its axes."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(STYLE)
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained", **how)


def save(figure: Any, path: str) -> None:
    """As PNG beside a script, with its name (or where path says), in 200 colours, which makes it half as large."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    Image.open(drawn).convert("RGB").quantize(200).save(Path(path).with_suffix(".png"), optimize=True)
