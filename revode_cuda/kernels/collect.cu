// Entries of a buffer where they are wanted next: gathered, scattered, and summed in the fixed tree of the tiles.
//
//     out[i] = x[start[i]] + x[start[i] + step[i]] + ...      count[i] terms; of none: zero
//
// Neighbours are added first, then neighbours of those; the last one goes up alone where their number is odd: the bits of tree_sum
// in revode/compiled/tiles.py. A sum of 2^l terms waits at level l for its neighbour, so that the binary digits of the number of
// terms so far say which levels wait. The levels are unrolled: what waits is in registers.
//
// launch: any grid, any block; less than 2^LEVELS terms. x and out may lie in one buffer, where nothing that is read is written.

#define LEVELS 20

extern "C" KERNEL void collect(long long n, const int* start, const int* count, const int* step, const real* x, real* out) {
    FOR_EACH(i, n) {
        const int terms = count[i], by = step[i];
        long long at = start[i];
        real waits[LEVELS], sum = 0;
        for (int t = 1; t <= terms; t++, at += by) {
            sum = x[at];
            bool waiting = false;
            #pragma unroll
            for (int l = 0; l < LEVELS; l++) {
                if (waiting) continue;
                waiting = t >> l & 1;
                if (waiting) waits[l] = sum; else sum = waits[l] + sum;
            }
        }
        bool begun = false;
        #pragma unroll
        for (int l = 0; l < LEVELS; l++) {
            if (!(terms >> l & 1)) continue;
            sum = begun ? waits[l] + sum : waits[l];
            begun = true;
        }
        out[i] = sum;
    }
}
