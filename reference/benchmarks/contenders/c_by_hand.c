/* Loss and gradient of w1 and w2 by hand: the forward solve and the reverse sweep, a tile of T rows at a time.

   Rows are the slow index, features the fast one, filled up to whole vectors (with zeros: padding stays zero in y, z and in
   every cotangent). So all three products of a layer are the same small kernel with its sums in registers:
       out = x W + b             rows of x,    over k
       gx  = g W^T               rows of g,    over j     (W^T is copied once)
       aW += x^T g               columns of x, over the rows of the tile
   tanh is written out below: expm1 from a polynomial after taking out powers of two, then one division.
   The macros D, H1, H2, T (features, hidden features, rows in a tile) and SINGLE come before this text. */
#if SINGLE
typedef float real;
typedef int bits;
#else
typedef double real;
typedef long long bits;
#endif
#if __AVX512F__
#define BYTES 64
#else
#define BYTES 32
#endif
#define L ((int)(BYTES / sizeof(real)))              /* numbers in a vector */
#define VD ((D + L - 1) / L)                         /* vectors in a row of y */
#define V1 ((H1 + L - 1) / L)                        /* vectors in a hidden row */
#define V2 ((H2 + L - 1) / L)
typedef real vec __attribute__((vector_size(BYTES)));
typedef bits ivec __attribute__((vector_size(BYTES)));
#define INLINE static inline __attribute__((always_inline)) void
#define EACH(i, n) for (int i = 0; i < (n); i++)

static inline vec vtanh(vec x) {
    const real ln2_high = SINGLE ? 0x1.62e4p-1f : 0x1.62e42feep-1, ln2_low = SINGLE ? 0x1.7f7d1cp-20f : 0x1.a39ef35793c76p-33;
    const real shift = SINGLE ? 0x1.8p23f : 0x1.8p52, most = SINGLE ? 20 : 40;
    vec a = x < 0 ? x + x : -(x + x);                            /* -2|x| */
    a = a < -most ? vec{} - most : a;
    vec n = a * (real)1.4426950408889634 + shift;                /* the integer is in the low bits */
    ivec power = ((ivec)n << (SINGLE ? 23 : 52)) + (SINGLE ? 0x3f800000LL : 0x3ff0000000000000LL);
    n -= shift;
    vec r = (a - n * ln2_high) - n * ln2_low, s = r * r, q = s * s, p;
#define PAIR(i, j) ((real)(1 / i) + r * (real)(1 / j))
    if (SINGLE)
        p = (PAIR(2., 6.) + s * PAIR(24., 120.)) + q * PAIR(720., 5040.);
    else
        p = (PAIR(2., 6.) + s * PAIR(24., 120.)) + q * ((PAIR(720., 5040.) + s * PAIR(40320., 362880.))
            + q * (PAIR(3628800., 39916800.) + s * PAIR(479001600., 6227020800.)));
    p = r + s * p;                                               /* e^r - 1 */
    vec e = (vec)power * p + ((vec)power - 1);                   /* e^(-2|x|) - 1 */
    vec t = e / (e + 2);                                         /* -tanh|x| */
    return x < 0 ? t : -t;
}

/* out (R, V) = start + sum over k of x[r, k] w (K, V), in blocks of rows by vectors that fit the registers. start: a row, the
   same for all (rows = 0), or out itself. x[r, k] is at x + r * xr + k * xk. */
INLINE block(int R, int V, int K, const real* x, int xr, int xk, const vec* w, int ldw, const vec* start, int rows, vec* out, int ldo) {
    const int chains = R * V <= 2 ? 4 : R * V <= 4 ? 2 : 1;      /* independent sums, to hide the latency of a product */
    vec acc[4][8][2];
    EACH(r, R) EACH(v, V) {
        acc[0][r][v] = start ? start[r * rows + v] : vec{};
        for (int c = 1; c < chains; c++) acc[c][r][v] = vec{};
    }
    int k = 0;
    for (; k + chains <= K; k += chains)
        EACH(c, chains) EACH(r, R) EACH(v, V) acc[c][r][v] += x[r * xr + (k + c) * xk] * w[(k + c) * ldw + v];
    EACH(c, K % chains) EACH(r, R) EACH(v, V) acc[c][r][v] += x[r * xr + (k + c) * xk] * w[(k + c) * ldw + v];
    EACH(r, R) EACH(v, V) {
        for (int c = 1; c < chains; c++) acc[0][r][v] += acc[c][r][v];
        out[r * ldo + v] = acc[0][r][v];
    }
}

INLINE product(int R, int V, int K, const vec* x, int xr, int xk, const vec* w, const vec* start, int rows, vec* out) {
    const real* s = (const real*)x;
    const int RB = R < 8 ? R : 8, VB = V < 2 ? V : 2;
    for (int v = 0; v + VB <= V; v += VB) {
        int r = 0;
        for (; r + RB <= R; r += RB)
            block(RB, VB, K, s + r * xr, xr, xk, w + v, V, start ? start + r * rows + v : start, rows, out + r * V + v, V);
        if (R % RB) block(R % RB, VB, K, s + r * xr, xr, xk, w + v, V, start ? start + r * rows + v : start, rows, out + r * V + v, V);
    }
    if (V % VB) {
        const int v = V - 1;
        EACH(r, R) block(1, 1, K, s + r * xr, xr, xk, w + v, V, start ? start + r * rows + v : start, rows, out + r * V + v, V);
    }
}

typedef struct { vec W1[D * V1], b1[V1], W2[H1 * V2], b2[V2], W3[H2 * VD], b3[VD]; } Params;
typedef struct { vec W1[H1 * VD], W2[H2 * V1], W3[D * V2]; } Transposed;
typedef struct { vec y[T * VD], a1[T * V1], a2[T * V2], f[T * VD]; } Evaluation;   /* what a pullback needs again */
typedef struct { Params p; Transposed t; Params sums; } Net;

static void value(const Net* net, Evaluation* at) {
    product(T, V1, D, at->y, VD * L, 1, net->p.W1, net->p.b1, 0, at->a1);
    EACH(i, T * V1) at->a1[i] = vtanh(at->a1[i]);
    product(T, V2, H1, at->a1, V1 * L, 1, net->p.W2, net->p.b2, 0, at->a2);
    EACH(i, T * V2) at->a2[i] = vtanh(at->a2[i]);
    product(T, VD, H2, at->a2, V2 * L, 1, net->p.W3, net->p.b3, 0, at->f);
}

/* sums += (df/dW)^T g;  gy = (df/dy)^T g */
static void pull(Net* net, const Evaluation* at, const vec* g, vec* gy) {
    vec g1[T * V1], g2[T * V2];
    Params* sums = &net->sums;
    product(H2, VD, T, at->a2, 1, V2 * L, g, sums->W3, VD, sums->W3);
    EACH(r, T) EACH(v, VD) sums->b3[v] += g[r * VD + v];
    product(T, V2, D, g, VD * L, 1, net->t.W3, 0, 0, g2);
    EACH(i, T * V2) g2[i] -= g2[i] * at->a2[i] * at->a2[i];
    product(H1, V2, T, at->a1, 1, V1 * L, g2, sums->W2, V2, sums->W2);
    EACH(r, T) EACH(v, V2) sums->b2[v] += g2[r * V2 + v];
    product(T, V1, H2, g2, V2 * L, 1, net->t.W2, 0, 0, g1);
    EACH(i, T * V1) g1[i] -= g1[i] * at->a1[i] * at->a1[i];
    product(D, V1, T, at->y, 1, VD * L, g1, sums->W1, V1, sums->W1);
    EACH(r, T) EACH(v, V1) sums->b1[v] += g1[r * V1 + v];
    product(T, VD, H1, g1, V1 * L, 1, net->t.W1, 0, 0, gy);
}

typedef struct { vec y[T * VD], z[T * VD], v[T * VD], gy[T * VD], gz[T * VD], gv[T * VD]; } State;
#define ROWS EACH(i, T * VD)

/* h f(x + s f(x)); two evaluations */
static inline void increment(const Net* net, const vec* x, real s, Evaluation* first, Evaluation* second) {
    ROWS first->y[i] = x[i];
    value(net, first);
    ROWS second->y[i] = x[i] + s * first->f[i];
    value(net, second);
}

/* into += (d increment / dx)^T g */
static inline void pull_increment(Net* net, const vec* g, real h, real s, const Evaluation* first, const Evaluation* second, vec* into) {
    vec a[T * VD], gx[T * VD];
    ROWS a[i] = h * g[i];
    pull(net, second, a, gx);
    ROWS into[i] += gx[i];
    ROWS a[i] = s * gx[i];
    pull(net, first, a, gx);
    ROWS into[i] += gx[i];
}

/* y' = lam y + (1 - lam) z + h f(z + h/2 f(z));  z' = z + h f(y' - h/2 f(y')) */
static void coupled_forward(const Net* net, State* s, long long N, real h, real lam, real rest) {
    Evaluation first, second;
    for (long long n = 0; n < N; n++) {
        increment(net, s->z, h / 2, &first, &second);
        ROWS s->y[i] = lam * s->y[i] + (rest * s->z[i] + h * second.f[i]);
        increment(net, s->y, -h / 2, &first, &second);
        ROWS s->z[i] += h * second.f[i];
    }
}

static void coupled_backward(Net* net, State* s, long long N, real h, real lam, real rest) {
    Evaluation first, second;
    const real inverse = 1 / lam;
    for (long long n = 0; n < N; n++) {
        increment(net, s->y, -h / 2, &first, &second);
        ROWS s->z[i] -= h * second.f[i];
        pull_increment(net, s->gz, h, -h / 2, &first, &second, s->gy);
        increment(net, s->z, h / 2, &first, &second);
        ROWS s->y[i] = (s->y[i] - h * second.f[i] - rest * s->z[i]) * inverse;
        pull_increment(net, s->gy, h, h / 2, &first, &second, s->gz);
        ROWS s->gz[i] += rest * s->gy[i];
        ROWS s->gy[i] *= lam;
    }
}

/* z' = 2y - z + h v;  v' = f(z');  y' = y + h/2 (v + v') */
static void heun_forward(const Net* net, State* s, long long N, real h, Evaluation* at) {
    ROWS at->y[i] = s->z[i];
    value(net, at);
    for (long long n = 0; n < N; n++) {
        ROWS s->v[i] = at->f[i];
        ROWS s->z[i] = at->y[i] = 2 * s->y[i] - s->z[i] + h * s->v[i];
        value(net, at);
        ROWS s->y[i] += h / 2 * (s->v[i] + at->f[i]);
    }
}

static void heun_backward(Net* net, State* s, long long N, real h, Evaluation* at) {
    vec gx[T * VD];
    ROWS s->gv[i] = vec{};
    for (long long n = 0; n < N; n++) {
        ROWS s->gv[i] += h / 2 * s->gy[i];
        pull(net, at, s->gv, gx);
        ROWS s->gz[i] += gx[i];
        ROWS s->gv[i] = h * s->gz[i] + h / 2 * s->gy[i];
        ROWS s->gy[i] += 2 * s->gz[i];
        ROWS s->gz[i] = -s->gz[i];
        ROWS s->v[i] = at->f[i];
        ROWS s->z[i] = at->y[i] = 2 * s->y[i] - s->z[i] - h * s->v[i];
        value(net, at);
        ROWS s->y[i] -= h / 2 * (s->v[i] + at->f[i]);
    }
    pull(net, at, s->gv, gx);
    ROWS s->gz[i] += gx[i];
}

/* rows of n numbers to rows of whole vectors, transposed on the way or not, and back */
INLINE spread(const real* from, int rows, int n, int row, int column, vec* to) {
    const int width = (n + L - 1) / L * L;
    EACH(r, rows) EACH(j, width) ((real*)to)[r * width + j] = j < n ? from[r * row + j * column] : 0;
}

INLINE gather(const vec* from, int rows, int n, real* to) {
    const int width = (n + L - 1) / L * L;
    EACH(r, rows) EACH(j, n) to[r * n + j] = ((const real*)from)[r * width + j];
}

/* Half the mean squared norm of y(T), its gradient to y0 and to the weights; coupled = 0: reversible Heun. */
extern "C" double gradient(const real* y0, const real* W1, const real* b1, const real* W2, const real* b2, const real* W3, const real* b3,
                           real* ay0, real* aW1, real* ab1, real* aW2, real* ab2, real* aW3, real* ab3,
                           long long batch, long long N, double h, double lam, long long coupled) {
    static Net net;                                  /* one call at a time */
    net.sums = Params{};
    spread(W1, D, H1, H1, 1, net.p.W1), spread(b1, 1, H1, H1, 1, net.p.b1), spread(W1, H1, D, 1, H1, net.t.W1);
    spread(W2, H1, H2, H2, 1, net.p.W2), spread(b2, 1, H2, H2, 1, net.p.b2), spread(W2, H2, H1, 1, H2, net.t.W2);
    spread(W3, H2, D, D, 1, net.p.W3), spread(b3, 1, D, D, 1, net.p.b3), spread(W3, D, H2, 1, D, net.t.W3);
    double loss = 0;
    for (long long row = 0; row < batch; row += T) {
        State s;
        Evaluation at;
        spread(y0 + row * D, T, D, D, 1, s.y);
        ROWS s.z[i] = s.y[i], s.gz[i] = vec{};
        if (coupled) coupled_forward(&net, &s, N, (real)h, (real)lam, (real)(1 - lam));
        else heun_forward(&net, &s, N, (real)h, &at);
        ROWS EACH(l, L) loss += (double)s.y[i][l] * s.y[i][l];
        ROWS s.gy[i] = s.y[i] / (real)batch;
        if (coupled) coupled_backward(&net, &s, N, (real)h, (real)lam, (real)(1 - lam));
        else heun_backward(&net, &s, N, (real)h, &at);
        ROWS s.gy[i] += s.gz[i];
        gather(s.gy, T, D, ay0 + row * D);
    }
    gather(net.sums.W1, D, H1, aW1), gather(net.sums.b1, 1, H1, ab1), gather(net.sums.W2, H1, H2, aW2);
    gather(net.sums.b2, 1, H2, ab2), gather(net.sums.W3, H2, D, aW3), gather(net.sums.b3, 1, D, ab3);
    return loss * 0.5 / batch;
}
