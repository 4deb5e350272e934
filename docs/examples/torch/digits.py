"""Which digit is it? A PyTorch classifier whose middle is a reversible neural ODE of this package.

64 pixels -> 32;  y' = V tanh(W (t, y) + b) + c  for t in [0, 1];  32 -> 10. Trained by Adam on 1198 images of 8 x 8 pixels;
599 others are held out. `python docs/examples/torch/digits.py` takes some seconds.
"""
import numpy as np
import torch

from revode import EES25, nn
from revode.experiments.digits import data
from revode.interop.torch import layer


def field(t, y, p):                          # a NumPy function, as everywhere in this package
    return nn.mlp(p, nn.with_time(t, y))


def block(steps=16, **options):
    """y(0) -> y(1) as a module: its parameters are those of the network, its memory is that of two states."""
    start = nn.mlp_init(np.random.default_rng(0), (33, 64, 32), dtype=np.float32)
    return layer(field, np.linspace(0.0, 1.0, steps + 1), start, **{"method": EES25(), **options})


def classifier(middle):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), middle, torch.nn.Linear(32, 10))


def tensors():
    """(pixels, labels) to train on, and those held out."""
    return [(torch.tensor(part.pixels, dtype=torch.float32), torch.tensor(part.labels)) for part in data()]


def epochs(model, many=10, batch=64):
    """Train; after each pass over the data the share of held-out images that are named right."""
    (pixels, labels), (unseen, truth) = tensors()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    order = np.random.default_rng(1)
    for _ in range(many):
        for rows in order.permutation(len(labels))[:len(labels) // batch * batch].reshape(-1, batch):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(pixels[rows]), labels[rows]).backward()
            optimiser.step()
        with torch.no_grad():
            yield (model(unseen).argmax(1) == truth).float().mean().item()


def main(many=10, **options):
    model = classifier(block(**options))
    shares = [f"{100 * share:.1f} %" for share in epochs(model, many)]
    print("right after each epoch:", ", ".join(shares))
    return model


if __name__ == "__main__":
    main(backend="native")
