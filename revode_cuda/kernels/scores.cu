// What the watch makes of a solve and its sweep (revode/watch: Ahead, Back), by trajectory, and of LANES of these the largest.
//
//     x        the buffer that holds everything (course.py). Entry f of part p of trajectory r at a look is at
//              x[base + tile * stride + part[p] + look + f * lane + l],   r = tile * T + l, in each direction
//     window   `width` neighbouring looks, which weights[part, width] make a gap of, a state, what a step did to the gap, ...
//     s, A     of an entry: |y| so far, fading, in the scale of a tolerance where there is one; the largest |a y|
//
//     GAP = |gap| / s      W_P = |a (yhat - y)| / A      W_0 = |yhat_0 - y_0| / s_0      E = sum |a r| / A      W_Y = |yhat - y| / |y|
//     S_P = sum |b e| / sum |a dy|      S_Y = sum of |b e| / |a y|      S_D = sum of |b e| / |a dy| * |da| / |a|
//
// Where the watch takes the largest entry of all trajectories as a size, here it is that of one: what is divided by it comes out as
// large, or larger. A NaN wins everywhere.
//
// launch: grid = tiles of LANES trajectories, any block. out: a row of one number a tile for each of `count`.

#define LANES 32
#define MOST 53          // numbers: those below, and two for each of 17 grid points at which states are compared

enum { LARGEST, Y, GAP, S_P, S_Y, S_D, W_P, W_Y, W_0, E, DEFECT, A_0, ASIDE, NEAR, LEFT, TRIPS };       // NEAR and LEFT are sums

// Where things are: numbers, and where in `at` and `of` lists begin. -1: there is none.
struct Where { long long rows, features, parts, output, count, pairs, N, apart, scratch, initial,
    ahead, ahead_T, ahead_lane, ahead_stride, ahead_parts, ahead_looks, looks, look, ahead_windows, ahead_width, ahead_at,
    ahead_weights, rise, steps, counts, scale,
    back, back_T, back_lane, back_stride, back_parts, back_windows, back_width, back_at, back_weights, less,
    memory, memory_stride, came, weighed, largest, compared, compared_at, others, others_at; };

FUNCTION real larger(real a, real b) { return a > b || a != a ? a : b; }

// What these weights make of a window.
static __device__ __noinline__ real mixed(const real* x, const long long* part, long long parts, const long long* look,
                                          long long windows, long long width, const real* weights) {
    real sum = 0;
    #pragma unroll 1
    for (long long p = 0; p < parts; p++)
        #pragma unroll 1
        for (long long j = 0; j < width; j++)
            if (weights[p * width + j] != 0) sum = sum + weights[p * width + j] * x[part[p] + look[j * windows]];
    return fabs(sum);
}

struct Trajectory {
    const Where& n; const long long* at; const real* of; real* x; real eps, tiny; long long r; const real *ahead, *back, *memory;

    // row `row` of the weights, on the way there and on the way back
    FUNCTION real there(int row, long long w, long long k) const {
        return mixed(ahead + k, at + n.ahead_parts, n.parts, at + n.ahead_at + w, n.ahead_windows, n.ahead_width,
                     of + n.ahead_weights + row * n.parts * n.ahead_width);
    }
    FUNCTION real here(int row, long long w, long long k) const {
        return mixed(back + k, at + n.back_parts, 2 * n.parts, at + n.back_at + w, n.back_windows, n.back_width,
                     of + n.back_weights + row * 2 * n.parts * n.back_width);
    }
    FUNCTION real& size(long long f) const { return x[n.scratch + f * n.rows + r]; }             // the largest |y| of an entry
    FUNCTION real& most(long long w) const { return size(n.features + w); }                        // and the largest s at a window
    FUNCTION real first(long long f) const { return fabs(x[n.initial + r * n.features + f]); }

    FUNCTION void sizes(real (*out)[LANES], int l, real& near) const {
        for (long long w = 0; w < n.ahead_windows; w++) most(w) = 0;
        for (long long f = 0; f < n.features; f++) {
            const long long k = f * n.ahead_lane;
            real y = first(f), s = 0, s_0 = first(f);
            for (long long i = 0; i < n.looks; i++)
                for (long long p = 0; p < n.parts; p++) {
                    const real part = fabs(ahead[at[n.ahead_parts + p] + n.ahead_looks + i * n.look + k]);
                    out[LARGEST][l] = larger(out[LARGEST][l], part);
                    if (p == n.output) y = larger(y, part);
                }
            size(f) = y;
            out[Y][l] = larger(out[Y][l], y);
            for (long long w = 0; w < n.ahead_windows; w++) {
                s = larger(s, there(1, w, k) * of[n.rise + w]);
                most(w) = larger(most(w), s / of[n.rise + w]);
            }
            for (long long w = 0; w < n.back_windows; w++) s_0 = larger(s_0, here(2, w, f * n.back_lane) * of[n.less + w]);
            near = larger(near, s_0);
        }
    }

    FUNCTION void gaps(real (*out)[LANES], int l, long long f) const {
        const long long k = f * n.ahead_lane;
        real s = 0;
        for (long long w = 0; w < n.ahead_windows; w++) {
            s = larger(s, there(1, w, k) * of[n.rise + w]);
            const real gap = there(0, w, k) * of[n.steps + w] / (of[n.scale + f] * larger(s / of[n.rise + w], eps * most(w)) +
                                                                   of[n.scale + n.features + f]);
            if (of[n.counts + w] != 0) out[GAP][l] = larger(out[GAP][l], gap);
        }
    }

    // yhat beside y, weighed with |a|; of the output also as a share of its size
    FUNCTION real beside(real (*out)[LANES], int l, int trip, real yhat, real y, real a, real size) const {
        const real off = fabs(yhat - y);
        if (size != 0) out[W_Y][l] = larger(out[W_Y][l], off / size);
        out[trip][l] = larger(out[trip][l], off);
        out[trip + 1][l] = larger(out[trip + 1][l], fabs(y));
        return fabs(a) * off;
    }

    // least: the size that an entry of this trajectory has at least
    FUNCTION void roundtrip(real (*out)[LANES], int l, long long f, real near, real least) const {
        const long long k = f * n.back_lane, a_at = n.back_parts + n.parts, came = n.came, a_came = n.came + n.parts;
        const real y_0 = x[n.initial + r * n.features + f], *a_weights = of + n.back_weights + 5 * 2 * n.parts * n.back_width;
        const real own = larger(size(f), least) + tiny;
        real A = 0, W = 0, s = fabs(y_0), a_0 = 0, off = 0, a_near = 0;
        for (long long p = 0; p < n.parts; p++) {
            const real a = memory[at[a_came + p] + k], yhat = memory[at[came + p] + k];
            W = larger(W, beside(out, l, TRIPS, yhat, y_0, a, p == n.output ? own : 0));
            out[A_0][l] = larger(out[A_0][l], fabs(a));
            if (p == n.output) { A = fabs(a * y_0); off = fabs(yhat - y_0); }
            for (long long j = 0; j < n.back_width; j++) a_0 = a_0 + a_weights[(n.parts + p) * n.back_width + j] * a;
        }
        a_near = fabs(a_0);
        for (long long w = 0; w < n.back_windows; w++) {
            const real y = here(2, w, k), a = here(5, w, k);
            A = larger(A, a * y);
            s = larger(s, y * of[n.less + w]);
            a_near = larger(a_near, a * of[n.less + w]);
        }
        for (long long c = 0; c < n.compared; c++) {
            const long long look = at[n.compared_at + 2 * c], row = at[n.compared_at + 2 * c + 1];
            const real a = back[at[a_at + n.output] + look + k], y = x[row + r * n.features + f];
            W = larger(W, beside(out, l, TRIPS + 2 + 2 * (int)c, back[at[n.back_parts + n.output] + look + k], y, a, own));
            A = larger(A, fabs(a * y));
        }
        out[W_P][l] = larger(out[W_P][l], W / (A + tiny));
        out[W_0][l] = larger(out[W_0][l], off / (s + eps * near + tiny));
        out[NEAR][l] = out[NEAR][l] + a_near * a_near;
        out[LEFT][l] = out[LEFT][l] + a_0 * a_0;
        if (n.weighed >= 0) {
            out[E][l] = larger(out[E][l], memory[n.weighed + k] / (A + tiny));
            out[DEFECT][l] = larger(out[DEFECT][l], fabs(memory[n.largest + k]));
        }
        for (long long o = 0; o < n.others; o++)
            out[ASIDE][l] = larger(out[ASIDE][l], fabs(x[at[n.others_at + o] + r * n.features + f]));
    }

    FUNCTION void pairs(real (*out)[LANES], int l) const {
        real all = 0, all_moved = 0, by_size = 0, at_rest = 0;
        for (long long w = 0; w < n.back_windows; w++) {
            real be = 0, moved = 0, ay = 0, sum = 0, change = 0;
            for (long long f = 0; f < n.features; f++) {
                const long long k = f * n.back_lane;
                const real a = here(5, w, k);
                be = be + here(0, w, k) * here(3, w, k);
                moved = moved + here(1, w, k) * a;
                ay = ay + larger(here(2, w, k) * a, (real)0.01 * a * size(f));
                sum = sum + a;
                change = change + here(6, w, k);
            }
            moved = moved + 1024 * eps * eps * ay;
            all = all + be;
            all_moved = all_moved + moved;
            by_size = by_size + be / (ay + tiny);
            change = change / (n.apart * sum + tiny);
            at_rest = at_rest + be * (change > 1 / (eps * eps) ? 1 / (eps * eps) : change) / (moved + tiny);
        }
        out[S_P][l] = all / (all_moved + tiny);
        out[S_Y][l] = by_size * n.N / n.back_windows;
        out[S_D][l] = at_rest * n.N / n.back_windows;
    }

    FUNCTION void judge(real (*out)[LANES], int l) const {
        real near = 0, most = 0;
        sizes(out, l, near);
        for (long long f = 0; f < n.features; f++) most = larger(most, size(f));
        for (long long f = 0; f < n.features; f++) {
            if (n.pairs) gaps(out, l, f);
            if (n.back >= 0) roundtrip(out, l, f, near, sqrt(eps) * most);
        }
        if (n.pairs && n.back_windows) pairs(out, l);
    }
};

// eps: the root of the spacing of numbers at 1
extern "C" KERNEL void scores(const long long* at, const real* of, real* x, real eps, real tiny, real* out) {
    __shared__ real found[MOST][LANES];
    const Where& n = *(const Where*)at;
    const int count = (int)n.count;
    for (int l = TID; l < LANES; l += NT) {
        const long long r = (long long)BLOCK * LANES + l;
        for (int i = 0; i < count; i++) found[i][l] = 0;
        if (r < n.rows) Trajectory{n, at, of, x, eps, tiny, r, x + n.ahead + r / n.ahead_T * n.ahead_stride + r % n.ahead_T,
                                   x + n.back + r / n.back_T * n.back_stride + r % n.back_T,
                                   x + n.memory + r / n.back_T * n.memory_stride + r % n.back_T}.judge(found, l);
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        SYNC
        for (int i = TID; i < count * half; i += NT) {
            real *a = &found[i / half][i % half], b = a[half];
            *a = i / half == NEAR || i / half == LEFT ? *a + b : larger(*a, b);
        }
    }
    // by the thread that made it in the last round: no barrier
    for (int i = TID; i < count; i += NT) out[(long long)i * gridDim.x + BLOCK] = found[i][0];
}
