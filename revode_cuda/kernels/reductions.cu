// Sums and maxima in a fixed order: the same bits for any number of threads, on any GPU, in every run. No atomics.
//
//     x  ->  one partial result for each tile of `tile` elements  ->  the same kernel on the partial results, until one is left
//
// Inside a tile: LANES strands, strand l over x[l], x[l + LANES], ... in ascending order; then a tree that folds the upper
// half of the strands onto the lower until one is left. The order depends on `tile` and LANES only, so keep `tile` the same.
//
// launch: grid = number of tiles, any block.

#define LANES 128

// Not (a < b ? b : a), which would lose a NaN: a maximum that hides a NaN hides the error that it is asked to find.
FUNCTION real larger(real a, real b) { return a > b || a != a ? a : b; }

// partial[tile] = the sum of its x
extern "C" KERNEL void sum(long long n, long long tile, const real* x, real* partial) {
    __shared__ real strand[LANES];
    long long start = blockIdx.x * tile, stop = start + tile < n ? start + tile : n;
    for (int l = TID; l < LANES; l += NT) {
        real total = 0;
        for (long long i = start + l; i < stop; i += LANES) total = total + x[i];
        strand[l] = total;
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int l = TID; l < half; l += NT) strand[l] = strand[l] + strand[l + half];
    }
    if (TID == 0) partial[blockIdx.x] = strand[0];
}

// partial[tile] = the largest |x|; a NaN among them wins
extern "C" KERNEL void max_abs(long long n, long long tile, const real* x, real* partial) {
    __shared__ real strand[LANES];
    long long start = blockIdx.x * tile, stop = start + tile < n ? start + tile : n;
    for (int l = TID; l < LANES; l += NT) {
        real most = 0;
        for (long long i = start + l; i < stop; i += LANES) most = larger(most, fabs(x[i]));
        strand[l] = most;
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int l = TID; l < half; l += NT) strand[l] = larger(strand[l], strand[l + half]);
    }
    if (TID == 0) partial[blockIdx.x] = strand[0];
}

// Down the columns of x (rows, width), such as one gradient for each tile of trajectories:
// out[t, j] = x[t tile, j] + x[t tile + 1, j] + ... in ascending order; repeated until one row is left.
// launch: grid = (any, number of tiles of rows), any block.
extern "C" KERNEL void sum_rows(long long rows, long long width, long long tile, const real* x, real* out) {
    long long start = blockIdx.y * tile, stop = start + tile < rows ? start + tile : rows;
    FOR_EACH(j, width) {
        real total = x[start * width + j];
        for (long long r = start + 1; r < stop; r++) total = total + x[r * width + j];
        out[blockIdx.y * width + j] = total;
    }
}
