"""Every reversible method as a plain loop, one line an equation.

Conventions
    field(t, y, params)          the drift f; y is one array (or number), params is handed through
    acceleration(t, q, params)   for the split methods: q' = v, v' = a(t, q)
    ts                           N + 1 times, any spacing, forwards or backwards; h = ts[n+1] - ts[n]
    X_step(..., t, t1, h, state) one step from t; its end IS t1 (= ts[n+1]), stages lie at t + c h
    X_back(..., t, t1, h, state) the step undone, by the paper's own backward formula
    X_states(...)                [state at ts[0], ..., state at ts[N]], a state being a tuple
    X(...)                       the list of y only ((q, v) pairs for split methods)

Only + - * / are used, so floats, complex, Fraction, mpmath numbers and autograd boxes all pass through
unchanged. Constants such as lam and eta enter as they are given: pass mpf for mpmath work, Fraction for exact
work.
"""


def forward(step, state, ts) -> list:
    """All N + 1 states of step(t, t1, h, state) along ts."""
    states = [state]
    for n in range(len(ts) - 1):
        state = step(ts[n], ts[n + 1], ts[n + 1] - ts[n], state)
        states.append(state)
    return states


def backward(back, state, ts) -> list:
    """All N + 1 states, in forward order, reconstructed from the last one by back(t, t1, h, state)."""
    states = [state]
    for n in reversed(range(len(ts) - 1)):
        state = back(ts[n], ts[n + 1], ts[n + 1] - ts[n], state)
        states.insert(0, state)
    return states


# ------------------------------------------------------------------------------------------- Runge-Kutta
# k_i = f(t + c_i h, y + h sum_j a_ij k_j),   Psi_h(t, y) = h sum_i b_i k_i

def Psi(field, t, h, y, params, tableau):
    """The increment of one explicit Runge-Kutta step that starts at t."""
    A, b, c = tableau.A, tableau.b, tableau.c
    k = []
    for i in range(len(b)):
        Y = y
        for j in range(i):
            Y = Y + (h * A[i][j]) * k[j]
        k.append(field(t + c[i] * h, Y, params))
    increment = (h * b[0]) * k[0]
    for i in range(1, len(b)):
        increment = increment + (h * b[i]) * k[i]
    return increment


def runge_kutta(field, y0, ts, params, tableau) -> list:
    """y_{n+1} = y_n + Psi_h(t_n, y_n)."""
    return forward(lambda t, t1, h, y: y + Psi(field, t, h, y, params, tableau), y0, ts)


# ------------------------------------------------------- Coupled: McCallum & Foster 2024, arXiv 2410.11648
# y_{n+1} = lam y_n + (1 - lam) z_n + Psi_h(t_n, z_n),   z_{n+1} = z_n - Psi_{-h}(t_{n+1}, y_{n+1}),   z_0 =
# y_0

def coupled_step(field, params, tableau, lam, t, t1, h, state):
    y, z = state
    y = lam * y + (1 - lam) * z + Psi(field, t, h, z, params, tableau)
    z = z - Psi(field, t1, -h, y, params, tableau)
    return y, z


def coupled_back(field, params, tableau, lam, t, t1, h, state):
    y, z = state
    z = z + Psi(field, t1, -h, y, params, tableau)
    y = (y - (1 - lam) * z - Psi(field, t, h, z, params, tableau)) / lam
    return y, z


def coupled_states(field, y0, ts, params, tableau, lam) -> list:
    return forward(lambda *at: coupled_step(field, params, tableau, lam, *at), (y0, y0), ts)


def coupled(field, y0, ts, params, tableau, lam) -> list:
    return [y for y, z in coupled_states(field, y0, ts, params, tableau, lam)]


# ------------ Asynchronous leapfrog: Mutze 2013, arXiv 1311.6602; Zhuang et al. 2021 (MALI), arXiv 2102.04668
# w = y_n + h/2 v_n,   u = f(t_n + h/2, w),   v_{n+1} = v_n + 2 eta (u - v_n),   y_{n+1} = w + h/2 v_{n+1}

def alf_step(field, params, eta, t, t1, h, state):
    y, v = state
    w = y + h / 2 * v
    u = field(t + h / 2, w, params)
    v = v + 2 * eta * (u - v)
    y = w + h / 2 * v
    return y, v


def alf_back(field, params, eta, t, t1, h, state):
    y, v = state
    w = y - h / 2 * v
    u = field(t + h / 2, w, params)
    v = (v - 2 * eta * u) / (1 - 2 * eta)
    y = w - h / 2 * v
    return y, v


def alf_states(field, y0, ts, params, eta=1) -> list:
    v0 = field(ts[0], y0, params)
    return forward(lambda *at: alf_step(field, params, eta, *at), (y0, v0), ts)


def alf(field, y0, ts, params, eta=1) -> list:
    return [y for y, v in alf_states(field, y0, ts, params, eta)]


# ------------------------ Reversible Heun: Kidger, Foster, Li & Lyons 2021, arXiv 2105.13493, algorithms 1, 2
# z_{n+1} = 2 y_n - z_n + h f(t_n, z_n),   z_0 = y_0
# y_{n+1} = y_n + h/2 (f(t_n, z_n) + f(t_{n+1}, z_{n+1}))

def reversible_heun_step(field, params, t, t1, h, state):
    y, z = state
    z1 = 2 * y - z + h * field(t, z, params)
    y1 = y + h / 2 * (field(t, z, params) + field(t1, z1, params))
    return y1, z1


def reversible_heun_back(field, params, t, t1, h, state):
    y1, z1 = state
    z = 2 * y1 - z1 - h * field(t1, z1, params)
    y = y1 - h / 2 * (field(t, z, params) + field(t1, z1, params))
    return y, z


def reversible_heun_states(field, y0, ts, params) -> list:
    return forward(lambda *at: reversible_heun_step(field, params, *at), (y0, y0), ts)


def reversible_heun(field, y0, ts, params) -> list:
    return [y for y, z in reversible_heun_states(field, y0, ts, params)]


# ----------------------------------------------------------------- Leapfrog-midpoint, two steps: HNW I, III.1
# y_{n+1} = y_{n-1} + (h_{n-1} + h_n) f(t_n, y_n),   y_{-1} = y_0 - h_0 f(t_0, y_0),   h_{-1} = h_0

def leapfrog_midpoint(field, y0, ts, params) -> list:
    h0 = ts[1] - ts[0]
    ys = [y0 - h0 * field(ts[0], y0, params), y0]
    steps = [h0] + [ts[n + 1] - ts[n] for n in range(len(ts) - 1)]
    for n in range(len(ts) - 1):                             # ys[n + 1] is y_n, steps[n + 1] is h_n
        ys.append(ys[n] + (steps[n] + steps[n + 1]) * field(ts[n], ys[n + 1], params))
    return ys[1:]


def leapfrog_midpoint_back(field, y_before, y_last, ts, params) -> list:
    """[y_{-1}, y_0, ..., y_N] from y_{N-1} and y_N alone: y_{n-1} = y_{n+1} - (h_{n-1} + h_n) f(t_n, y_n)."""
    steps = [ts[1] - ts[0]] + [ts[n + 1] - ts[n] for n in range(len(ts) - 1)]
    ys = [y_before, y_last]
    for n in reversed(range(len(ts) - 1)):
        ys.insert(0, ys[1] - (steps[n] + steps[n + 1]) * field(ts[n], ys[0], params))
    return ys


# ---------------------- Split methods q' = v, v' = a(t, q): Hairer, Lubich & Wanner, Geometric Num. Int., I.1
# semi-implicit Euler   v_{n+1} = v_n + h a(t_n, q_n),   q_{n+1} = q_n + h v_{n+1}

def semi_implicit_euler_step(acceleration, params, t, t1, h, state):
    q, v = state
    v = v + h * acceleration(t, q, params)
    q = q + h * v
    return q, v


def semi_implicit_euler_back(acceleration, params, t, t1, h, state):
    q, v = state
    q = q - h * v
    v = v - h * acceleration(t, q, params)
    return q, v


def semi_implicit_euler(acceleration, q0, v0, ts, params) -> list:
    return forward(lambda *at: semi_implicit_euler_step(acceleration, params, *at), (q0, v0), ts)


# velocity Verlet   q_{n+1} = q_n + h v_n + h^2/2 a(t_n, q_n)
#                   v_{n+1} = v_n + h/2 (a(t_n, q_n) + a(t_{n+1}, q_{n+1}))

def velocity_verlet_step(acceleration, params, t, t1, h, state):
    q, v = state
    q1 = q + h * v + h * h / 2 * acceleration(t, q, params)
    v1 = v + h / 2 * (acceleration(t, q, params) + acceleration(t1, q1, params))
    return q1, v1


def velocity_verlet_back(acceleration, params, t, t1, h, state):
    q1, v1 = state
    q = q1 - h * v1 + h * h / 2 * acceleration(t1, q1, params)
    v = v1 - h / 2 * (acceleration(t, q, params) + acceleration(t1, q1, params))
    return q, v


def velocity_verlet(acceleration, q0, v0, ts, params) -> list:
    return forward(lambda *at: velocity_verlet_step(acceleration, params, *at), (q0, v0), ts)


# ----------------------------------------------- Symmetric composition: Yoshida, Phys. Lett. A 150 (1990) 262
# base steps g1 h, g2 h, g1 h with g1 = 1 / (2 - 2^(1/3)), g2 = 1 - 2 g1 < 0

def yoshida4_step(one_step, g1, t, t1, h, state):
    """one_step(t, t1, h, state) of a symmetric second-order method, three times."""
    g2 = 1 - 2 * g1
    ta = t + g1 * h
    tb = t + (g1 + g2) * h
    state = one_step(t, ta, g1 * h, state)
    state = one_step(ta, tb, g2 * h, state)
    state = one_step(tb, t1, g1 * h, state)
    return state


def yoshida4_back(one_back, g1, t, t1, h, state):
    """one_back(t, t1, h, state) undoes the base step; the three are undone last first."""
    g2 = 1 - 2 * g1
    ta = t + g1 * h
    tb = t + (g1 + g2) * h
    state = one_back(tb, t1, g1 * h, state)
    state = one_back(ta, tb, g2 * h, state)
    state = one_back(t, ta, g1 * h, state)
    return state


def yoshida_g1(number=float):
    """g1 in the precision of `number` (float or mpmath.mpf)."""
    return 1 / (2 - number(2) ** (number(1) / 3))


G1 = yoshida_g1()


def yoshida4(one_step, state0, ts, g1=G1) -> list:
    """Fourth order from any symmetric second-order one_step(t, t1, h, state); returns all states."""
    return forward(lambda *at: yoshida4_step(one_step, g1, *at), state0, ts)


def yoshida4_alf_states(field, y0, ts, params, g1=G1) -> list:
    v0 = field(ts[0], y0, params)
    return yoshida4(lambda *at: alf_step(field, params, 1, *at), (y0, v0), ts, g1)


def yoshida4_reversible_heun_states(field, y0, ts, params, g1=G1) -> list:
    return yoshida4(lambda *at: reversible_heun_step(field, params, *at), (y0, y0), ts, g1)


def yoshida4_verlet(acceleration, q0, v0, ts, params, g1=G1) -> list:
    return yoshida4(lambda *at: velocity_verlet_step(acceleration, params, *at), (q0, v0), ts, g1)
