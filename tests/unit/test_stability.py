"""Linear stability computed from the word of a method, against closed forms worked out by hand.

Rounding: M is a product of a few numbers near 1, so closed forms hold to about 1e-14; an edge is the zero of rho - 1, whose
slope is about 1 on the real axis, so its position is as good as rho.
"""
from math import cos, pi, sin, sqrt

import numpy as np
import pytest
from numpy.testing import assert_allclose

import revode as rv
from revode.__main__ import main
from revode.analysis import amplification, determinant, intervals, limit, region, spectral_radius
from revode.methods import TABLEAUX, Shear

BASES = ("euler", "midpoint", "bosh3", "rk4", "dopri5", "tsit5")
rng = np.random.default_rng(1)
Z = rng.uniform(-4, 2, 400) + 1j * rng.uniform(-4, 4, 400)


def R(base, z):
    """The stability function 1 + z b (I - z A)^-1 1, from the tableau, by linear algebra."""
    tab = TABLEAUX[base]
    s = len(tab.b)
    A = np.zeros((s, s))
    for i, row in enumerate(tab.a):
        A[i, :len(row)] = [float(a) for a in row]
    b = np.array([float(x) for x in tab.b])
    z = np.asarray(z, dtype=complex)
    stages = np.linalg.solve(np.eye(s) - z[..., None, None] * A, np.ones((*z.shape, s, 1)))[..., 0]
    return 1 + z * (stages @ b)


def sizes(base, z):
    """The same with absolute values throughout: what the rounding of R is relative to (large for tsit5's coefficients)."""
    tab = TABLEAUX[base]
    K = []
    for row in tab.a:
        K.append(abs(z) * (1 + sum((abs(float(a)) * k for a, k in zip(row, K, strict=False)), 0 * abs(z))))
    return 1 + sum(abs(float(b)) * k for b, k in zip(tab.b, K, strict=True))


EPS = np.finfo(float).eps


@pytest.mark.parametrize("base", TABLEAUX)
def test_one_step_of_a_runge_kutta_method_is_its_stability_function(base):
    M = amplification(rv.RungeKutta(base), Z)
    assert M.shape == (400, 1, 1)
    # At most seven stages of up to seven terms each, two roundings a term, here and in R.
    assert np.all(abs(M[:, 0, 0] - R(base, Z)) <= 200 * EPS * sizes(base, Z))


@pytest.mark.parametrize("base", TABLEAUX)
@pytest.mark.parametrize("lam", [0.5, 0.8, 0.999, 1.0])
def test_coupled_matrix_determinant_and_trace(base, lam):
    method = rv.Coupled(base, lam)
    P, Q = R(base, Z) - 1, R(base, -Z) - 1
    expected = np.moveaxis(np.array([[lam + 0 * P, 1 - lam + P], [-lam * Q, 1 - Q * (1 - lam + P)]]), (0, 1), (-2, -1))
    # Entries are at most S^2, and the determinant a difference of products of them of at most S^3.
    S = sizes(base, Z)
    M = amplification(method, Z)
    assert np.all(abs(M - expected) <= 400 * EPS * (S**2)[:, None, None])
    assert np.all(abs(determinant(method, Z) - lam) <= 800 * EPS * S**3)
    trace = np.trace(M, axis1=-2, axis2=-1)
    assert np.all(abs(trace - (1 + lam - (1 - lam) * Q - P * Q)) <= 800 * EPS * S**2)


@pytest.mark.parametrize("base", BASES)
def test_stable_where_the_criterion_of_schur_says_so(base):
    lam = 0.8
    # Half of the points near the imaginary axis, where the region is.
    z = np.concatenate([Z, 0.1 * Z.real + 1j * Z.imag / 2])
    P, Q = R(base, z) - 1, R(base, -z) - 1
    T = 1 + lam - (1 - lam) * Q - P * Q
    room = 1 - lam**2 - abs(T - lam * np.conj(T))
    clear = abs(room) > 1e-9
    stable = spectral_radius(rv.Coupled(base, lam), z) < 1
    assert np.array_equal(stable[clear], room[clear] > 0)
    assert clear.sum() > 790 and stable.sum() > 20 and (~stable).sum() > 400


REAL_AXIS = {       # METHODS section 2; eight digits and more
    "euler": (".2000000000", ".0100000000", ".0010000000"),
    "midpoint": (".2254033308", ".0100505063", ".0010005005"),
    "bosh3": (".2230202515", ".0100503354", ".0010005003"),
    "rk4": (".2231491074", ".0100503359", ".0010005003"),
    "dopri5": (".2231436008", ".0100503359", ".0010005003"),
    "tsit5": (".2231435646", ".0100503359", ".0010005003"),
}


@pytest.mark.parametrize("base", BASES)
def test_real_axis_table(base):
    for lam, expected in zip((0.8, 0.99, 0.999), REAL_AXIS[base], strict=True):
        # Half a unit of the last digit that is printed.
        assert abs(limit(rv.Coupled(base, lam)) - float(expected)) <= 0.5001e-10, (lam, expected)


@pytest.mark.parametrize("base, own", [("euler", 2), ("midpoint", 2), ("bosh3", 2.513), ("rk4", 2.785), ("dopri5", 3.307),
                                       ("tsit5", 3.507)])
def test_real_axis_of_the_bases_alone(base, own):
    assert round(limit(rv.RungeKutta(base)), 3) == own


@pytest.mark.parametrize("lam", [0.6, 0.8, 0.99, 0.999])
def test_exact_limits_of_euler_and_midpoint(lam):
    assert_allclose(limit(rv.Coupled("euler", lam)), 1 - lam, rtol=1e-11)
    assert_allclose(limit(rv.Coupled("midpoint", lam)), 1 - sqrt(2 * lam - 1), rtol=1e-11)
    # On the imaginary axis |T - lam conj T|^2 < (1 - lam^2)^2 is a polynomial in u = y^2: with s = 1 + lam,
    #   Euler      u < s (2 - s) = 1 - lam^2
    #   midpoint   (s/2 + u/4)^2 < s/2
    assert_allclose(limit(rv.Coupled("euler", lam), 1j), sqrt(1 - lam**2), rtol=1e-9)
    half = (1 + lam) / 2
    u = 4 * (sqrt(half) - half)
    # Next to the edge rho - 1 is about u^2 (u - u_edge) / 32, and it is rounded by 1e-15: a gentle crossing.
    assert_allclose(limit(rv.Coupled("midpoint", lam), 1j), sqrt(u), rtol=16e-15 / u**3)


@pytest.mark.parametrize("base, imaginary", [("euler", 2.0), ("midpoint", sqrt(2 * (sqrt(5) - 1)))])
def test_without_coupling_nothing_decays(base, imaginary):
    method = rv.Coupled(base, 1.0)
    assert limit(method) == 0.0
    assert not region(method, np.linspace(-2, 1, 31), np.linspace(-2, 2, 41)).any()
    # det = 1 and T = 2 - |P|^2 is real: both roots on the unit circle as long as |R(iy) - 1| <= 2. They meet at the edge,
    # where half of the digits are lost.
    assert_allclose(limit(method, 1j), imaginary, rtol=1e-6)


@pytest.mark.parametrize("base, windows", [("euler", 0), ("midpoint", 1), ("bosh3", 0), ("rk4", 1), ("dopri5", 1),
                                           ("tsit5", 1)])
def test_further_windows_on_the_real_axis(base, windows):
    lam = 0.8
    first, *further = intervals(rv.Coupled(base, lam))
    assert first[0] == 0.0 and len(further) == windows
    for edge in [x for pair in [first[1:], *further] for x in pair]:
        # Each edge is where 0 < Q (R - lam) < 2 (1 + lam) begins or ends, and it changes sides there.
        def inside(x):
            product = ((R(base, x) - 1) * (R(base, -x) - lam)).real
            return 0 < product < 2 * (1 + lam)
        assert inside(edge - 1e-9) != inside(edge + 1e-9)


@pytest.mark.parametrize("method", [rv.AsynchronousLeapfrog(), rv.ReversibleHeun(), rv.LeapfrogMidpoint()], ids=repr)
def test_leapfrogs_are_nowhere_stable_and_marginal_on_the_imaginary_axis(method):
    assert not region(method, np.linspace(-3, 1, 61), np.linspace(-2, 2, 61)).any()
    assert limit(method) == 0.0
    assert_allclose(abs(determinant(method, Z)), 1.0, rtol=1e-12)
    # All three have roots of mu^2 - 2 z mu - 1 = 0 (for ALF and reversible Heun, of a step of half the length).
    assert_allclose(limit(method, 1j), 1.0, rtol=1e-6)       # the roots meet there
    y = np.linspace(0.01, 0.99, 50)
    assert_allclose(spectral_radius(method, 1j * y), 1.0, rtol=1e-13)
    assert np.all(spectral_radius(method, 1j * np.array([1.001, 1.25])) > 1.04)


def test_leapfrog_roots_are_those_of_its_recurrence():
    # y_{n+1} = y_{n-1} + 2 z y_n
    roots = Z + np.sqrt(Z**2 + 1), Z - np.sqrt(Z**2 + 1)
    assert_allclose(spectral_radius(rv.LeapfrogMidpoint(), Z), np.maximum(*abs(np.array(roots))), rtol=1e-12)


@pytest.mark.parametrize("eta", [0.6, 0.9])
def test_damped_leapfrog(eta):
    method = rv.AsynchronousLeapfrog(eta)
    # det = 1 - 2 eta and trace = 2 - 2 eta + 2 eta z; the root -1 is reached at z = -2 (1 - eta) / eta.
    assert_allclose(determinant(method, Z), 1 - 2 * eta, rtol=0, atol=1e-13)
    assert_allclose(limit(method), 2 * (1 - eta) / eta, rtol=1e-12)


@pytest.mark.parametrize("method", [rv.VelocityVerlet(), rv.SemiImplicitEuler()], ids=repr)
def test_split_methods_oscillate_up_to_h_omega_of_two(method):
    # q'' = -w^2 q: trace 2 - (h w)^2, det 1, and z = -(h w)^2.
    M = amplification(method, -0.7)
    assert_allclose([np.trace(M), np.linalg.det(M)], [2 - 0.7, 1.0], rtol=1e-14)
    assert_allclose(limit(method), 4.0, rtol=1e-6)


def test_composition_multiplies_the_matrices_of_its_substeps():
    g1 = 1 / (2 - 2 ** (1 / 3))
    outer, inner = (amplification(rv.ReversibleHeun(), g * Z) for g in (g1, 1 - 2 * g1))
    M = amplification(rv.Composition(rv.ReversibleHeun()), Z)
    scale = np.max(abs(outer @ inner @ outer))
    assert_allclose(M, outer @ inner @ outer, rtol=0, atol=1e-14 * scale)


def test_effectively_symmetric_methods():
    r = sqrt(2)
    for x in (0.1, 0.25):
        assert_allclose(amplification(rv.EES25(x), Z)[:, 0, 0], 1 + Z + Z**2 / 2 + Z**3 / 8, rtol=0, atol=1e-13)
    R27 = 1 + Z + Z**2 / 2 + (2 - r) * Z**3 / 4 + (3 - 2 * r) * Z**4 / 8
    assert_allclose(amplification(rv.EES27(), Z)[:, 0, 0], R27, rtol=0, atol=1e-13)
    assert round(limit(rv.EES25()), 3) == 3.087 and round(limit(rv.EES27()), 3) == 3.916
    for s in (3, 4, 6, 9):
        y = np.linspace(0.1, 3, 30)
        assert_allclose(spectral_radius(rv.EES(s), 1j * y) ** 2, 1 + (y * sin(pi / (2 * s))) ** (2 * s), rtol=1e-12)
        assert limit(rv.EES(s), 1j) == 0.0, s


@pytest.mark.parametrize("base, imaginary", [("euler", 0), ("midpoint", 0), ("bosh3", sqrt(3)), ("rk4", sqrt(8))])
def test_imaginary_axis_of_the_bases(base, imaginary):
    assert_allclose(limit(rv.RungeKutta(base), 1j), imaginary, rtol=1e-9)


def test_any_word_a_user_writes():
    lam = 0.9
    mine = rv.shears(lambda t0, t1, h: [
        Shear("y", ("z",), lambda F, z: F(t0, z, h), scale=lam, about="z"),
        Shear("z", ("y",), lambda F, y: F(t1, y, h))])
    assert_allclose(amplification(mine, Z), amplification(rv.Coupled("euler", lam), Z), rtol=1e-14, atol=1e-14)


def test_shapes_and_rotation():
    M = amplification(rv.Coupled("rk4"), np.zeros((3, 5)))
    assert M.shape == (3, 5, 2, 2)
    # At z = 0: y' = lam y + (1 - lam) z, z' = z.
    assert_allclose(M[1, 2], [[0.999, 0.001], [0, 1]], rtol=1e-15)
    # The matrix at the conjugate is the conjugate matrix, so a region is symmetric about the real axis.
    y = np.linspace(-3, 3, 31)
    inside = region(rv.Coupled("rk4", 0.8), np.linspace(-3, 1, 41), y)
    assert inside.shape == (31, 41) and inside.any() and np.array_equal(inside, inside[::-1])
    # A ray in between: the circle |1 + z| = 1 of Euler's method is left at 2 cos(angle).
    assert_allclose(limit(rv.RungeKutta("euler"), np.exp(1j * (pi - 0.7))), 2 * cos(0.7), rtol=1e-12)


def test_command_writes_its_table_and_figures(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["stability", "--plot", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json"), "--points", "30"]) == 0
    printed = capsys.readouterr().out
    assert "0.2254033308" in printed and "3.9155685647" in printed
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert '"windows"' in (tmp_path / "a.json").read_text()
    with pytest.raises(SystemExit):
        main(["stability", "--lam", "1.5"])
    assert "not a coupling" in capsys.readouterr().err
