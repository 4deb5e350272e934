// The increments of a Brownian motion, for a run of steps:
//
//     dW[s, r, c] = width[s] Z(offset + r, first + s, c)              width = sqrt |h|, one for each step
//
// out : (steps, batch, channels) of real, the float64 number rounded once; seed = key0 + 2^32 key1.
//
// launch: any grid, any block. Each number is one thread's alone, and a function of its place: any part can be made again.

extern "C" KERNEL void increments(long long steps, long long batch, long long channels, unsigned first, unsigned offset,
                                  unsigned key0, unsigned key1, const double* width, real* out) {
    FOR_EACH(i, steps * batch * channels) {
        long long row = i / channels, s = row / batch;
        double z = normal_of(offset + (unsigned)(row - s * batch), first + (unsigned)s, (unsigned)(i - row * channels), 0,
                             key0, key1);
        out[i] = (real)MUL(z, width[s]);
    }
}

// The generator itself, for the known answers of its authors: (n, 4) counters and (n, 2) keys give (n, 4) words.
extern "C" KERNEL void words(long long n, const unsigned* counter, const unsigned* key, unsigned* out) {
    FOR_EACH(i, n) {
        Words c = {counter[4 * i], counter[4 * i + 1], counter[4 * i + 2], counter[4 * i + 3]};
        c = philox4x32(c, key[2 * i], key[2 * i + 1]);
        out[4 * i] = c.w0; out[4 * i + 1] = c.w1; out[4 * i + 2] = c.w2; out[4 * i + 3] = c.w3;
    }
}

// The normals alone, of numbers u in (0, 1): the far tails, which no counter that one could find reaches.
extern "C" KERNEL void quantiles(long long n, const double* u, double* z) {
    FOR_EACH(i, n) z[i] = normal(u[i]);
}
