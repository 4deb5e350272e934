"""Stratonovich SDEs dy = f dt + g o dW as plain loops: the increments dW of every step are given, as an array.

    F(t, y) = f(t, y, p) h + g(t, y, p) dW         the frozen field of one step: the same h and dW at every stage

Conventions, beyond those of loops.py
    g(t, y, params)     diagonal: shaped like y, dW too;   general: (..., d, m), dW (..., m): `general=True`
    dWs                 (N, ...) the increments of the N steps
    X(f, g, y0, ts, dWs, params, ..., general=False) -> [y_0, ..., y_N], or pairs for X_states

Only + - * / and .sum are used, so floats, complex numbers, mpmath objects and autograd boxes pass through.
"""


def frozen(f, g, params, h, dW, general):
    """F(t, y) of one step."""

    def F(t, y):
        noise = (g(t, y, params) * dW[..., None, :]).sum(-1) if general else g(t, y, params) * dW
        return f(t, y, params) * h + noise

    return F


def forward(step, state, f, g, ts, dWs, params, general) -> list:
    """All states of step(F, G, t, t1, state): F is the frozen field, G the one with h and dW negated."""
    states = [state]
    for n in range(len(ts) - 1):
        h = ts[n + 1] - ts[n]
        F = frozen(f, g, params, h, dWs[n], general)
        G = frozen(f, g, params, -h, -dWs[n], general)
        state = step(F, G, ts[n], ts[n + 1], state)
        states.append(state)
    return states


# ------------------------------------------------------------------- Euler-Maruyama (Ito): Kloeden & Platen 1992, 9.1


def euler_maruyama(f, g, y0, ts, dWs, params, general=False) -> list:
    return forward(lambda F, G, t, t1, y: y + F(t, y), y0, f, g, ts, dWs, params, general)


# ------------------------------------------- Heun and midpoint (Stratonovich): Rumelin 1982; Kloeden & Platen 1992,
# 11.1


def heun(f, g, y0, ts, dWs, params, general=False) -> list:
    def step(F, G, t, t1, y):
        k = F(t, y)
        return y + (k + F(t1, y + k)) / 2

    return forward(step, y0, f, g, ts, dWs, params, general)


def midpoint(f, g, y0, ts, dWs, params, general=False) -> list:
    def step(F, G, t, t1, y):
        return y + F((t + t1) / 2, y + F(t, y) / 2)

    return forward(step, y0, f, g, ts, dWs, params, general)


# --------------------------------------- Reversible Heun: Kidger, Foster, Li & Lyons 2021, arXiv 2105.13493,
# algorithm 1
# z_{n+1} = 2 y_n - z_n + F(t_n, z_n),   y_{n+1} = y_n + (F(t_n, z_n) + F(t_{n+1}, z_{n+1})) / 2,   z_0 = y_0


def reversible_heun_step(F, G, t, t1, state):
    y, z = state
    z1 = 2 * y - z + F(t, z)
    return y + (F(t, z) + F(t1, z1)) / 2, z1


def reversible_heun_states(f, g, y0, ts, dWs, params, general=False) -> list:
    return forward(reversible_heun_step, (y0, y0), f, g, ts, dWs, params, general)


def reversible_heun(f, g, y0, ts, dWs, params, general=False) -> list:
    return [y for y, z in reversible_heun_states(f, g, y0, ts, dWs, params, general)]


# ------------------------------------------------------------- Coupled: McCallum & Foster 2024, arXiv 2410.11648, (2)
# y_{n+1} = lam y_n + (1 - lam) z_n + Psi(t_n, z_n; dx),   z_{n+1} = z_n - Psi(t_{n+1}, y_{n+1}; -dx),   z_0 = y_0


def Psi(F, t, t1, y, tableau):
    """The increment of one explicit Runge-Kutta step over the frozen field F."""
    K = []
    for row, c in zip(tableau.A, tableau.c, strict=True):
        Y = y
        for a, k in zip(row, K, strict=False):
            Y = Y + a * k
        K.append(F(t + c * (t1 - t), Y))
    return sum((b * k for b, k in zip(tableau.b[1:], K[1:], strict=True)), tableau.b[0] * K[0])


def coupled(f, g, y0, ts, dWs, params, tableau, lam, general=False) -> list:
    def step(F, G, t, t1, state):
        y, z = state
        y1 = lam * y + (1 - lam) * z + Psi(F, t, t1, z, tableau)
        return y1, z - Psi(G, t1, t, y1, tableau)

    return [y for y, z in forward(step, (y0, y0), f, g, ts, dWs, params, general)]


def runge_kutta(f, g, y0, ts, dWs, params, tableau, general=False) -> list:
    return forward(lambda F, G, t, t1, y: y + Psi(F, t, t1, y, tableau), y0, f, g, ts, dWs, params, general)


# ------------------------------------------ EES in low storage: Shmelev & Salvi 2025, arXiv 2509.20599; Williamson 1980
# d <- A_i d + F(t + c_i h, y),   y <- y + B_i d


def ees(f, g, y0, ts, dWs, params, scheme, times, general=False) -> list:
    """scheme: A and B of the 2N form; times: the c_i (ees.stage_times makes them)."""

    def step(F, G, t, t1, y):
        d = 0 * y
        for a, b, c in zip(scheme.A, scheme.B, times, strict=True):
            d = a * d + F(t + c * (t1 - t), y)
            y = y + b * d
        return y

    return forward(step, y0, f, g, ts, dWs, params, general)


# ------------------------------------------------------------------------- Ito to Stratonovich: Kloeden & Platen
# 1992, 4.9


def stratonovich_drift(f, g, dg):
    """f - g g'/2 for diagonal noise, where dg(t, y, p) holds the dg_i/dy_i, written by hand."""
    return lambda t, y, p: f(t, y, p) - g(t, y, p) * dg(t, y, p) / 2
