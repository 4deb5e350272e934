"""Implementations by strangers: written in other styles than the checker's reference, for faults to be planted in.

    coupled     linear algebra: the pair as one vector, Jacobians by complex step, the adjoint as transposed matrices
    alf         the velocity as an average, a class with an undo, gradients by the field's vjp on the way back
    heun        Kidger's two lines with the field value carried along; noise or none; autograd
    verlet      Stormer's form, positions first; autograd
    ees         the Butcher tableau of EES(2,5;1/10) as printed; autograd
"""
import autograd.numpy as anp
import numpy as np
from autograd import grad


def flat(params):
    return np.concatenate([np.ravel(w) for w in params.values()])


def shaped(vector, like):
    found, at = {}, 0
    for name, w in like.items():
        found[name] = vector[at:at + np.size(w)].reshape(np.shape(w))
        at += np.size(w)
    return found


def weigh(march, problem):
    """The gradient by autograd of a march that returns the list of its outputs."""
    loss = lambda both: sum(anp.sum(y * w) for y, w in zip(march(problem, *both), problem.weights, strict=True))
    ay0, aparams = grad(loss)((problem.y0, problem.params))
    return {"ys": np.stack(march(problem, problem.y0, problem.params)), "ay0": ay0, "aparams": aparams}


# ------------------------------------------------------------------------------------------------------ linear algebra
def jacobians(f, t, y, params):
    """df/dy and df/dparams (a row of all parameters), by complex step."""
    eps, p = 1e-30, flat(params)
    by_y = [f(t, y + 1j * eps * e, params).imag / eps for e in np.eye(len(y))]
    by_p = [f(t, y, shaped(p + 1j * eps * e, params)).imag / eps for e in np.eye(len(p))]
    return np.stack(by_y, 1), np.stack(by_p, 1)


def coupled(problem):
    if problem.method != {"name": "Coupled", "base": "midpoint", "lam": 0.875} or problem.kind != "ode":
        raise NotImplementedError
    f, p, lam, d = problem.field(), problem.params, problem.method["lam"], len(problem.y0)

    def increment(time, length, u):
        return length * f(time + 0.5 * length, u + 0.5 * length * f(time, u, p), p)

    def tangent(time, length, u):
        J1, P1 = jacobians(f, time, u, p)
        J2, P2 = jacobians(f, time + 0.5 * length, u + 0.5 * length * f(time, u, p), p)
        return length * J2 @ (np.eye(d) + 0.5 * length * J1), length * (P2 + 0.5 * length * J2 @ P1)

    x = np.concatenate([problem.y0, problem.y0])
    path = [x]
    for n in range(len(problem.ts) - 1):
        begin, length = problem.ts[n], problem.ts[n + 1] - problem.ts[n]
        end = begin + length
        first, second = path[-1][:d], path[-1][d:]
        blend = second + lam * (first - second)
        first = blend + increment(begin, length, second)
        second = second - increment(end, -length, first)
        path.append(np.concatenate([first, second]))
    adjoint, total = np.concatenate([problem.weights[-1], 0 * problem.y0]), np.zeros(flat(p).size)
    for n in reversed(range(len(problem.ts) - 1)):
        begin, length = problem.ts[n], problem.ts[n + 1] - problem.ts[n]
        end = begin + length
        upper, lower = adjoint[:d], adjoint[d:]
        D, P = tangent(end, -length, path[n + 1][:d])
        total = total - P.T @ lower
        upper = upper - D.T @ lower
        D, P = tangent(begin, length, path[n][d:])
        total = total + P.T @ upper
        lower = lower + (1 - lam) * upper + D.T @ upper
        upper = lam * upper + problem.weights[n]
        adjoint = np.concatenate([upper, lower])
    return {"ys": np.stack(path)[:, :d], "states": [{"y": x[:d], "z": x[d:]} for x in path],
            "ay0": adjoint[:d] + adjoint[d:], "aparams": shaped(total, p)}


# --------------------------------------------------------------------------------------------------- object orientation
class Particle:
    def __init__(self, problem):
        self.problem, self.field, self.p = problem, problem.field(), problem.params
        self.relax = 2 * problem.method["eta"]
        self.where = problem.y0.copy()
        self.speed = self.field(problem.ts[0], self.where, self.p)

    def drift(self, dt):
        self.where = self.where + dt * self.speed

    def go(self, n):
        t, dt = self.problem.ts[n], self.problem.ts[n + 1] - self.problem.ts[n]
        self.drift(dt / 2)
        self.speed = self.speed + self.relax * (self.field(t + dt / 2, self.where, self.p) - self.speed)
        self.drift(dt / 2)

    def come_back(self, n, aw, av, ap):
        t, dt = self.problem.ts[n], self.problem.ts[n + 1] - self.problem.ts[n]
        self.drift(-dt / 2)
        value = self.field(t + dt / 2, self.where, self.p)
        av = av + dt / 2 * aw
        aw, ap = self.pull(t + dt / 2, self.relax * av, aw, ap)
        av = av - self.relax * av
        self.speed = (self.speed - self.relax * value) / (1 - self.relax)
        self.drift(-dt / 2)
        return aw, av + dt / 2 * aw, ap

    def pull(self, t, a, aw, ap):
        p = self.p
        hidden = np.tanh(self.where @ p["W1"] + t * p["b1"])
        slope = (1 - hidden ** 2) * (a @ p["W2"].T)
        parts = {"W1": np.einsum("i,j->ij", self.where, slope), "b1": t * slope, "W2": np.einsum("i,j->ij", hidden, a), "b2": a,
                 "k": -np.dot(self.where, a)}
        return aw + slope @ p["W1"].T - p["k"] * a, {name: ap[name] + part for name, part in parts.items()}


def alf(problem):
    if problem.method["name"] != "AsynchronousLeapfrog":
        raise NotImplementedError
    particle, steps = Particle(problem), len(problem.ts) - 1
    seen = [particle.where]
    for n in range(steps):
        particle.go(n)
        seen.append(particle.where)
    aw, av, ap = problem.weights[steps], 0 * problem.y0, {name: 0 * w for name, w in problem.params.items()}
    for n in range(steps - 1, -1, -1):
        aw, av, ap = particle.come_back(n, aw, av, ap)
        aw = aw + problem.weights[n]
    aw, ap = particle.pull(problem.ts[0], av, aw, ap)
    return {"ys": seen, "ay0": aw, "aparams": ap}


# ------------------------------------------------------------------------------------------------------------- autograd
def heun_march(problem, y0, params):
    f, g = problem.field(anp), problem.diffusion(anp)
    X = Y = y0
    out, A, B = [X], f(problem.ts[0], Y, params), 0.0 if g is None else g(problem.ts[0], Y, params)
    for n in range(1, len(problem.ts)):
        dt = problem.ts[n] - problem.ts[n - 1]
        dW = 0.0 if g is None else problem.dWs[n - 1]
        Y = 2 * X - Y + A * dt + B * dW
        C, D = f(problem.ts[n], Y, params), 0.0 if g is None else g(problem.ts[n], Y, params)
        X = X + 0.5 * (A + C) * dt + 0.5 * (B + D) * dW
        A, B = C, D
        out.append(X)
    return out


def heun(problem):
    if problem.method["name"] != "ReversibleHeun" or problem.kind not in ("ode", "diagonal"):
        raise NotImplementedError
    return weigh(heun_march, problem)


def verlet_march(problem, y0, params):
    force = problem.field(anp)
    place, speed = y0[0], y0[1]
    out, old = [anp.stack([place, speed])], force(problem.ts[0], place, params)
    for n in range(1, len(problem.ts)):
        dt = problem.ts[n] - problem.ts[n - 1]
        place = place + speed * dt + 0.5 * old * dt ** 2
        new = force(problem.ts[n], place, params)
        speed = speed + 0.5 * (old + new) * dt
        old = new
        out.append(anp.stack([place, speed]))
    return out


def verlet(problem):
    if problem.method["name"] != "VelocityVerlet":
        raise NotImplementedError
    return weigh(verlet_march, problem)


def ees_march(problem, y0, params):
    f, out = problem.field(anp), [y0]
    for n in range(1, len(problem.ts)):
        t, dt, y = problem.ts[n - 1], problem.ts[n] - problem.ts[n - 1], out[-1]
        k1 = f(t, y, params)
        k2 = f(t + dt / 3, y + dt * k1 / 3, params)
        k3 = f(t + 5 * dt / 6, y + dt * (-5 * k1 + 45 * k2) / 48, params)
        out.append(y + dt * (k1 / 10 + k2 / 2 + 2 * k3 / 5))
    return out


def ees(problem):
    if problem.method != {"name": "EES25", "x": 0.1} or problem.kind != "ode" or problem.gradient != "exact":
        raise NotImplementedError
    return weigh(ees_march, problem)
