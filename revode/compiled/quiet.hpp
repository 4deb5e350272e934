// What watch/quiet.py measures of a sweep (`measured` there), in one pass, in double. `real` stands before it.
// n: parts, members, features, numbers in a row of X, windows, width; on the way ahead looks, windows, width; rows and entries that
//    flowed, numbers from one row to the next, leaves; y; numbers in a row of ahead;  then where all arrays lie
// place: where in a row the entries lie, part by part; ends: where those lie with which the sweep ends, in S what came, in truth what
//    had been there, in S the cotangents
// side: whether eight members at a time lie side by side, entry by entry; else what they hold is picked up one by one
// s: eps, tiny, allowed, N, apart.  out: S_p, S_y, S_d, together, W_p, off, size, ahead, a_y, least, W_0, E, C.  A: |a y| + tiny
// starts: the leaves of y begin there, along its last axis, and the last one ends
typedef long long quiet_whole;
static inline double quiet_abs(double x) { return x < 0 ? -x : x; }
static inline double quiet_worst(double a, double b) { return a != a ? a : b <= a ? a : b; }          // the larger one, or NaN

// The largest square, among leaves, of how much has flowed to them in all, in units of what is left of it: of `rows` rows of sums.
static __attribute__((hot, noinline)) double quiet_flow(const real* flowed, quiet_whole rows, quiet_whole width,
    quiet_whole apart, const quiet_whole* begins, quiet_whole leaves) {
  double worst = 0, left = 0, amount = 0;
  quiet_whole leaf = 0;
  for (quiet_whole i = 0, some; i < width; i += some) {                    // many entries side by side, each in its own order
    double sum[64] = {0};
    const real* now = flowed + i;
    some = width - i < 64 ? width - i : 64;
    for (quiet_whole row = 1; row < rows; row++, now += apart)
      for (quiet_whole k = 0; k < some; k++) sum[k] += quiet_abs((double)now[apart + k] - now[k]);
    for (quiet_whole k = 0; k < some; k++) {
      left += (double)now[k] * now[k]; amount += sum[k] * sum[k];
      if (i + k + 1 < (leaf + 1 < leaves ? begins[leaf + 1] : width)) continue;
      if (left > 0 || left != left) worst = quiet_worst(worst, amount / left);
      left = amount = 0; leaf++;
    }
  }
  return worst;
}

// So many members at a time, each in a lane.
#if defined(__AVX512F__)
enum { SIDE = 8 };
#elif defined(__AVX__)
enum { SIDE = 4 };
#else
enum { SIDE = 2 };
#endif
typedef double quiet_many __attribute__((vector_size(SIDE * sizeof(double))));
typedef quiet_whole quiet_mask __attribute__((vector_size(SIDE * sizeof(double))));
typedef real quiet_reals __attribute__((vector_size(SIDE * sizeof(real)), aligned(sizeof(real))));

static inline quiet_many quiet_abs(quiet_many x) { return (quiet_many)((quiet_mask)x & 0x7fffffffffffffffLL); }
static inline quiet_many quiet_worst(quiet_many a, quiet_many b) {
  const quiet_mask keep = (a != a) | (b <= a);
  return (quiet_many)((keep & (quiet_mask)a) | (~keep & (quiet_mask)b));
}

// An entry of `some` members, whose places are F apart, and of no member 0; side: these lie side by side.
static __attribute__((noinline)) quiet_many quiet_gather(const real* row, const quiet_whole* place, quiet_whole F, quiet_whole some) {
  quiet_many x = {};
  for (quiet_whole l = 0; l < some; l++) x[l] = row[place[l * F]];
  return x;
}
static inline quiet_many quiet_take(const real* row, const quiet_whole* place, quiet_whole F, quiet_whole some, bool side) {
  return side ? __builtin_convertvector(*(const quiet_reals*)(row + *place), quiet_many) : quiet_gather(row, place, F, some);
}

extern "C" void rv_quiet(const quiet_whole* n) {
  const quiet_whole *place = (quiet_whole*)n[15], *at = (quiet_whole*)n[16], *ahead_place = (quiet_whole*)n[17],
    *ahead_at = (quiet_whole*)n[18], *ends = (quiet_whole*)n[19], *begins = (quiet_whole*)n[20];
  const double *s = (double*)n[21], *L = (double*)n[22], *ahead_L = (double*)n[23], *h = (double*)n[24], *rise = (double*)n[36];
  const real *X = (real*)n[25], *ahead = (real*)n[26], *S = (real*)n[27], *truth = (real*)n[28], *weighed = (real*)n[29],
    *flowed = (real*)n[30];
  const quiet_whole* starts = (quiet_whole*)n[35];
  double* out = (double*)n[31];
  real* A = (real*)n[32];
  const quiet_whole p = n[0], F = n[2], m = n[1] * F, windows = n[4], width = n[5], c = 2 * p * width;
  const double eps = s[0], tiny = s[1];
  const bool side = n[33];
  for (quiet_whole i = 0; i < m; i++) A[i] = 0;
  quiet_many found[11] = {};
  double largest = 0, least = __builtin_inf(), E = 0;
  for (quiet_whole i = 0; i < m; i++) largest = quiet_worst(largest, quiet_abs((double)truth[ends[(p + n[13]) * m + i]]));
  const double floor = __builtin_sqrt(eps) * largest + tiny;
  for (quiet_whole member = 0; member < n[1]; member += SIDE) {
    const quiet_whole first = member * F, some = n[1] - member < SIDE ? n[1] - member : SIDE;
    quiet_many all_be = {}, all_moved = {}, S_y = {}, S_d = {};
    for (quiet_whole w = 0; w < windows; w++) {
      quiet_many be = {}, moved = {}, ay = {}, size = {}, change = {};
      for (quiet_whole i = first; i < first + F; i++) {
        quiet_many q[7] = {};
        for (quiet_whole part = 0, j = 0; part < p; part++)                  // the first three are made of states, the others of
          for (quiet_whole near = 0; near < width; near++, j++) {            // cotangents
            const real* row = X + at[near * windows + w] * n[3];
            const quiet_many x = quiet_take(row, place + part * m + i, F, some, side);
            const quiet_many a = quiet_take(row, place + (p + part) * m + i, F, some, side);
            for (int k = 0; k < 3; k++) q[k] += L[k * c + j] * x;
            for (int k = 3; k < 7; k++) q[k] += L[k * c + p * width + j] * a;
          }
        for (int k = 0; k < 7; k++) q[k] = quiet_abs(q[k]);
        const quiet_many here = q[2] * q[5];
        be += q[0] * q[3]; moved += q[1] * q[4]; ay += here; size += q[5]; change += q[6];
        found[8] = quiet_worst(found[8], q[5]);
        for (quiet_whole l = 0; l < some; l++) A[i + l * F] = (real)quiet_worst(A[i + l * F], here[l]);
      }
      moved += 1024 * eps * ay;
      all_be += be; all_moved += moved;
      S_y += be / (ay + tiny);
      change /= s[4] * size + tiny;
      const quiet_mask endless = change > 1 / eps;
      change = (quiet_many)((endless & (quiet_mask)(quiet_many{} + 1 / eps)) | (~endless & (quiet_mask)change));
      S_d += be * change / (moved + tiny);
    }
    found[0] = quiet_worst(found[0], all_be / (all_moved + tiny));
    found[1] = quiet_worst(found[1], S_y * s[3] / (double)windows);
    found[2] = quiet_worst(found[2], S_d * s[3] / (double)windows);
    for (quiet_whole i = first; i < first + F; i++) {
      quiet_many size = {};
      for (quiet_whole w = 0; w < n[7]; w++) {
        quiet_many gap = {}, y = {};
        for (quiet_whole part = 0, j = 0; part < p; part++)
          for (quiet_whole near = 0; near < n[8]; near++, j++) {
            const real* row = ahead + ahead_at[near * n[7] + w] * n[14];
            const quiet_many x = quiet_take(row, ahead_place + part * m + i, F, some, side);
            gap += ahead_L[j] * x; y += ahead_L[p * n[8] + j] * x;
          }
        size = quiet_worst(size, quiet_abs(y) * rise[w]);
        const quiet_mask together = quiet_abs(gap) * h[w] <= s[2] * (size / rise[w]);
        found[3] = (quiet_many)((quiet_mask)found[3] | (~together & (quiet_mask)(quiet_many{} + 1.0)));
      }
    }
    for (quiet_whole look = 0; look < n[6]; look++)
      for (quiet_whole i = first; i < first + F; i++)
        found[7] = quiet_worst(found[7], quiet_abs(quiet_take(ahead + look * n[14], ahead_place + n[13] * m + i, F, some, side)));
    for (quiet_whole i = first; i < first + F; i++) {
      quiet_many most = quiet_many{} + 1.0;
      for (quiet_whole l = 0; l < some; l++) most[l] = A[i + l * F] += (real)tiny;
      for (quiet_whole k = 0; k < p; k++) {
        const quiet_many there = quiet_abs(quiet_take(truth, ends + (p + k) * m + i, F, some, side));
        const quiet_many a = quiet_take(S, ends + (2 * p + k) * m + i, F, some, side);
        const quiet_many off = quiet_abs(quiet_take(S, ends + k * m + i, F, some, side) - quiet_take(truth, ends + (p + k) * m + i, F, some, side));
        found[4] = quiet_worst(found[4], quiet_abs(a) * off / most);
        found[5] = quiet_worst(found[5], off);
        found[6] = quiet_worst(found[6], there);
        if (k == n[13]) found[10] = quiet_worst(found[10], off / (there + floor));
      }
      if (weighed) for (quiet_whole l = 0; l < some; l++) E = quiet_worst(E, weighed[i + l * F] / most[l]);
    }
  }
  for (quiet_whole leaf = 0; leaf < n[34]; leaf++) {
    quiet_many sum = {};
    for (quiet_whole member = 0; member < n[1]; member += SIDE)
      for (quiet_whole f = starts[leaf]; f < starts[leaf + 1]; f++) {
        quiet_many a = {};
        for (quiet_whole k = 0; k < p; k++)
          for (quiet_whole j = 0; j < width; j++)
            a += L[5 * c + (p + k) * width + j] * quiet_take(S, ends + (2 * p + k) * m + member * F + f, F, n[1] - member < SIDE ? n[1] - member : SIDE, side);
        sum += a * a;
      }
    double left = 0;
    for (int l = 0; l < SIDE; l++) left += sum[l];
    left = __builtin_sqrt(left / (n[1] * (starts[leaf + 1] - starts[leaf])));
    if (!(left >= least)) least = left;
  }
  for (int i = 0; i < 11; i++) {
    out[i] = 0;
    for (int l = 0; l < SIDE; l++) out[i] = quiet_worst(out[i], (double)found[i][l]);
  }
  out[3] = out[3] == 0;
  out[9] = least;
  out[11] = E;
  out[12] = quiet_flow(flowed, n[9], n[10], n[11], begins, n[12]);
  out[12] = out[12] > 1 || out[12] != out[12] ? __builtin_sqrt(out[12]) : 1;
}
