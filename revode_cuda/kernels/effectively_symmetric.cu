// One stage of an effectively symmetric method in Williamson's low storage: y, d and the field's value are all it holds.
//
//     stage       d <- A d + h f;        y <- y + B d                 A = 0 in the first stage, which does not read d
//     pullback    g = ad + B ay;         af = h g;    ad <- A g       then ay <- ay + vjp(f)(af), which is the caller's
//
// Backwards in time the same stages run with -h. Sources: Williamson 1980; Shmelev & Salvi 2025 (arXiv 2507.21006).
//
// launch: any grid, any block; n elements, contiguous. Each element is one thread's alone.

extern "C" KERNEL void stage(long long n, real* y, real* d, const real* f, real A, real B, real h) {
    FOR_EACH(i, n) {
        real next = A == 0 ? h * f[i] : A * d[i] + h * f[i];
        d[i] = next;
        y[i] = y[i] + B * next;
    }
}

// The last stage has no stage after it, so ad starts at zero.
extern "C" KERNEL void stage_pullback(long long n, const real* ay, real* ad, real* af, real A, real B, real h) {
    FOR_EACH(i, n) {
        real g = ad[i] + B * ay[i];
        af[i] = h * g;
        ad[i] = A * g;
    }
}
