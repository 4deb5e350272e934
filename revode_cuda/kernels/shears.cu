// One shear of a step, fused: each array is read once and written once, instead of once for every + and *.
//
//     x  the part that changes        a  the part that it moves towards ("about"; null where there is none)
//     k  what the field gave          c  its factor (h, h/2, -h, 2, ...)
//
//     forward     x <- scale x + (weight a + c k)                     weight = 1 - scale, scale != 0
//     inverse     x <- (x - (weight a + c k)) / scale
//     pullback    the inverse, and of the cotangent ax:   ak = c ax;   aa <- aa + weight ax;   ax <- scale ax
//
// The factor c goes onto the cotangent BEFORE the field is pulled back with it: put on the result, dL/dy comes out right and
// dL/dparams wrong. With scale = +1 or -1 the products and quotients are exact, so those shears need no other kernel.
//
// launch: any grid, any block; n elements, contiguous. Each element is one thread's alone.

FUNCTION real increment(const real* a, real weight, real c, real k, long long i) {
    return a ? weight * a[i] + c * k : c * k;
}

extern "C" KERNEL void shear_forward(long long n, real* x, const real* a, const real* k, real scale, real weight, real c) {
    FOR_EACH(i, n) x[i] = scale * x[i] + increment(a, weight, c, k[i], i);
}

extern "C" KERNEL void shear_inverse(long long n, real* x, const real* a, const real* k, real scale, real weight, real c) {
    FOR_EACH(i, n) x[i] = (x[i] - increment(a, weight, c, k[i], i)) / scale;
}

// ak is what the field's vjp is called with next; what it returns is added to the cotangents of what the field read.
extern "C" KERNEL void shear_pullback(long long n, real* x, const real* a, const real* k, real* ax, real* aa, real* ak,
                                      real scale, real weight, real c) {
    FOR_EACH(i, n) {
        real g = ax[i];
        x[i] = (x[i] - increment(a, weight, c, k[i], i)) / scale;
        ak[i] = c * g;
        if (a) aa[i] = aa[i] + weight * g;
        ax[i] = scale * g;
    }
}
