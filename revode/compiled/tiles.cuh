// tiles.hpp on a GPU: a block of threads for each tile, every element and every sum of one thread; or, as the plan has it, one thread
// for each trajectory.
//
// Of a block: every instruction of a step is run a few times only before the next step, so the code has to be short, or it does not
// stay in the instruction cache: sums are functions (OUTLINE; the compiler sees whether their pointers are of shared memory), and loops
// over elements, of which a thread has few, are not unrolled.
#define INDEX long long
#define TILE_ARGUMENT
#define TABLE alignas(16) __device__ const
#define RESTRICT __restrict__
#define STEP static __device__ __forceinline__
#define SELDOM
#define WHOLE(n) (n)
#ifndef SYNC
#define TID ((int)threadIdx.x)
#define NT ((int)blockDim.x)
#define SYNC __syncthreads()
#define KERNEL __global__
#endif
// Of the plan: TILE_THREADS, the threads of a block; TILE_REGISTERS, a thread has a trajectory of its own, and all its values in
// registers; TILE_GLOBAL, the values of a tile stay in global memory; PARAMS_GLOBAL, what comes from the parameters stays there.
// Otherwise both are in shared memory while a block runs. STRIDE, from one feature to the next: T, or more where lanes are padded.
#ifndef STRIDE
#define STRIDE T
#endif
#ifdef TILE_THREADS
#undef NT
#define NT TILE_THREADS
#undef KERNEL
#define KERNEL __global__ __launch_bounds__(TILE_THREADS, 1)
#else
#define TILE_THREADS 128
#endif
#ifdef TILE_REGISTERS
// What has an index has no register, so every loop is unrolled and every function is inlined; T is 1, and there are no barriers.
#undef TID
#undef NT
#undef SYNC
#define TID 0
#define NT 1
#define SYNC
#define APART static FUNCTION
#define OUTLINE APART
#define UNROLL _Pragma("unroll")
#define EACH(F) UNROLL for (int k = 0; k < (F); k++) for (int r = 0; r < 1; r++)
#define ONCE(F) UNROLL for (int k = 0; k < (F); k++)
#define TILE_MEMORY(M) const int tile = (int)(blockIdx.x * TILE_THREADS + threadIdx.x); if (tile >= rows) return; real S[MEMORY]; \
  UNROLL for (int i_ = 0; i_ < PERSISTENT; i_++) S[i_] = (M)[(INDEX)tile * PERSISTENT + i_]
#define TILE_RETURN(M) UNROLL for (int i_ = 0; i_ < PERSISTENT; i_++) (M)[(INDEX)tile * PERSISTENT + i_] = S[i_]
template <int p, int n, int m> OUTLINE void rv_linear(real* out, const real* x, const real* w) {
  UNROLL for (int k = 0; k < p * m; k++) {
    real sum = x[k / m * n] * w[k % m];
    UNROLL for (int c = 1; c < n; c++) sum = sum + x[k / m * n + c] * w[c * m + k % m];
    out[k] = sum;
  }
}
template <int n, int m> OUTLINE void rv_outer(real* out, const real* x, const real* g, const real* total, int) {
  UNROLL for (int k = 0; k < n * m; k++) out[k] = total ? total[k] + x[k / m] * g[k % m] : x[k / m] * g[k % m];
}
template <int n> OUTLINE void rv_rows(real* out, const real* x, const real* total, int) {
  UNROLL for (int k = 0; k < n; k++) out[k] = total ? total[k] + x[k] : x[k];
}
#else
#define APART static __device__ __noinline__
#define OUTLINE APART
#define UNROLL
#define EACH(F) _Pragma("unroll 1") for (int i_ = TID; i_ < (F) * T; i_ += NT) for (int k = i_ / T, r = i_ % T, once_ = 1; once_; once_ = 0)
#define ONCE(F) for (int k = TID; k < (F); k += NT)
#ifdef TILE_GLOBAL
#define SHARED_STATE 0
#define TILE_STATE(M) real* const S = (M) + (INDEX)tile * MEMORY
#define TILE_RETURN(M)
#else
#define SHARED_STATE MEMORY
#define TILE_STATE(M) real* const S = block_memory; \
  for (int i_ = TID; i_ < PERSISTENT; i_ += NT) S[i_] = (M)[(INDEX)tile * PERSISTENT + i_]
#define TILE_RETURN(M) for (int i_ = TID; i_ < PERSISTENT; i_ += NT) (M)[(INDEX)tile * PERSISTENT + i_] = S[i_]
#endif
#ifdef PARAMS_GLOBAL
#define TILE_PARAMS
#else
#define TILE_PARAMS for (int i_ = TID; i_ < PARAMS; i_ += NT) block_memory[SHARED_STATE + i_] = P[i_]; P = block_memory + SHARED_STATE;
#endif
#define TILE_MEMORY(M) const int tile = (int)blockIdx.x; extern __shared__ real block_memory[]; TILE_STATE(M); TILE_PARAMS SYNC

// A thread makes a block of outputs, so that what it loads serves several products. Blocks are smaller where there would not
// be one for each thread; sums do not depend on it. They begin with -0: -0 + x is x, whatever x is.
#define RV_BLOCK(n, most) ((n) % 4 == 0 && (most) >= 4 ? 4 : (n) % 2 == 0 && (most) >= 2 ? 2 : 1)
template <int n> struct alignas(n * sizeof(real) < 16 ? n * sizeof(real) : 16) rv_pack { real v[n]; };
template <int n> FUNCTION rv_pack<n> rv_load(const real* x) { return *(const rv_pack<n>*)x; }
template <int p, int n, int m> OUTLINE void rv_linear(real* out, const real* x, const real* w) {
  constexpr int most = p * m * T / TILE_THREADS, br = RV_BLOCK(T, most), bj = RV_BLOCK(m, most / br), across = T / br;
  for (int i = TID; i < p * m / bj * across; i += NT) {
    const int r = i % across * br, k = i / across * bj, q = k / m, j = k % m;
    real sum[bj][br];
    #pragma unroll
    for (int l = 0; l < bj * br; l++) sum[l / br][l % br] = -(real)0;
    #pragma unroll 4
    for (int c = 0; c < n; c++) {
      const rv_pack<br> a = rv_load<br>(x + (q * n + c) * STRIDE + r);
      const rv_pack<bj> b = rv_load<bj>(w + c * m + j);
      #pragma unroll
      for (int l = 0; l < bj * br; l++) sum[l / br][l % br] = sum[l / br][l % br] + a.v[l % br] * b.v[l / br];
    }
    #pragma unroll
    for (int jj = 0; jj < bj; jj++) {
      rv_pack<br> a;
      #pragma unroll
      for (int rr = 0; rr < br; rr++) a.v[rr] = sum[jj][rr];
      *(rv_pack<br>*)(out + (k + jj) * STRIDE + r) = a;
    }
  }
}
// Rows a, a + n/bi, ... and columns b, b + m/bj, ... are one thread's: neighbours write next to one another.
template <int n, int m> OUTLINE void rv_outer(real* out, const real* x, const real* g, const real* total, int R) {
  constexpr int most = n * m / TILE_THREADS, bj = RV_BLOCK(m, most), bi = RV_BLOCK(n, most / bj), I = n / bi, J = m / bj;
  constexpr int V = T % 4 ? T % 2 ? 1 : 2 : 4;
  for (int i = TID; i < I * J; i += NT) {
    const int a = i / J, b = i % J;
    real sum[bi][bj];
    #pragma unroll
    for (int l = 0; l < bi * bj; l++) sum[l / bj][l % bj] = -(real)0;
    for (int r = 0; r < R; r += V) {
      rv_pack<V> xs[bi], gs[bj];
      #pragma unroll
      for (int ii = 0; ii < bi; ii++) xs[ii] = rv_load<V>(x + (a + ii * I) * STRIDE + r);
      #pragma unroll
      for (int jj = 0; jj < bj; jj++) gs[jj] = rv_load<V>(g + (b + jj * J) * STRIDE + r);
      #pragma unroll
      for (int rr = 0; rr < V; rr++)
        if (r + rr < R)
          #pragma unroll
          for (int l = 0; l < bi * bj; l++) sum[l / bj][l % bj] = sum[l / bj][l % bj] + xs[l / bj].v[rr] * gs[l % bj].v[rr];
    }
    #pragma unroll
    for (int l = 0; l < bi * bj; l++) {
      const int k = (a + l / bj * I) * m + b + l % bj * J;
      out[k] = total ? total[k] + sum[l / bj][l % bj] : sum[l / bj][l % bj];
    }
  }
}
template <int n> OUTLINE void rv_rows(real* out, const real* x, const real* total, int R) {
  constexpr int V = T % 4 ? T % 2 ? 1 : 2 : 4;          // several at a time: neighbours in x are in the same bank of the memory
  for (int k = TID; k < n; k += NT) {
    real sum = -(real)0;
    for (int r = 0; r < R; r += V) {
      const rv_pack<V> a = rv_load<V>(x + k * STRIDE + r);
      #pragma unroll
      for (int rr = 0; rr < V; rr++) if (r + rr < R) sum = sum + a.v[rr];
    }
    out[k] = total ? total[k] + sum : sum;
  }
}
#endif
// What a step reads by its number, a step ahead: loads that come while the step before is at work, so that none begins by waiting for
// the memory. Every thread has a row of the grid in registers, where it has no more than AHEAD numbers; and the first AHEAD of the
// increments that it puts in place.
#ifndef AHEAD
#define AHEAD 8
#endif
template <int W> struct rv_row {
  double now[W], next[W];
  FUNCTION rv_row(const double* first, bool any) {
    #pragma unroll
    for (int k = 0; k < W; k++) next[k] = any ? first[k] : 0;
  }
  FUNCTION const double* of(const double* here, const double* then) {
    if (W > AHEAD) return here;
    #pragma unroll
    for (int k = 0; k < W; k++) { now[k] = next[k]; next[k] = then[k]; }
    return now;
  }
};
template <int n, int lanes> struct rv_drive {
  static constexpr int each = (n + NT - 1) / NT, kept = each < AHEAD ? each : AHEAD;
  real next[kept + 1];
  FUNCTION static int place(int i) { return lanes ? i / T * STRIDE + i % T : i; }
  FUNCTION rv_drive(const real* first, bool any) {
    #pragma unroll
    for (int j = 0; j < kept; j++) if (any && TID + j * NT < n) next[j] = first[TID + j * NT];
  }
  FUNCTION void put(real* to, const real* here, const real* then) {
    #pragma unroll
    for (int j = 0, i = TID; j < kept; j++, i += NT) if (i < n) { to[place(i)] = next[j]; next[j] = then[i]; }
    UNROLL for (int i = TID + kept * NT; i < n; i += NT) to[place(i)] = here[i];
  }
};
template <int n, int m> FUNCTION void rv_outer_rows(real* out, const real* x, const real* g, const real* total, real* sums,
                                                    const real* before, int R) {
  rv_outer<n, m>(out, x, g, total, R);
  rv_rows<m>(sums, g, before, R);
}
