// Loops over the trajectories of a tile: words for them, and the sums that are more than one line.
//
// Stands behind the text of elementary.py, which declares real and RV_..., and behind T, MEMORY, PERSISTENT and PARAMS. A tile
// holds T trajectories, feature k of lane r at x[k * T + r]; the first R of them are those of the solve. Each sum runs in the
// order of its index and rounds once a term, so that its bits are the same on every processor.
//
//     rv_linear<p, n, m>   out[q, j] = sum over c of x[q, c] w[c, j]; w is the same for all lanes
//     rv_outer<n, m>       out[i, j] = total[i, j] + sum over r of x[i, r] g[j, r]
//     rv_rows<n>           out[k]    = total[k] + sum over r of x[k, r];     rv_rows_max<n>: the largest of them
//     rv_outer_rows<n, m>  rv_outer, and rv_rows of the same g
#define rv_abs RV_ABS
#define rv_sqrt RV_SQRT
#define rv_floor RV_FLOOR
#define rv_nan() RV_NAN
#define rv_infinity() RV_INFINITY
#ifdef __CUDACC__
#include "tiles.cuh"
#else
#define TID 0
#define NT 1
#define SYNC
#define KERNEL
#define INDEX long long
#define TILE_ARGUMENT int tile,
#define TABLE static const
#define RESTRICT __restrict
#define STEP static __attribute__((noinline))
// Of a loop over lanes: none writes what another one reads. (A compiler sees it where it knows where values lie.)
#if defined(__clang__)
#define ANY_ORDER _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__) && T > 1
#define ANY_ORDER _Pragma("GCC ivdep")
#else
#define ANY_ORDER
#endif
// clang takes half of the widest vectors for a function that is not said to be full of them.
#if defined(__clang__) && defined(__AVX512F__)
#define FULL __attribute__((min_vector_width(512)))
#else
#define FULL
#endif
#define APART static __attribute__((noinline)) FULL
// A short loop that g++ unrolls before it chooses instructions takes longer, to compile as well as to run.
#if defined(__GNUC__) && !defined(__clang__)
#define ROLLED _Pragma("GCC unroll 1")
#else
#define ROLLED
#endif
// What a sweep does once need not be quick.
#define SELDOM __attribute__((cold))
#define OUTLINE APART
#define UNROLL
#define STRIDE T
#define WHOLE(n) (((n) + WIDE - 1) / WIDE * WIDE)
#if T > 1
#define EACH(F) ROLLED for (int k = 0; k < (F); k++) ANY_ORDER for (int r = 0; r < T; r++)
#else
#define EACH(F) for (int k = 0; k < (F); k++) for (int r = 0; r < T; r++)
#endif
#define ONCE(F) for (int k = 0; k < (F); k++)
#define TILE_MEMORY(M) real* const S = (M) + (INDEX)tile * MEMORY
#define TILE_RETURN(M)
// What a step reads by its number: where it lies (the next one's is for a GPU), and increments to their place.
template <int W> struct rv_row {
  rv_row(const double*, bool) {}
  const double* of(const double* now, const double*) { return now; }
};
template <int n, int> struct rv_drive {
  rv_drive(const real*, bool) {}
  void put(real* to, const real* now, const real*) { for (int i = 0; i < n; i++) to[i] = now[i]; }
};

// The same sums in vectors of the processor, of VECTOR bytes. Up to SUMS vectors of them are in the making at any time, half of
// the registers that there are: the other half is for what goes into them.
#if defined(__AVX512F__)
#define VECTOR 64
#elif defined(__AVX__)
#define VECTOR 32
#else
#define VECTOR 16
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define SUMS 16
#else
#define SUMS 8
#endif
#define INSIDE static inline __attribute__((always_inline)) FULL
// What several products take: g++, where it tunes for AMD's cores, reads it again for each of them, and there are then more reads
// than the processor does beside so many products.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HELD(x) __asm__("" : "+v"(x))
#else
#define HELD(x)
#endif
#define WIDE ((int)(VECTOR / sizeof(real)))
template <int w> struct rv_vec { typedef real type __attribute__((vector_size(w * sizeof(real)), aligned(sizeof(real)))); };
#if T > 1
#define LANES (T < WIDE ? T : WIDE)
typedef rv_vec<LANES>::type lanes;
// A product in stretches of terms, each of which goes on where the last one ended: where matrices are wide or lanes many, what a stretch
// reads of w and of x stays in the cache while all outputs and lanes have their share of it. Where there are many lanes, what a block of
// outputs reads of w is copied to one place for them: its rows lie a multiple of 2^k bytes apart, for which a cache has few places. Bits
// are those of the sum in one. Sizes are arguments: the products of a solve are compiled once, and no slower.
#define LONG 256
#define STRETCH (VECTOR < 64 ? 16 : 256)       // 16 terms of 128 lanes are half of the first cache; 256 were measured with AVX-512
template <int b, int u> INSIDE void rv_linear_block(lanes* out, const lanes* x, const real* w, int apart, int first, int last) {
  const int V = T / LANES;
  lanes sum[b][u];
  if (first == 0) for (int j = 0; j < b; j++) for (int v = 0; v < u; v++) sum[j][v] = x[v] * w[j];
  else for (int j = 0; j < b; j++) for (int v = 0; v < u; v++) sum[j][v] = out[j * V + v];
  for (int c = first ? first : 1; c < last; c++) {
    lanes now[u];
    for (int v = 0; v < u; v++) { now[v] = x[c * V + v]; HELD(now[v]); }
    for (int j = 0; j < b; j++) for (int v = 0; v < u; v++) sum[j][v] = sum[j][v] + now[v] * w[(c - first) * apart + j];
  }
  for (int j = 0; j < b; j++) for (int v = 0; v < u; v++) out[j * V + v] = sum[j][v];
}
// Outputs j and up: as many as there are in blocks of b, the rest, if there is one, in blocks of half as many.
template <int b, int u, int rest> INSIDE void rv_linear_blocks(lanes* out, const lanes* x, const real* w, int m, int j, int first, int last) {
  const int V = T / LANES, many = V >= 4 * u;
  real copy[many ? STRETCH * b : 1];
  for (; j + b <= m; j += b) {
    const real* part = w + first * m + j;
    if (many) for (int c = 0; c < last - first; c++) for (int i = 0; i < b; i++) copy[c * b + i] = part[c * m + i];
    for (int v = 0; v < V; v += u) rv_linear_block<b, u>(out + j * V + v, x + v, many ? copy : part, many ? b : m, first, last);
  }
  if constexpr (rest) rv_linear_blocks<b / 2, u, rest % (b / 2)>(out, x, w, m, j, first, last);
}
template <int rest> APART void rv_linear_sized(real* out, const real* x, const real* w, int n, int m) {
  const int V = T / LANES, u = V > 1 ? 2 : 1, stretch = V >= 4 * u || n >= LONG || m >= LONG ? STRETCH : n;
  for (int c = 0; c < n; c += stretch)
    rv_linear_blocks<SUMS / u, u, rest>((lanes*)out, (const lanes*)x, w, m, 0, c, c + stretch < n ? c + stretch : n);
}
template <int p, int n, int m> static inline void rv_linear(real* out, const real* x, const real* w) {
  for (int q = 0; q < p; q++) rv_linear_sized<m % (SUMS / (T > LANES ? 2 : 1))>(out + q * m * T, x + q * n * T, w, n, m);
}
// w features of w lanes change places with them: out[l * to + i] = x[i * T + l], and 0 for features from `have` on.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TURNS
#endif
#endif
#ifdef TURNS
template <int... l> struct rv_each {};
template <int n, int... l> struct rv_below { typedef typename rv_below<n - 1, n - 1, l...>::type type; };
template <int... l> struct rv_below<0, l...> { typedef rv_each<l...> type; };
template <int w, int s, int... l> INSIDE void rv_trade(lanes& a, lanes& b, rv_each<l...>) {
  const lanes x = a, y = b;
  a = __builtin_shufflevector(x, y, (l & s ? w + l - s : l)...);
  b = __builtin_shufflevector(x, y, (l & s ? w + l : l + s)...);
}
template <int w, int s> INSIDE void rv_trades(lanes* v) {
  for (int i = 0; i < w; i++) if (!(i & s)) rv_trade<w, s>(v[i], v[i + s], typename rv_below<w>::type());
  if constexpr (s > 1) rv_trades<w, s / 2>(v);
}
APART void rv_turn(real* out, int to, const real* x, int have) {
  lanes v[LANES];
  for (int i = 0; i < LANES; i++) v[i] = i < have ? *(const lanes*)(x + i * T) : lanes{};
  rv_trades<LANES, LANES / 2>(v);
  for (int i = 0; i < LANES; i++) *(lanes*)(out + i * to) = v[i];
}
#else
APART void rv_turn(real* out, int to, const real* x, int have) {
  for (int i = 0; i < LANES; i++) for (int l = 0; l < LANES; l++) out[l * to + i] = i < have ? x[i * T + l] : 0;
}
#endif
typedef rv_vec<WIDE>::type vec;
// u vectors of columns: gt is g turned, gt[r * u + v]; x[i, r] of the block's first row is at x, and without x all are 1.
template <int b, int u, bool whole, bool ones> INSIDE
void rv_outer_block(real* out, const real* x, const vec* gt, const real* total, INDEX m, int columns, int R) {
  if (total) for (int i = 0; i < b; i++) for (int v = 0; v < u; v += 64 / VECTOR) __builtin_prefetch(total + i * m + v * WIDE, 1);
  vec sum[b][u];
  for (int i = 0; i < b; i++) for (int v = 0; v < u; v++) sum[i][v] = ones ? gt[v] : x[i * T] * gt[v];
  for (int r = 1; r < R; r++) {
    vec now[u];
    for (int v = 0; v < u; v++) { now[v] = gt[r * u + v]; HELD(now[v]); }
    for (int i = 0; i < b; i++) for (int v = 0; v < u; v++) sum[i][v] = ones ? sum[i][v] + now[v] : sum[i][v] + x[i * T + r] * now[v];
  }
  if (!whole) {                                     // of one vector in a row, a part
    real part[b * WIDE];
    for (int i = 0; i < b; i++) *(vec*)(part + i * WIDE) = sum[i][0];
    ROLLED for (int i = 0; i < b; i++) ROLLED for (int l = 0; l < columns; l++)
      out[i * m + l] = total ? total[i * m + l] + part[i * WIDE + l] : part[i * WIDE + l];
  } else if (total) for (int i = 0; i < b; i++) for (int v = 0; v < u; v++)
    *(vec*)(out + i * m + v * WIDE) = *(const vec*)(total + i * m + v * WIDE) + sum[i][v];
  else for (int i = 0; i < b; i++) for (int v = 0; v < u; v++) *(vec*)(out + i * m + v * WIDE) = sum[i][v];
}
template <int b, int u, bool whole, int rest> INSIDE
void rv_outer_blocks(real* out, const real* x, const vec* gt, const real* total, int n, INDEX m, int columns, int R, int i) {
  for (; i + b <= n; i += b)
    rv_outer_block<b, u, whole, false>(out + i * m, x + i * T, gt, total ? total + i * m : total, m, columns, R);
  if constexpr (rest) rv_outer_blocks<b / 2, u, whole, rest % (b / 2)>(out, x, gt, total, n, m, columns, R, i);
}
template <int u, bool whole, int rest> APART void rv_outer_panel(real* out, const real* x, const real* g, const real* total, real* sums,
                                                       const real* before, int n, INDEX m, int columns, int R) {
  vec gt[T * u] __attribute__((aligned(VECTOR)));
  for (int f = 0; f < u * WIDE; f += LANES) for (int r = 0; r < T; r += LANES)
    rv_turn((real*)gt + r * u * WIDE + f, u * WIDE, g + f * T + r, columns - f);
  rv_outer_blocks<SUMS / 2, u, whole, rest>(out, x, gt, total, n, m, columns, R, 0);
  if (sums) rv_outer_block<1, u, whole, true>(sums, x, gt, before, m, columns, R);
}
template <int n, int m> static inline void rv_outer_rows(real* out, const real* x, const real* g, const real* total,
                                                         real* sums, const real* before, int R) {
  int j = 0;
  for (; j + 2 * WIDE <= m; j += 2 * WIDE) rv_outer_panel<2, true, n % (SUMS / 2)>(
    out + j, x, g + j * T, total ? total + j : total, sums ? sums + j : sums, before ? before + j : before, n, m, 2 * WIDE, R);
  if constexpr (m / WIDE % 2) {
    rv_outer_panel<1, true, n % (SUMS / 2)>(
      out + j, x, g + j * T, total ? total + j : total, sums ? sums + j : sums, before ? before + j : before, n, m, WIDE, R);
    j += WIDE;
  }
  if constexpr (m % WIDE != 0) rv_outer_panel<1, false, n % (SUMS / 2)>(
    out + j, x, g + j * T, total ? total + j : total, sums ? sums + j : sums, before ? before + j : before, n, m, m % WIDE, R);
}
template <int n, int m> static inline void rv_outer(real* out, const real* x, const real* g, const real* total, int R) {
  rv_outer_rows<n, m>(out, x, g, total, 0, 0, R);
}
#else
template <int u, int w, int n, int m> INSIDE void rv_linear_block(real* out, const real* x, const real* a) {
  typedef typename rv_vec<w>::type vec;
  vec sum[u];
  for (int v = 0; v < u; v++) sum[v] = x[0] * ((const vec*)a)[v];
  ROLLED for (int c = 1; c < n; c++) for (int v = 0; v < u; v++) sum[v] = sum[v] + x[c] * ((const vec*)(a + c * m))[v];
  for (int v = 0; v < u; v++) ((vec*)out)[v] = sum[v];
}
// The last `rest` outputs: as many as there are in blocks of u vectors of w, what then is left in smaller ones.
template <int u, int w, int n, int m, int rest> INSIDE void rv_linear_blocks(real* out, const real* x, const real* a) {
  if constexpr (rest >= u * w) for (int j = m - rest; j + u * w <= m; j += u * w) rv_linear_block<u, w, n, m>(out + j, x, a + j);
  if constexpr (rest % (u * w) && u > 1) rv_linear_blocks<u / 2, w, n, m, rest % (u * w)>(out, x, a);
  else if constexpr (rest % (u * w)) rv_linear_blocks<1, w / 2, n, m, rest % (u * w)>(out, x, a);
}
template <int p, int n, int m> static inline void rv_linear(real* out, const real* x, const real* w) {
  for (int q = 0; q < p; q++) rv_linear_blocks<SUMS, WIDE, n, m, m>(out + q * m, x + q * n, w);
}
template <int n, int m> static inline void rv_outer(real* out, const real* x, const real* g, const real* total, int) {
  for (int i = 0; i < n; i++) for (int j = 0; j < m; j++)
    out[i * m + j] = total ? total[i * m + j] + x[i] * g[j] : x[i] * g[j];
}
template <int n, int m> static inline void rv_outer_rows(real* out, const real* x, const real* g, const real* total,
                                                         real* sums, const real* before, int R) {
  rv_outer<n, m>(out, x, g, total, R);
  for (int j = 0; j < m; j++) sums[j] = before ? before[j] + g[j] : g[j];
}
#endif
template <int n> OUTLINE void rv_rows(real* out, const real* x, const real* total, int R) {
  for (int k = TID; k < n; k += NT) {
    real sum = x[k * T];
    for (int r = 1; r < R; r++) sum = sum + x[k * T + r];
    out[k] = total ? total[k] + sum : sum;
  }
}
#endif
// An elementary function of n numbers; on the host of whole vectors: every value has that much room.
#define STRETCH1(f) APART void f##_stretch(real* RESTRICT out, const real* RESTRICT x, int n) { \
  UNROLL for (int i = TID; i < WHOLE(n); i += NT) out[i] = f(x[i]); }
#define STRETCH2(f) APART void f##_stretch(real* RESTRICT out, const real* RESTRICT x, const real* RESTRICT y, int n) { \
  UNROLL for (int i = TID; i < WHOLE(n); i += NT) out[i] = f(x[i], y[i]); }
template <int n> OUTLINE void rv_rows_max(real* out, const real* x, const real*, int R) {
  UNROLL for (int k = TID; k < n; k += NT) {
    real sum = x[k * STRIDE];
    for (int r = 1; r < R; r++) { const real y = x[k * STRIDE + r]; sum = y > sum || y != y ? y : sum; }
    out[k] = sum;
  }
}
