"""Stir a fluid so that its dye takes a shape: the vorticity at the start is what is looked for.

    w_t + u . grad w = nu lap w,   u = (psi_y, -psi_x),   -lap psi = w,   d_t + u . grad d = nu lap d,   on a periodic square

Derivatives are products with wave numbers; the steps are Heun's. Everything is NumPy, a tape remembers all of it.
"""
import numpy as np

import revode as rv

N, NU, H, STEPS = 16, 0.02, 0.08, 12
K = 2 * np.pi * np.fft.fftfreq(N) * N / (2 * np.pi)
KX, KY = K[:, None] + 0 * K[None, :], K[None, :] + 0 * K[:, None]
SQUARE = KX ** 2 + KY ** 2
X, Y = np.meshgrid(2 * np.pi * np.arange(N) / N, 2 * np.pi * np.arange(N) / N, indexing="ij")


def through(a, factor):
    """a with its Fourier coefficients multiplied by a factor: a derivative, or the inverse of one."""
    return np.real(np.fft.ifft2(np.fft.fft2(a) * factor))


def slopes(w, d):
    """dw/dt and dd/dt."""
    psi = through(w, np.where(SQUARE > 0, 1 / np.maximum(SQUARE, 1), 0.0))
    u, v = through(psi, 1j * KY), -through(psi, 1j * KX)
    return [NU * through(a, -SQUARE) - u * through(a, 1j * KX) - v * through(a, 1j * KY) for a in (w, d)]


def stirred(w, d):
    """The dye after STEPS steps."""
    for _ in range(STEPS):
        w1, d1 = slopes(w, d)
        w2, d2 = slopes(w + H * w1, d + H * d1)
        w, d = w + H / 2 * (w1 + w2), d + H / 2 * (d1 + d2)
    return d


def loss(w, dye, target):
    return np.mean((stirred(w, dye) - target) ** 2) + 1e-5 * np.mean(w ** 2)


def problem():
    """A stripe of dye, and what it becomes if two whirls stir it, which the search does not know."""
    dye = np.exp(-2 * (1 - np.cos(X - np.pi)))
    hidden = 4 * np.exp(-3 * (2 - np.cos(X - 2) - np.cos(Y - 2))) - 4 * np.exp(-3 * (2 - np.cos(X - 4) - np.cos(Y - 4)))
    return np.zeros((N, N)), dye, stirred(hidden, dye)


def main(iterations=40):
    w, dye, target = problem()
    found, result = rv.optim.lbfgs(rv.value_and_grad(lambda w: loss(w, dye, target)), w, iterations=iterations)
    print(f"{result.nit} iterations, loss {loss(w, dye, target):.1e} -> {result.fun:.1e}; the dye is off by "
          f"{np.abs(stirred(found, dye) - target).max():.3f} of {np.abs(target).max():.2f}")
    return {"before": float(loss(w, dye, target)), "after": float(result.fun)}


if __name__ == "__main__":
    main()
