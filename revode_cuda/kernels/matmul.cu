// A small matrix product in a fixed order:     C[i, j] = ((A[i, 0] B[0, j] + A[i, 1] B[1, j]) + ...) + bias[j]
//
// A (m, k) and B (k, n) are given by their strides, so one kernel serves a layer and both of its pullbacks:
//
//     y = x W + b          A = x, B = W                                  ax = ay W^T     B = W with its strides exchanged
//     aW = x^T ay          A = x with its strides exchanged; k is the batch, and long: cut it into slabs, one partial C for
//                          each, and add these with sum_rows (reductions.cu)
//
// A block makes a square of TILE x TILE numbers of C. It takes slices of A and B into shared memory, DEPTH deep, and each of
// its threads makes PATCH x PATCH numbers in registers: 8 numbers read for 16 products. One thread owns a number of C and
// adds its products from k = 0 up, so the bits do not depend on the number of threads. TILE/PATCH squared = 256 threads make
// the square in one pass; with fewer, the block passes over it again.
//
// launch: grid = (ceil(n / TILE), ceil(m / TILE), slabs), slab = ceil(k / slabs); any block, 256 for speed.
// C : (slabs, m, n).  bias : (n,), or null; with one slab only.

#define TILE 64
#define DEPTH 16
#define PATCH 4
#define PATCHES (TILE / PATCH)

extern "C" KERNEL void matmul(long long m, long long n, long long k, long long slab, const real* A, long long A_row,
                              long long A_column, const real* B, long long B_row, long long B_column, const real* bias,
                              real* C) {
    __shared__ real a[DEPTH][TILE + 1], b[DEPTH][TILE + 1];      // + 1: neighbours in k lie in different banks
    long long row = (long long)blockIdx.y * TILE, column = (long long)blockIdx.x * TILE;
    long long from = blockIdx.z * slab, to = from + slab < k ? from + slab : k;
    for (int first = 0; first < PATCHES * PATCHES; first += NT) {
        int patch = first + TID, pi = patch / PATCHES, pj = patch % PATCHES;
        real sum[PATCH][PATCH] = {};
        for (long long start = from; start < to; start += DEPTH) {
            int depth = to - start < DEPTH ? (int)(to - start) : DEPTH;
            for (int e = TID; e < DEPTH * TILE; e += NT) {
                // Neighbouring threads read neighbouring addresses, whichever way the matrix lies.
                int p = A_column == 1 ? e % DEPTH : e / TILE, i = A_column == 1 ? e / DEPTH : e % TILE;
                a[p][i] = p < depth && row + i < m ? A[(row + i) * A_row + (start + p) * A_column] : 0;
                p = B_row == 1 ? e % DEPTH : e / TILE;
                i = B_row == 1 ? e / DEPTH : e % TILE;
                b[p][i] = p < depth && column + i < n ? B[(start + p) * B_row + (column + i) * B_column] : 0;
            }
            __syncthreads();
            if (patch < PATCHES * PATCHES)
                for (int p = 0; p < depth; p++)
                    #pragma unroll
                    for (int i = 0; i < PATCH; i++)
                        #pragma unroll
                        for (int j = 0; j < PATCH; j++)
                            sum[i][j] = sum[i][j] + a[p][pi + PATCHES * i] * b[p][pj + PATCHES * j];
            __syncthreads();
        }
        if (patch >= PATCHES * PATCHES) continue;
        for (int i = 0; i < PATCH; i++)
            for (int j = 0; j < PATCH; j++) {
                long long r = row + pi + PATCHES * i, c = column + pj + PATCHES * j;
                if (r < m && c < n) C[(blockIdx.z * m + r) * n + c] = bias ? sum[i][j] + bias[c] : sum[i][j];
            }
    }
}
