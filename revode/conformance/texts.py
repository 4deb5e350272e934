"""The reference of the checker: every method as the lines of its equations, going forward and going back.

A fault is one of these lines changed (faults.py), so the lines are kept as text, and reference.py runs them. Going forward a
step reads and writes the parts of the state; going back it finds the parts before the step under their names (y), those after
it with a 1 (y1), the cotangents with an a in front (ay), and G, dL/dparams so far. In all of them

    t, t1, h      the step's two ends and its length           ts, n      the grid and the step's number
    dx            (h, dW): what f and g are multiplied by; -dx is the same step undone
    f(t, y)       the field;        F(t, y, dx) = f h + g dW, or F(t, y) dX for a control;     ..._vjp(..., a) -> a_y, a_params
    psi(t, dx, y) the increment of a Runge-Kutta step;         phi(t, dx, y) a whole step of a method that has no second part

Sources: those of revode/methods; written anew, with gradients by hand, so that the package is checked by something else.
"""
from __future__ import annotations

from typing import Any

PROBLEM: dict[str, Any] = {
    "drift": "return tanh(y @ p['W1'] + p['b1']*t) @ p['W2'] + p['b2'] - p['k']*y",
    "drift_vjp": """
u = tanh(y @ p['W1'] + p['b1']*t)
s = (p['W2'] @ a)*(1 - u*u)
return p['W1'] @ s - p['k']*a, Tree(W1=outer(y, s), b1=s*t, W2=outer(u, a), b2=a, k=-sum(y*a))
""",
    "noise": {"ode": "", "split": "", "fixed-point": "", "diagonal": "return tanh(y @ p['V'] + p['c']*t)/2",
              "general": "return tanh(y @ p['V'] + p['c']*t).reshape(len(y), -1)/2",
              "controlled": "return tanh(y @ p['V'] + p['c']*t).reshape(len(y), -1)/2",
              "additive": "return tanh(p['c']*t).reshape(len(y), -1)/2"},
    "increment": {"ode": "return f(t, y)*dx.h", "split": "return f(t, y)*dx.h", "fixed-point": "return f(t, y)*dx.h",
                  "diagonal": "return f(t, y)*dx.h + g(t, y)*dx.dW", "general": "return f(t, y)*dx.h + g(t, y) @ dx.dW",
                  "additive": "return f(t, y)*dx.h + g(t, y) @ dx.dW", "controlled": "return g(t, y) @ dx.dW"},
    "grid": """
h = ts[n + 1] - ts[n]
t = ts[n]
t1 = ts[n + 1]
dx = Dx(h, dWs[n])
h_before = ts[n] - ts[n - 1] if n else h
""",
    "weights": "w = W[n]",
    "result": "aparams = G",
}

RUNGE_KUTTA = {
    "psi": """
k = []
for i in range(len(b)):
    Y = y
    for j in range(i):
        Y = Y + A[i][j]*k[j]
    k.append(F(t + c[i]*dx.h, Y, dx))
return sum(b[i]*k[i] for i in range(len(b)))
""",
    "psi_vjp": """
k, Ys = [], []
for i in range(len(b)):
    Ys.append(y + sum(A[i][j]*k[j] for j in range(i)))
    k.append(F(t + c[i]*dx.h, Ys[i], dx))
ak = [b[i]*a for i in range(len(b))]
ay, G = 0*a, 0*G0
for i in reversed(range(len(b))):
    aY, ap = F_vjp(t + c[i]*dx.h, Ys[i], dx, ak[i])
    ay, G = ay + aY, G + ap
    for j in range(i):
        ak[j] = ak[j] + A[i][j]*aY
return ay, G
""",
}

LOW_STORAGE = {
    "phi": """
d = 0*y
for i in range(len(B)):
    d = A[i]*d + F(t + c[i]*dx.h, y, dx)
    y = y + B[i]*d
return y
""",
    "phi_vjp": """
d, Ys = 0*y, []
for i in range(len(B)):
    Ys.append(y)
    d = A[i]*d + F(t + c[i]*dx.h, y, dx)
    y = y + B[i]*d
ad, G = 0*a, 0*G0
for i in reversed(range(len(B))):
    ad = ad + B[i]*a
    aY, ap = F_vjp(t + c[i]*dx.h, Ys[i], dx, ad)
    a, G = a + aY, G + ap
    ad = A[i]*ad
return a, G
""",
}

ONE_PART = {
    "start": "y = y0",
    "step": "y = phi(t, dx, y)",
    "output": "ys = y",
    "enter": "ay = ay + w",
    "reconstruct": """
before = phi(t1, -dx, y1)
for _ in range(correct):
    before = before + (y1 - phi(t, dx, before))
y = before if n > 0 else y0
""",
    "back": """
a, ap = phi_vjp(t, dx, y, ay)
ay = a
G = G + ap
""",
    "finish": "ay0 = ay",
}

SPLIT = {
    "start": "q, v = y0",
    "output": "ys = stack([q, v])",
    "enter": "aq, av = aq + w[0], av + w[1]",
    "finish": "ay0 = stack([aq, av])",
}

# {method: (its parts, {name of a text: text})}
METHODS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "RungeKutta": (("y",), {**RUNGE_KUTTA, **ONE_PART, "phi": "return y + psi(t, dx, y)", "phi_vjp": """
ay, G = psi_vjp(t, dx, y, a)
return a + ay, G
"""}),
    "EES": (("y",), {**LOW_STORAGE, **ONE_PART}),
    "Coupled": (("y", "z"), {
        **RUNGE_KUTTA,
        "start": "y = z = y0",
        "step": """
y = lam*y + (1 - lam)*z + psi(t, dx, z)
z = z - psi(t1, -dx, y)
""",
        "output": "ys = y",
        "enter": "ay = ay + w",
        "back": """
a, ap = psi_vjp(t1, -dx, y1, -az)
ay = ay + a
G = G + ap
a, ap = psi_vjp(t, dx, z, ay)
az = az + (1 - lam)*ay + a
G = G + ap
ay = lam*ay
""",
        "finish": "ay0 = ay + az"}),
    "AsynchronousLeapfrog": (("y", "v"), {
        "start": """
y = y0
v = f(ts[0], y0)
""",
        "step": """
y = y + h/2*v
v = (1 - 2*eta)*v + 2*eta*f(t + h/2, y)
y = y + h/2*v
""",
        "output": "ys = y",
        "enter": "ay = ay + w",
        "back": """
av = av + h/2*ay
a, ap = f_vjp(t + h/2, y + h/2*v, 2*eta*av)
ay = ay + a
G = G + ap
av = (1 - 2*eta)*av + h/2*ay
""",
        "finish": """
a, ap = f_vjp(ts[0], y0, av)
ay0 = ay + a
G = G + ap
"""}),
    "ReversibleHeun": (("y", "z"), {
        "start": "y = z = y0",
        "step": """
k = F(t, z, dx)
z = 2*y - z + k
y = y + (k + F(t1, z, dx))/2
""",
        "output": "ys = y",
        "enter": "ay = ay + w",
        "back": """
a, ap = F_vjp(t1, z1, dx, ay/2)
az = az + a
G = G + ap
a, ap = F_vjp(t, z, dx, ay/2 + az)
ay = ay + 2*az
az = a - az
G = G + ap
""",
        "finish": "ay0 = ay + az"}),
    "LeapfrogMidpoint": (("y_prev", "y"), {
        "start": """
y = y0
y_prev = y0 - h*f(ts[0], y0)
""",
        "step": "y_prev, y = y, y_prev + (h_before + h)*f(t, y)",
        "output": "ys = y",
        "enter": "ay = ay + w",
        "back": """
a, ap = f_vjp(t, y, (h_before + h)*ay)
ay, ay_prev = ay_prev + a, ay
G = G + ap
""",
        "finish": """
a, ap = f_vjp(ts[0], y0, -h*ay_prev)
ay0 = ay + ay_prev + a
G = G + ap
"""}),
    "SemiImplicitEuler": (("q", "v"), {
        **SPLIT,
        "step": """
v = v + h*f(t, q)
q = q + h*v
""",
        "back": """
av = av + h*aq
a, ap = f_vjp(t, q, h*av)
aq = aq + a
G = G + ap
"""}),
    "VelocityVerlet": (("q", "v"), {
        **SPLIT,
        "step": """
v = v + h/2*f(t, q)
q = q + h*v
v = v + h/2*f(t1, q)
""",
        "back": """
a, ap = f_vjp(t1, q1, h/2*av)
aq = aq + a
G = G + ap
av = av + h*aq
a, ap = f_vjp(t, q, h/2*av)
aq = aq + a
G = G + ap
"""}),
    "RevDEQ": (("y", "z"), {
        "start": "y = z = y0",
        "step": """
y = (1 - beta)*y + beta*f(1.0, z)
z = (1 - beta)*z + beta*f(1.0, y)
""",
        "output": "ys = z",
        "enter": "az = az + w",
        "back": """
a, ap = f_vjp(1.0, y1, beta*az)
ay = ay + a
az = (1 - beta)*az
G = G + ap
a, ap = f_vjp(1.0, z, beta*ay)
az = az + a
ay = (1 - beta)*ay
G = G + ap
""",
        "finish": "ay0 = ay + az"}),
    "Picard": (("y",), {
        **{name: text for name, text in ONE_PART.items() if name != "reconstruct"},
        "step": "y = (1 - damping)*y + damping*f(1.0, y)",
        "back": """
a, ap = f_vjp(1.0, y, damping*ay)
ay = (1 - damping)*ay + a
G = G + ap
"""}),
}
FAMILY = {"NearReversible": "RungeKutta", "EES25": "EES", "EES27": "EES"}          # methods with the texts of another


def family(method: dict) -> str:
    """The name in METHODS of the texts that a method runs."""
    name = method["method"] if method["name"] == "Composition" else method["name"]
    return FAMILY.get(name, name)


def texts(method: dict, kind: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The parts of a method, and all the texts that run it on a problem of this kind."""
    parts, own = METHODS[family(method)]
    problem = {name: text if isinstance(text, str) else text[kind] for name, text in PROBLEM.items()}
    return parts, {**problem, **own}
