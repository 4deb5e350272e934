// What watch/quiet.py measures of a sweep (`measured` there), in one pass, in double. `real` stands before it.
// n: parts, members, features, numbers in a row of X, windows, width; on the way ahead looks, windows, width; rows and entries that
//    flowed, numbers from one row to the next, leaves; y; numbers in a row of ahead;  then where all arrays lie
// place: where in a row the entries lie, part by part; ends: where those lie with which the sweep ends, in S what came, in truth what
//    had been there, in S the cotangents
// s: eps, tiny, allowed, N, apart.  out: S_p, S_y, S_d, together, W_p, off, size, ahead, a_y, least, smallest, E, C.  A: |a y| + tiny
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

extern "C" __attribute__((cold)) void rv_quiet(const quiet_whole* n) {
  const quiet_whole *place = (quiet_whole*)n[15], *at = (quiet_whole*)n[16], *ahead_place = (quiet_whole*)n[17],
    *ahead_at = (quiet_whole*)n[18], *ends = (quiet_whole*)n[19], *begins = (quiet_whole*)n[20];
  const double *s = (double*)n[21], *L = (double*)n[22], *ahead_L = (double*)n[23], *h = (double*)n[24];
  const real *X = (real*)n[25], *ahead = (real*)n[26], *S = (real*)n[27], *truth = (real*)n[28], *weighed = (real*)n[29],
    *flowed = (real*)n[30];
  double* out = (double*)n[31];
  real* A = (real*)n[32];
  const quiet_whole p = n[0], F = n[2], m = n[1] * F, windows = n[4], width = n[5], c = 2 * p * width;
  const double eps = s[0], tiny = s[1];
  for (int i = 0; i < 13; i++) out[i] = 0;
  for (quiet_whole i = 0; i < m; i++) A[i] = 0;
  for (quiet_whole member = 0; member < n[1]; member++) {
    double all_be = 0, all_moved = 0, S_y = 0, S_d = 0;
    for (quiet_whole w = 0; w < windows; w++) {
      double be = 0, moved = 0, ay = 0, size = 0, change = 0;
      for (quiet_whole i = member * F; i < (member + 1) * F; i++) {
        double q[7] = {0, 0, 0, 0, 0, 0, 0};
        for (quiet_whole part = 0, j = 0; part < p; part++)                  // the first three are made of states, the others of
          for (quiet_whole near = 0; near < width; near++, j++) {            // cotangents
            const real* row = X + at[near * windows + w] * n[3];
            const double x = row[place[part * m + i]], a = row[place[(p + part) * m + i]];
            for (int k = 0; k < 3; k++) q[k] += L[k * c + j] * x;
            for (int k = 3; k < 7; k++) q[k] += L[k * c + p * width + j] * a;
          }
        for (int k = 0; k < 7; k++) q[k] = quiet_abs(q[k]);
        be += q[0] * q[3]; moved += q[1] * q[4]; ay += q[2] * q[5]; size += q[5]; change += q[6];
        A[i] = (real)quiet_worst(A[i], q[2] * q[5]);
        out[8] = quiet_worst(out[8], q[5]);
      }
      moved += 1024 * eps * ay;
      all_be += be; all_moved += moved;
      S_y += be / (ay + tiny);
      change /= s[4] * size + tiny;
      S_d += be * (change > 1 / eps ? 1 / eps : change) / (moved + tiny);
    }
    out[0] = quiet_worst(out[0], all_be / (all_moved + tiny));
    out[1] = quiet_worst(out[1], S_y * s[3] / windows);
    out[2] = quiet_worst(out[2], S_d * s[3] / windows);
  }
  out[3] = 1;
  for (quiet_whole w = 0; w < n[7]; w++)
    for (quiet_whole i = 0; i < m; i++) {
      double gap = 0, y = 0;
      for (quiet_whole part = 0, j = 0; part < p; part++)
        for (quiet_whole near = 0; near < n[8]; near++, j++) {
          const double x = ahead[ahead_at[near * n[7] + w] * n[14] + ahead_place[part * m + i]];
          gap += ahead_L[j] * x; y += ahead_L[p * n[8] + j] * x;
        }
      if (!(quiet_abs(gap) * (h ? h[w] : 1) <= s[2] * quiet_abs(y))) out[3] = 0;
    }
  for (quiet_whole look = 0; look < n[6]; look++)
    for (quiet_whole i = 0; i < m; i++) out[7] = quiet_worst(out[7], quiet_abs(ahead[look * n[14] + ahead_place[n[13] * m + i]]));
  out[10] = quiet_abs(truth[ends[(p + n[13]) * m]]);
  for (quiet_whole i = 0; i < m; i++) {
    A[i] += (real)tiny;
    double a = 0;
    for (quiet_whole k = 0; k < p; k++) {
      const double there = truth[ends[(p + k) * m + i]], ak = S[ends[(2 * p + k) * m + i]];
      const double off = quiet_abs(S[ends[k * m + i]] - there), size = quiet_abs(there);
      out[4] = quiet_worst(out[4], quiet_abs(ak) * off / A[i]);
      out[5] = quiet_worst(out[5], off);
      out[6] = quiet_worst(out[6], size);
      for (quiet_whole j = 0; j < width; j++) a += L[5 * c + (p + k) * width + j] * ak;
      if (k == n[13] && size < out[10]) out[10] = size;
    }
    out[9] = quiet_worst(out[9], quiet_abs(a));
    if (weighed) out[11] = quiet_worst(out[11], weighed[i] / A[i]);
  }
  out[12] = quiet_flow(flowed, n[9], n[10], n[11], begins, n[12]);
  out[12] = out[12] > 1 || out[12] != out[12] ? __builtin_sqrt(out[12]) : 1;
}
