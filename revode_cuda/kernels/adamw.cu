// AdamW on all parameters at once, laid end to end in one buffer:
//
//     m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2;   p <- p - rate (m/c1 / (sqrt(v/c2) + eps) + decay p)
//
// with c1 = 1 - b1^n and c2 = 1 - b2^n of step number n = 1, 2, ...; the bits of revode.optim.adamw. The numbers that are the
// same for all elements are made on the host, in double, and rounded to real once.
// Source: Loshchilov & Hutter 2019, algorithm 2, with the rate on the decay too.
//
// launch: any grid, any block; n elements, contiguous. Each element is one thread's alone.

extern "C" KERNEL void adamw(long long n, real* p, const real* g, real* m, real* v, real b1, real rest1, real b2, real rest2,
                             real c1, real c2, real rate, real eps, real decay) {
    FOR_EACH(i, n) {
        real mean = b1 * m[i] + rest1 * g[i];
        real square = b2 * v[i] + rest2 * g[i] * g[i];
        m[i] = mean;
        v[i] = square;
        p[i] = p[i] - rate * (mean / c1 / (sqrt(square / c2) + eps) + decay * p[i]);
    }
}
