"""Adaptive steps, literally: one scalar equation, one loop, Python floats only.

    E      = |e| / (atol + rtol max(|y|, |y'|))                              the error norm of one number
    accept   E <= 1
    h      <- h * min(max(safety E_n^-k1 E_{n-1}^-k2 E_{n-2}^-k3, shrink), grow)
             k1 = (p + i + d)/q,   k2 = -(p + 2d)/q,   k3 = d/q              q: the error estimate is O(h^q)

Conventions
    f(t, y) -> y'                         both numbers
    step(f, t, t1, h, state)              (next state, error estimate); state is a tuple whose first entry is y
    E_{n-1}, E_{n-2}                      of accepted steps; 1 before there are any
    a rejected step                       is tried again with at most safety times its size
    stops                                 times to be hit: a step that would pass one, or come within .01 % of it, ends
                                          there; one that would leave less than another step before it goes half the way;
                                          a step cut short, whose error was small, leaves h as it was

The order of operations is that of the formulas as written, so that another implementation of them can agree in bits.
Sources: Soderlind, ACM TOMS 29 (2003) 1; Hairer, Norsett & Wanner (HNW) I, II.4.
"""
from math import isfinite, sqrt


def first_step(f, t0, y0, span, q, rtol, atol) -> float:
    """HNW I, II.4, 'starting step size', for one number; `span` is t1 - t0, of either sign."""
    direction = 1.0 if span > 0 else -1.0
    scale = atol + rtol * abs(y0)
    f0 = f(t0, y0)
    d0, d1 = sqrt((y0 / scale) ** 2), sqrt((f0 / scale) ** 2)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    h0 = min(h0, abs(span))
    f1 = f(t0 + direction * h0, y0 + direction * h0 * f0)
    d2 = sqrt(((f1 - f0) / scale) ** 2) / h0
    h1 = max(1e-6, h0 * 1e-3) if max(d1, d2) <= 1e-15 else (0.01 / max(d1, d2)) ** (1 / q)
    return min(100 * h0, h1, abs(span))


def pid(step, f, state, t0, t1, q, rtol, atol, h=None, p=0.0, i=1.0, d=0.0, safety=0.9, shrink=0.2, grow=10.0,
        max_step=None, stops=()) -> tuple:
    """([t_0 .. t_N], [state_0 .. state_N], number of rejected steps)."""
    direction = 1.0 if t1 > t0 else -1.0
    if h is None:
        h = first_step(f, t0, state[0], t1 - t0, q, rtol, atol)
    largest = float("inf") if max_step is None else max_step
    h = min(h, largest)
    ts, states, rejected, history = [t0], [state], 0, [1.0, 1.0]
    while ts[-1] != t1:
        t = ts[-1]
        ahead = [s for s in (*stops, t1) if (s - t) * direction > 0]
        left = abs(ahead[0] - t)
        if left <= h * 1.0001:
            end = ahead[0]
        elif left < 2 * h:
            end = t + direction * (left / 2)
        else:
            end = t + direction * h
        after, error = step(f, t, end, end - t, states[-1])
        y, y1 = states[-1][0], after[0]
        ratio = error / (atol + rtol * max(abs(y), abs(y1)))
        E = sqrt(ratio * ratio) if isfinite(ratio) and abs(ratio) < 1e150 and isfinite(y1) else float("inf")
        if E == float("inf"):
            factor = shrink
        else:
            E0, E1, E2 = max(E, 1e-10), max(history[0], 1e-10), max(history[1], 1e-10)
            factor = safety * E0 ** (-(p + i + d) / q) * E1 ** ((p + 2 * d) / q) * E2 ** (-d / q)
            factor = min(max(factor, shrink), grow)
        taken = abs(end - t)
        if E <= 1:
            ts.append(end)
            states.append(after)
            history = [E, history[0]]
            if taken >= 0.99 * h or factor < 1:
                h = min(taken * factor, largest)
        else:
            rejected += 1
            h = min(taken * min(factor, safety), largest)
    return ts, states, rejected


# ---------------------------------------------------------------- one step and its error estimate, in increments
# K_i = h f(t + c_i h, y + sum_j a_ij K_j);   stage times from both ends of the step, exact at c = 0 and c = 1

def _time(t, t1, c):
    return t if c == 0 else t1 if c == 1 else t + c * (t1 - t)


def _psi(tableau, f, t, t1, h, y):
    """(increment, embedded error) of one Runge-Kutta step; sums from left to right, without the zero terms."""
    K = []
    for i in range(len(tableau.b)):
        Y = y
        for j in range(i):
            if tableau.A[i][j]:
                Y = Y + float(tableau.A[i][j]) * K[j]
        K.append(f(_time(t, t1, float(tableau.c[i])), Y) * h)
    return (_total((b, k) for b, k in zip(tableau.b, K, strict=True)),
            _total((b - b_hat, k) for b, b_hat, k in zip(tableau.b, tableau.bhat, K, strict=True)))


def _total(terms):
    found = None
    for weight, k in terms:
        if weight:
            found = float(weight) * k if found is None else found + float(weight) * k
    return found


def runge_kutta(tableau):
    def step(f, t, t1, h, state):
        psi, error = _psi(tableau, f, t, t1, h, state[0])
        return (state[0] + psi,), error
    return step


def coupled(tableau, lam):
    """y' = lam y + ((1 - lam) z + Psi_h(t, z)),  z' = z - Psi_{-h}(t1, y').

    The error is that of the second call, or what the step put between the copies, y' - z' - lam (y - z): the larger one.
    """
    def step(f, t, t1, h, state):
        y, z = state
        y1 = lam * y + ((1 - lam) * z + _psi(tableau, f, t, t1, h, z)[0])
        psi, error = _psi(tableau, f, t1, t, -h, y1)
        z1 = z - psi
        return (y1, z1), max(error, (y1 - z1) - lam * (y - z), key=abs)
    return step


def reversible_heun(f, t, t1, h, state):
    """The error is the distance to Euler's method: (K1 - K0)/2."""
    y, z = state
    K0 = f(t, z) * h
    half = y + K0 * 0.5
    z1 = -z + 2 * half
    K1 = f(t1, z1) * h
    return (half + K1 * 0.5, z1), (K1 - K0) * 0.5


def low_storage(A, B, c, error_weights):
    def step(f, t, t1, h, state):
        y, d, K = state[0], None, []
        for a, b, x in zip(A, B, c, strict=True):
            K.append(f(_time(t, t1, x), y) * h)
            d = K[-1] if d is None else a * d + K[-1]
            y = y + b * d
        return (y,), _total(zip(error_weights, K, strict=True))
    return step
