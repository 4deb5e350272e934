"""What an implementation can have got wrong: a change of one line of the reference, and the sentence for it.

A fault is not recognised by its looks. It is planted in the reference, the reference is run, and where all of its steps agree
with the implementation's to rounding, this is what the implementation computes. Each row is

    (name of the text, what stands there, what stands there instead, what to say)

and ("option", its name, its value, what to say) for another base, lam, and so on.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from .texts import family, texts

Row = tuple[str, Any, Any, str]

# ------------------------------------------------------------------------------------------------------ going forward
GRID: tuple[Row, ...] = (
    ("grid", "h = ts[n + 1] - ts[n]\n", "h = ts[1] - ts[0]\n",
     "ts[1] - ts[0] is used for every step; h = ts[n+1] - ts[n]"),
    ("grid", "h = ts[n + 1] - ts[n]\n", "h = (ts[N] - ts[0])/N\n",
     "the mean step is used for every step; h = ts[n+1] - ts[n]"),
    ("grid", "h = ts[n + 1] - ts[n]\n", "h = abs(ts[n + 1] - ts[n])\n",
     "the step is |ts[n+1] - ts[n]|; going back in time it is negative"),
    ("grid", "t = ts[n]\n", "t = 0.0\n", "time starts at 0 in every step; it is ts[n]"),
    ("grid", "t = ts[n]\nt1 = ts[n + 1]", "t = ts[0]\nt1 = ts[0] + h",
     "every step starts at the time ts[0]; it starts at ts[n]"),
    ("grid", "t = ts[n]\nt1 = ts[n + 1]", "t = ts[n] - ts[0]\nt1 = ts[n + 1] - ts[0]",
     "time starts at 0; it starts at ts[0]"),
    ("grid", "t = ts[n]\nt1 = ts[n + 1]", "t = ts[n + 1]\nt1 = ts[n + 1] + h",
     "every time is one step late: a step starts at ts[n]"),
)
NOISY: tuple[Row, ...] = (
    ("grid", "Dx(h, dWs[n])", "Dx(h, dWs[0])", "the increments of the first step are used in every step"),
    ("grid", "Dx(h, dWs[n])", "Dx(h, dWs[n - 1])", "the increments are those of the step before"),
    ("grid", "Dx(h, dWs[n])", "Dx(h, -dWs[n])", "the increments have the opposite sign"),
    ("grid", "Dx(h, dWs[n])", "Dx(h, dWs[n]*sqrt(abs(h)))",
     "the increments were multiplied by sqrt(h); they are increments already"),
    ("grid", "Dx(h, dWs[n])", "Dx(h, dWs[n]*h)", "the increments were multiplied by h"),
    ("grid", "Dx(h, dWs[n])", "Dx(h, 0*dWs[n])", "there is no noise"),
)
FIELD: tuple[Row, ...] = (
    ("drift", " - p['k']*y", "", "the field lacks - k y"), ("drift", "- p['k']*y", "+ p['k']*y",
     "the field has + k y; it is - k y"),
    ("drift", "p['b1']*t", "p['b1']", "the field has b1 where b1 t belongs"), ("drift", " + p['b2']", "",
     "the field lacks b2"),
)
TABLEAU: tuple[Row, ...] = (
    ("psi", "t + c[i]*dx.h", "t", "every stage is evaluated at the start of its step; its time is t + c h"),
    ("psi", "t + c[i]*dx.h", "t + dx.h", "every stage is evaluated at the end of its step; its time is t + c h"),
    ("psi", "t + c[i]*dx.h", "t + c[i]*abs(dx.h)", "the stage times of Psi_{-h} go forward; they are t + h - c h"),
    ("psi", "Y + A[i][j]*k[j]", "Y + (j == i - 1)*A[i][j]*k[j]",
     "a stage adds the stage before it alone; all of row a_ij belongs in it"),
    *(("option",
    "base", base, f"the base is {base}; another one is asked for")           # bosh3 is ralston3 with an error estimate
      for base in ("euler", "midpoint", "heun2", "ralston3", "rk4", "dopri5", "tsit5", "the 3/8 rule",
      "Ralston's of order 2",
                   "Heun's of order 3", "Kutta's of order 3", "SSPRK3")),
)
FORWARD: dict[str, tuple[Row, ...]] = {
    "RungeKutta": TABLEAU,
    "Coupled": (
        *TABLEAU,
        ("step", "psi(t1, -dx, y)", "psi(t, -dx, y)", "Psi_{-h} starts at t; it starts at t + h"),
        ("step", "psi(t1, -dx, y)", "psi((t + t1)/2, -dx, y)", "Psi_{-h} starts at t + h/2; it starts at t + h"),
        ("step", "psi(t1, -dx, y)", "psi(t1, dx, y)", "the second base step is Psi_{+h}; its step is -h"),
        ("step", "psi(t1, -dx, y)", "psi(t1, Dx(-dx.h, dx.dW), y)",
         "dW keeps its sign in Psi_{-h}; h and dW are both negated"),
        ("step", "psi(t1, -dx, y)", "psi(t, dx, y)", "the second base step is Psi_h(t, .); it is Psi_{-h}(t + h, .)"),
        ("step", "z = z - psi", "z = z + psi", "z' = z + Psi_{-h}; the sign is minus"),
        ("step", "y = lam*y + (1 - lam)*z", "old = y\ny = lam*z + (1 - lam)*y",
         "lam multiplies z and 1 - lam multiplies y; it is the other way round"),
        ("step", "y = lam*y + (1 - lam)*z + psi(t, dx, z)\nz = z - psi(t1, -dx, y)",
         "y, z = lam*y + (1 - lam)*z + psi(t, dx, z), z - psi(t1, -dx, y)",
         "the second base step reads y; it reads y'"),
        ("step", "psi(t, dx, z)", "psi(t, dx, y)", "the first base step starts from y; it starts from z"),
        ("step", "z = z - psi(t1, -dx, y)", "z = y", "z is set to y after each step"),
        ("step", "z = z - psi(t1, -dx, y)", "z = y - psi(t1, -dx, y)", "z' = y' - Psi_{-h}; it is z - Psi_{-h}"),
        ("step", "z = z - psi(t1, -dx, y)", "z = lam*z + (1 - lam)*y - psi(t1, -dx, y)",
         "the coupling enters z' too; it enters y' alone"),
        ("step", "lam*y + (1 - lam)*z + psi(t, dx, z)", "lam*(y + psi(t, dx, z)) + (1 - lam)*z",
         "lam multiplies the increment as well"),
        ("step", "(1 - lam)*z + ", "", "y' lacks (1 - lam) z"),
        ("output", "ys = y", "ys = z", "z is returned; the solution is y"),
        ("output", "ys = y", "ys = (y + z)/2", "the mean of y and z is returned; the solution is y"),
        *(("option", "lam", lam,
           f"lam is {lam:g}, a default; another one is asked for") for lam in (1.0, 0.9999, 0.999, 0.99, 0.9, 0.5)),
    ),
    "AsynchronousLeapfrog": (
        ("step", "f(t + h/2, y)", "f(t, y)", "f is evaluated at t; its time is t + h/2"),
        ("step", "f(t + h/2, y)", "f(t + h, y)", "f is evaluated at t + h; its time is t + h/2"),
        ("step", "(1 - 2*eta)*v + 2*eta*f", "2*eta*f", "v' = 2 eta f; it is (1 - 2 eta) v + 2 eta f"),
        ("step", "(1 - 2*eta)*v + 2*eta*f", "(1 - eta)*v + eta*f",
         "v' = (1 - eta) v + eta f; it is (1 - 2 eta) v + 2 eta f"),
        ("step", "(1 - 2*eta)*v + 2*eta*f", "f", "v' = f; it is (1 - 2 eta) v + 2 eta f"),
        ("start", "f(ts[0], y0)", "0*y0", "v0 = 0; it is f(t0, y0)"),
        ("start", "f(ts[0], y0)", "f(ts[0] + h/2, y0)", "v0 = f(t0 + h/2, y0); it is f(t0, y0)"),
        ("start", "f(ts[0], y0)", "f(0.0, y0)", "v0 = f(0, y0); it is f(t0, y0)"),
        ("step", "y = y + h/2*v\nv = (1 - 2*eta)*v + 2*eta*f(t + h/2, y)\ny = y + h/2*v",
         "y, old = y + h/2*v, v\nv = (1 - 2*eta)*v + 2*eta*f(t + h/2, y)\ny = y + h/2*old",
         "the second half kick uses v; it uses v'"),
        ("step", "y = y + h/2*v\nv =", "y = y + h*v\nv =", "the first half kick is h v; it is h/2 v"),
        ("step", "f(t + h/2, y)\ny = y + h/2*v", "f(t + h/2, y)\ny = y + h*v",
         "the second half kick is h v'; it is h/2 v'"),
        *(("option", "eta", eta, f"eta is {eta:g}; another one is asked for") for eta in (1.0, 0.9, 0.8, 0.75)),
    ),
    "ReversibleHeun": (
        ("step", "F(t1, z, dx)", "F(t, z, dx)", "the second field value is taken at t; its time is t + h"),
        ("step", "k + F(t1, z, dx)", "k + k", "both field values are f(t, z); the second is f(t + h, z')"),
        ("step", "F(t1, z, dx)", "F(t1, y, dx)", "the second field value is taken at y; it is taken at z'"),
        ("step", "z = 2*y - z + k\ny = y + (k + F(t1, z, dx))/2",
         "old = z\nz = 2*y - z + k\ny = y + (k + F(t1, z, dx))/2\nz = 2*y - old + k",
         "z' is made from y'; it is 2 y - z + h f"),
        ("step", "k = F", "z = y\nk = F", "z is set to y before each step: plain Heun"),
        ("step", "F(t, z, dx)\n", "F(t, y, dx)\n", "the first field value is taken at y; it is taken at z"),
        ("step", "2*y - z + k", "y + k", "z' = y + h f, Euler's predictor; it is 2 y - z + h f"),
        ("step", "2*y - z + k", "2*y - z + k/2", "z' has h f/2; it is 2 y - z + h f"),
        ("step", "(k + F(t1, z, dx))/2", "k + F(t1, z, dx)", "y' lacks the factor 1/2"),
        ("start", "y = z = y0", "y = y0\nz = y0 + F(ts[0], y0, dx)", "z0 = y0 + h f; it is y0"),
        ("output", "ys = y", "ys = z", "z is returned; the solution is y"),
        ("step", "k = F(t, z, dx)\nz = 2*y - z + k\ny = y + (k + F(t1, z, dx))/2",
         "k = F(ts[n - 1] if n else t, z, dx)\nz = 2*y - z + k\ny = y + (k + F(t, z, dx))/2",
         "the second field value is taken at t and kept for the next step; its time is t + h"),
        ("step", "k = F(t, z, dx)\nz = 2*y - z + k\ny = y + (k + F(t1, z, dx))/2",
         "k = memo['k'] if n else F(t, z, dx)\nz = 2*y - z + k\nmemo['k'] = F(t1, z, dx)\ny = y + (k + memo['k'])/2",
         "h f, with the step before's h or dW, is kept for the next step; f and g are kept, and multiplied anew"),
    ),
    "LeapfrogMidpoint": (
        ("step", "(h_before + h)", "(2*h)", "the step is 2 h; it is h_before + h"),
        ("step", "(h_before + h)", "(2*h_before)", "the step is 2 h_before; it is h_before + h"),
        ("step", "(h_before + h)", "h", "the step is h; it is h_before + h"),
        ("step", "f(t, y)", "f(t1, y)", "f is evaluated at t + h; its time is t"),
        ("start", "y0 - h*f(ts[0], y0)", "y0", "y_{-1} = y0; it is y0 - h f(t0, y0)"),
        ("start", "y0 - h*f(ts[0], y0)", "y0 - h*f(ts[0] - h/2, y0 - h/2*f(ts[0], y0))",
         "y_{-1} by the midpoint rule; it is y0 - h f(t0, y0)"),
        ("start", "y0 - h*f(ts[0], y0)", "y0 + h*f(ts[0], y0)", "y_{-1} = y0 + h f; it is y0 - h f"),
        ("output", "ys = y", "ys = y_prev", "the solution is returned one step late"),
    ),
    "SemiImplicitEuler": (
        ("step", "v = v + h*f(t, q)\nq = q + h*v", "q, v = q + h*v, v + h*f(t, q)",
         "q' uses v, explicit Euler; it uses v'"),
        ("step", "v = v + h*f(t, q)\nq = q + h*v", "q = q + h*v\nv = v + h*f(t, q)",
         "q moves first and v second; v moves first"),
        ("step", "v = v + h*f(t, q)\nq = q + h*v", "q = q + h*v\nv = v + h*f(t1, q)",
         "q moves first, and v by the field at t + h; v moves first"),
        ("step", "f(t, q)", "f(t1, q)", "the field is evaluated at t + h; its time is t"),
        ("step", "f(t, q)", "f(t, v)", "the field is evaluated at v; it is evaluated at q"),
        ("output", "[q, v]", "[v, q]", "v is returned before q"),
    ),
    "VelocityVerlet": (
        ("step", "f(t1, q)", "f(t, q)", "the second kick is evaluated at t; its time is t + h"),
        ("step", "v = v + h/2*f(t, q)\nq = q + h*v", "v, q = v + h/2*f(t, q), q + h*v",
         "q' uses v; it uses the half-kicked v"),
        ("step", "v = v + h/2*f(t, q)\nq = q + h*v\nv = v + h/2*f(t1, q)",
         "k = f(t, q)\nv = v + h/2*k\nq = q + h*v\nv = v + h/2*k",
         "both kicks use the field at the start; the second is at t + h and q'"),
        ("step", "v = v + h/2*f(t1, q)", "v = v + h/2*f(t, q)*0", "the second kick is missing"),
        ("step", "v = v + h/2*f(t, q)", "v = v + h*f(t, q)", "the first kick is h f; it is h/2 f"),
        ("step", "v = v + h/2*f(t, q)\nq = q + h*v\nv = v + h/2*f(t1, q)",
         "q = q + h/2*v\nv = v + h*f(t + h/2, q)\nq = q + h/2*v",
         "drift, kick, drift: position Verlet; it is kick, drift, kick"),
        ("step", "v = v + h/2*f(t, q)\nq = q + h*v\nv = v + h/2*f(t1, q)",
         "k = memo['k'] if n else f(t, q)\nv = v + h/2*k\nq = q + h*v\nmemo['k'] = f(t, q)\nv = v + h/2*memo['k']",
         "the acceleration is taken at t and kept for the next step; its time is t + h"),
        ("output", "[q, v]", "[v, q]", "v is returned before q"),
    ),
    "EES": (
        ("phi", "t + c[i]*dx.h", "t", "every stage is evaluated at t; its time is t + c h"),
        ("phi", "t + c[i]*dx.h", "t + i/len(B)*dx.h",
         "the stage times are i h/s; they are those that the scheme gives on f = 1"),
        ("phi", "A[i]*d + ", "", "d is not carried from stage to stage"),
            ("phi", "    d = A[i]*d + F(t + c[i]*dx.h, y, dx)\n    y = y + B[i]*d",
         "    y, d = y + B[i]*d, A[i]*d + F(t + c[i]*dx.h, y, dx)",
         "y moves by the d of the stage before; it moves by the new d"),
        ("option", "x", 0.25, "x is 1/4; another one is asked for"), ("option",
         "x", 0.1, "x is 1/10; another one is asked for"),
        ("option", "name", "EES27",
         "this is EES27(), not EES(stages=4): the same stability function, another method"),
        *(("option", "stages", s, f"the number of stages is {s}; another one is asked for") for s in (2, 3, 4, 5, 6)),
    ),
    "RevDEQ": (
        ("step", "y = (1 - beta)*y + beta*f(1.0, z)\nz = (1 - beta)*z + beta*f(1.0, y)",
         "y, z = (1 - beta)*y + beta*f(1.0, z), (1 - beta)*z + beta*f(1.0, y)",
         "the second update reads y; it reads y'"),
        ("step", "y = (1 - beta)*y + beta*f", "y = beta*y + (1 - beta)*f", "beta and 1 - beta are swapped in y'"),
        ("output", "ys = z", "ys = y", "y is returned; the solution is z"),
        *(("option", "beta", beta, f"beta is {beta:g}; another one is asked for") for beta in (0.5, 0.75, 0.8, 1.0)),
    ),
    "Picard": (
        ("step", "(1 - damping)*y + damping*f", "damping*y + (1 - damping)*f", "the damping and 1 - damping are swapped"),
        ("step", "(1 - damping)*y + damping*f", "y + damping*f", "f is added to z; z moves towards f"),
        *(("option", "damping", d, f"the damping is {d:g}; another one is asked for") for d in (1.0, 0.5)),
    ),
}

# --------------------------------------------------------------------------------------------------------- going back
LOSS: tuple[Row, ...] = (
    ("weights", "W[n]", "W[n]*(n == N)", "the cotangent of the last output alone enters; every output has one"),
    ("weights", "W[n]", "W[n]*(n < N)", "the cotangent of the last output is missing"),
    ("weights", "W[n]", "W[n]*(n > 0)", "the cotangent of the output at ts[0] is missing"),
    ("weights", "W[n]", "W[N]*(n == N) + (W[n - 1] if n else 0*W[n])",
     "the cotangents of the outputs enter one step late"),
    ("weights", "W[n]", "W[N - n]", "the cotangents of the outputs enter in reverse order"),
    ("weights", "W[n]", "W[n]/(N + 1)", "the gradient is divided by the number of outputs; the loss is a sum"),
    ("weights", "W[n]", "W[n]/W.size", "the gradient is divided by the number of all entries; the loss is a sum"),
    ("weights", "W[n]", "-W[n]", "the gradient has the opposite sign"),
    ("weights", "W[n]", "W[n]*0 + 1", "the weights are ones; the loss is sum_n <weights_n, y_n>"),
    ("result", "aparams = G", "aparams = -G", "dL/dparams has the opposite sign"),
    ("result", "aparams = G", "aparams = 0*G", "dL/dparams is zero"),
    ("back", "G = G + ap", "G = ap", "dL/dparams is overwritten in every step; it is added up"),
    ("drift_vjp", "(1 - u*u)", "1", "the derivative of tanh is missing in the field's vjp"),
    ("drift_vjp", "(1 - u*u)", "(1 - u)", "the derivative of tanh is 1 - u; it is 1 - u^2"),
    ("drift_vjp", " - p['k']*a", "", "the field's vjp lacks - k a"),
    ("drift_vjp", "b1=s*t", "b1=s", "dL/db1 lacks the factor t"),
    ("drift_vjp", "k=-sum(y*a)", "k=sum(y*a)", "dL/dk has the opposite sign"),
)
RECONSTRUCTION: tuple[Row, ...] = (
    ("reconstruct", "before if n > 0 else y0", "before",
     "the first step is pulled back at the reconstructed y_0; y_0 itself is known"),
    ("reconstruct", "phi(t1, -dx, y1)", "phi(t, -dx, y1)", "the step back starts at t; it starts at t + h"),
    ("reconstruct", "before if n > 0 else y0", "y1",
     "the step is pulled back at its end, y_{n+1}; it is pulled back at y_n"),
    ("reconstruct", "range(correct)", "range(0)", "no correction pass is made"),
    ("reconstruct", "range(correct)", "range(1)", "one correction pass too many is made"),
)
BASE: tuple[Row, ...] = (
    ("psi_vjp", "F_vjp(t + c[i]*dx.h", "F_vjp(t",
     "the vjps of the stages are taken at the start of the step; their times are t + c h"),
    ("psi_vjp", "F_vjp(t + c[i]*dx.h, Ys[i]", "F_vjp(t + c[i]*dx.h, y",
     "the vjps of the stages are taken at y; they are taken at the stage's value"),
    ("psi_vjp", "ak[j] + A[i][j]*aY", "ak[j]", "the stages send nothing back to the stages before them"),
)
BACK: dict[str, tuple[Row, ...]] = {
    "RungeKutta": (*BASE, *RECONSTRUCTION),
    "EES": (
        ("phi_vjp", "F_vjp(t + c[i]*dx.h", "F_vjp(t",
         "the vjps of the stages are taken at t; their times are t + c h"),
        ("phi_vjp", "ad = A[i]*ad", "ad = 0*ad", "the cotangent of d is not carried from stage to stage"),
        *RECONSTRUCTION),
    "Coupled": (
        *BASE,
        ("finish", "ay + az", "ay", "dL/dy0 lacks the part that comes through z0 = y0"),
        ("back", "y1, -az)\nay = ay + a\nG = G + ap", "y1, az)\nay = ay - a\nG = G + ap",
         "the minus of Psi_{-h} is put on dL/dy but not on dL/dparams"),
        ("back", "y1, -az)", "y1, az)", "the minus of Psi_{-h} is missing in its pullback"),
        ("back", "ay = ay + a\nG = G + ap\na, ap = psi_vjp(t, dx, z, ay)\naz = az + (1 - lam)*ay + a",
         "ay, old = ay + a, ay\nG = G + ap\na, ap = psi_vjp(t, dx, z, old)\naz = az + (1 - lam)*old + a",
         "the second pullback uses dL/dy from before the first"),
        ("back", "az = az + (1 - lam)*ay + a", "az = az + a", "dL/dz lacks (1 - lam) dL/dy"),
        ("back", "ay = lam*ay", "ay = ay", "dL/dy is not multiplied by lam"),
        ("back", "az = az + (1 - lam)*ay + a\nG = G + ap\nay = lam*ay",
         "ay = lam*ay\naz = az + (1 - lam)*ay + a\nG = G + ap",
         "dL/dz gets (1 - lam) of dL/dy when that has been multiplied by lam already"),
        ("back", "ay = ay + a\nG = G + ap", "ay = ay + a", "dL/dparams has the share of the first base call alone"),
        ("back", "az = az + (1 - lam)*ay + a\nG = G + ap", "az = az + (1 - lam)*ay + a",
         "dL/dparams has the share of the second base call alone"),
        ("back", "psi_vjp(t, dx, z, ay)", "psi_vjp(t, dx, y, ay)",
         "the vjp of Psi_h is taken at y; it is taken at z"),
        ("back", "psi_vjp(t1, -dx, y1, -az)", "psi_vjp(t1, -dx, y, -az)",
         "the vjp of Psi_{-h} is taken at y; it is taken at y'"),
        ("back", "psi_vjp(t1, -dx, y1, -az)", "psi_vjp(t, -dx, y1, -az)",
         "the vjp of Psi_{-h} is taken at t; it is taken at t + h"),
        ("back", "psi_vjp(t1, -dx, y1, -az)", "psi_vjp(t1, dx, y1, -az)", "the vjp of Psi_{-h} is that of Psi_{+h}"),
    ),
    "AsynchronousLeapfrog": (
        ("finish", "ay + a\nG = G + ap", "ay", "the cotangent of v0 = f(t0, y0) is dropped, for y0 and params"),
        ("finish", "ay + a\nG = G + ap", "ay + a", "the cotangent of v0 = f(t0, y0) reaches y0 but not params"),
        ("finish", "ay + a\nG", "ay\nG", "the cotangent of v0 = f(t0, y0) reaches params but not y0"),
        ("back", "2*eta*av)", "av)", "the cotangent of f lacks the factor 2 eta"),
        ("back", "(1 - 2*eta)*av", "av", "the cotangent of v is not multiplied by 1 - 2 eta"),
        ("back", "f_vjp(t + h/2", "f_vjp(t", "the vjp of f is taken at t; it is taken at t + h/2"),
        ("back", "y + h/2*v,", "y,", "the vjp of f is taken at y; it is taken at y + h/2 v"),
        ("back", "av + h/2*ay\na,", "av + h*ay\na,",
         "the cotangent of the second half kick is h dL/dy; it is h/2 dL/dy"),
        ("back", "(1 - 2*eta)*av + h/2*ay", "(1 - 2*eta)*av", "the cotangent of the first half kick is missing"),
        ("back", "av = av + h/2*ay\n", "", "the cotangent of the second half kick is missing"),
    ),
    "ReversibleHeun": (
        ("finish", "ay + az", "ay", "dL/dy0 lacks the part that comes through z0 = y0"),
        ("back", "ay/2 + az", "az", "the field value that two half kicks share gets one of them alone"),
        ("back", "ay = ay + 2*az\n", "", "the 2 y in z' sends nothing back"),
        ("back", "2*az", "az", "the 2 y in z' sends dL/dz back; it sends 2 dL/dz"),
        ("back", "F_vjp(t1, z1, dx, ay/2)", "F_vjp(t, z1, dx, ay/2)",
         "the second vjp is taken at t; it is taken at t + h"),
        ("back", "F_vjp(t, z, dx", "F_vjp(t, y, dx", "the first vjp is taken at y; it is taken at z"),
        ("back", "F_vjp(t1, z1, dx", "F_vjp(t1, y1, dx", "the second vjp is taken at y'; it is taken at z'"),
        ("back", "az = a - az", "az = a + az", "the cotangent of z keeps its sign; it changes in every step"),
        ("back", "az = az + a\nG = G + ap", "az = az + a", "dL/dparams lacks the share of the second field value"),
        ("back", "az = a - az\nG = G + ap", "az = a - az", "dL/dparams lacks the share of the first field value"),
    ),
    "LeapfrogMidpoint": (
        ("finish", "ay + ay_prev + a\nG = G + ap", "ay + ay_prev",
         "the cotangent of f in y_{-1} is dropped, for y0 and params"),
        ("finish", "ay + ay_prev + a\nG = G + ap", "ay + ay_prev + a",
         "the cotangent of f in y_{-1} reaches y0 but not params"),
        ("finish", "ay + ay_prev + a", "ay", "dL/dy0 lacks what comes through y_{-1}"),
        ("back", "(h_before + h)", "(2*h)", "the cotangent of f has 2 h; it has h_before + h"),
        ("back", "f_vjp(t,", "f_vjp(t1,", "the vjp is taken at t + h; it is taken at t"),
    ),
    "SemiImplicitEuler": (
        ("back", "f_vjp(t, q,", "f_vjp(t1, q,", "the vjp is taken at t + h; it is taken at t"),
        ("back", "f_vjp(t, q,", "f_vjp(t, q1,", "the vjp is taken at q'; it is taken at q"),
        ("back", "av = av + h*aq\n", "", "the drift sends nothing back to v"),
        ("back", "aq = aq + a\n", "", "the kick sends nothing back to q"),
    ),
    "VelocityVerlet": (
        ("back", "f_vjp(t1, q1,", "f_vjp(t, q1,", "the vjp of the second kick is taken at t; it is taken at t + h"),
        ("back", "f_vjp(t1, q1,", "f_vjp(t1, q,", "the vjp of the second kick is taken at q; it is taken at q'"),
        ("back", "av = av + h*aq\n", "", "the drift sends nothing back to v"),
        ("back", "av = av + h*aq", "av = av + h/2*aq", "the drift sends back h/2 dL/dq; it sends h dL/dq"),
    ),
    "RevDEQ": (
        ("finish", "ay + az", "az", "dL/dy0 lacks the part that comes through y = y0"),
        ("back", "az = (1 - beta)*az\n", "", "dL/dz is not multiplied by 1 - beta"),
        ("back", "ay = (1 - beta)*ay\n", "", "dL/dy is not multiplied by 1 - beta"),
        ("back", "y1, beta*az", "y1, az", "the cotangent of the second update lacks beta"),
        ("back", "f_vjp(1.0, y1,", "f_vjp(1.0, y,", "the second vjp is taken at y; it is taken at y'"),
    ),
    "Picard": (
        ("back", "(1 - damping)*ay + a", "ay + a", "dL/dz is not multiplied by 1 - damping"),
        ("back", "damping*ay)", "ay)", "the cotangent of f lacks the damping"),
        ("back", "f_vjp(1.0, y,", "f_vjp(1.0, y1,", "the vjp is taken at the new z; it is taken at the old one"),
    ),
}


class Fault(NamedTuple):
    """One change of the reference."""
    says: str
    edits: tuple[tuple[str, str, str], ...] = ()
    options: dict | None = None


def listed(method: dict, kind: str, back: bool = False) -> list[Fault]:
    """The faults that can be planted in this method on a problem of this kind: of the trajectory, or of the gradient."""
    name, driven = family(method), kind in ("diagonal", "general", "additive", "controlled")
    given = (*(() if kind == "fixed-point" else GRID), *(NOISY if driven else ()), *(() if kind == "controlled" else FIELD))
    rows: tuple = (*BACK[name], *LOSS) if back else (*FORWARD[name], *given)
    _, known = texts(method, kind)
    found = []
    for text, old, new, says in rows:
        if text == "option":
            value = method.get(old)
            if value is not None and value != new and (old != "name" or method.get("stages") == 4):
                found.append(Fault(says, (), {old: new}))
        elif old in known.get(text, ""):
            found.append(Fault(says, ((text, old, new),)))
    return found
