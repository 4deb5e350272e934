// The search for an adaptive grid: attempts of a step by all tiles, and the controller of adaptive.py, number for number.
//
// Stands behind tiles.hpp and the functions of the programs (search_tiles.py): begin_tile, step_tile, begin_grid and step_grid (FED: the
// host makes what depends on the times and sizes, and asks for one attempt at a time), and the macros BEGINS, FLOWS, ERRORS, ERROR_AT, SOLUTION, FEATURES, SEEN, TILES and GRID. NUMBERS, COUNTS and OPTIONS are enums of
// what lies where in C, I and O.
#define rv_finite(x) ((x) - (x) == 0)
#define rv_larger(a, b) ((b) > (a) ? (b) : (a))
#define rv_smaller(a, b) ((b) < (a) ? (b) : (a))
static inline double rv_spacing(double x) { return __builtin_nextafter(x, __builtin_inf()) - x; }
static inline double rv_spacing(float x) { return (double)(__builtin_nextafterf(x, __builtin_inff()) - x); }

// The root of the mean square of an error: sums of the tiles, in their order; Inf where anything is not finite.
static double rv_norm(const real* M, INDEX rows, int at) {
  real total = M[at];
  for (INDEX tile = 1; tile < TILES; tile++) total = total + M[tile * MEMORY + at];
  const real norm = rv_sqrt(total / (real)(rows * FEATURES));
  bool finite = rv_finite(norm);
  for (INDEX tile = 0; tile < TILES; tile++)
    for (int k = 0; k < FEATURES * T; k++) finite = finite && rv_finite(M[tile * MEMORY + SOLUTION + k]);
  return finite ? (double)norm : __builtin_inf();
}

// What a step changes, to B (keeps) or back from it.
static void rv_aside(real* M, real* B, INDEX rows, bool keeps) {
  for (INDEX tile = 0; tile < TILES; tile++) {
    real *from = keeps ? M + tile * MEMORY : B + tile * PERSISTENT, *to = keeps ? B + tile * PERSISTENT : M + tile * MEMORY;
    for (int k = 0; k < PERSISTENT; k++) to[k] = from[k];
  }
}

extern "C" void attempt(INDEX begins, INDEX stays, double t0, double t1, double h, double h_before, const double* GB,
                        const double* GS, const real* P, real* M, real* B, INDEX rows, double* norms) {
  static const int errors[] = {ERROR_AT};
#if !FED
  double G[GRID];
  GB = GS = G;
#endif
#if BEGINS
  if (begins) {
#if !FED
    begin_grid(t0, t1, (real)h, (real)h_before, G);
#endif
    for (INDEX tile = 0; tile < TILES; tile++) begin_tile(tile, M, P, GB, rows);
  }
#endif
  if (stays) rv_aside(M, B, rows, true);
#if !FED
  step_grid(t0, t1, (real)h, (real)h_before, G);
#endif
  for (INDEX tile = 0; tile < TILES; tile++) step_tile(tile, M, P, GS, rows);
  for (int j = 0; j < ERRORS; j++) norms[j] = rv_norm(M, rows, errors[j]);
}

#if !FED
// t0 + h, but never past the next stop, and not leaving a crumb before it.
static double rv_end(double t0, double h, const double* stops, INDEX* I, const double* O) {
  while ((stops[I[at_stop]] - t0) * O[direction] <= 0) I[at_stop]++;
  const double stop = stops[I[at_stop]], left = __builtin_fabs(stop - t0);
  if (left <= h * 1.0001) return stop;
  return t0 + O[direction] * (left >= 2 * h ? h : left / 2);
}

static double rv_factor(double norm, const double* C, const double* O) {
  if (!rv_finite(norm)) return O[shrink];
  const double tiny = 1e-10;
  double value = O[safety] * __builtin_pow(rv_larger(norm, tiny), O[power_1]) * __builtin_pow(rv_larger(C[norm_1], tiny), O[power_2])
      * __builtin_pow(rv_larger(C[norm_2], tiny), O[power_3]);
  value = rv_smaller(rv_larger(value, O[shrink]), O[grow]);
  return norm <= 1 ? value : rv_smaller(value, O[safety]);
}

static double rv_smallest(double t0, double t1, const double* O) {
  if (O[min_step] != 0) return O[min_step];
  const double a = __builtin_fabs(t0), b = __builtin_fabs(t1), fine = 10 * rv_spacing(rv_larger(a, b)), own = 10 * rv_spacing((real)a);
  return rv_larger(fine, own);
}

// Steps from where the grid ends, until the room for `most` accepted ones is full, `tries` attempts have been made, the end is
// reached, or it cannot go on. What is accepted goes to ts, hs and L.
extern "C" void search(INDEX most, INDEX tries, double* C, INDEX* I, const double* O, const double* stops, double* ts, double* hs,
                       const real* P, real* M, real* B, INDEX rows, real* L) {
  I[found] = I[outcome] = 0;
  while (I[found] < most && tries-- > 0) {
    const double t0 = C[at_t];
    if (++I[tried] > I[most_tries]) { I[outcome] = TOO_MANY; return; }
    const double t1 = rv_end(t0, C[next_h], stops, I, O), h = (double)(real)(t1 - t0), length = __builtin_fabs(t1 - t0);
    double norms[2] = {0, 0};
    attempt(I[fresh_begin], I[stays], t0, t1, h, I[steps] ? C[last_h] : h, 0, 0, P, M, B, rows, norms);
    I[begun] += I[fresh_begin];
    I[attempts]++;
    I[parting] = norms[1] > norms[0];
    const double norm = rv_larger(norms[0], norms[1]), factor = rv_factor(norm, C, O);
    I[fresh_begin] = I[stays] = 0;
    if (norm <= 1) {
      C[norm_2] = C[norm_1];
      C[norm_1] = norm;
      if (t1 == O[end] || length >= 0.99 * C[next_h] || factor < 1) C[next_h] = rv_smaller(length * factor, O[max_step]);
      ts[I[found]] = C[at_t] = t1;
      hs[I[found]] = C[last_h] = h;
      for (INDEX tile = 0; tile < TILES; tile++)
        for (int k = 0; k < SEEN; k++) L[(I[found] * TILES + tile) * SEEN + k] = M[tile * MEMORY + k];
      I[found]++, I[steps]++;
      I[fresh_begin] = FLOWS, I[stays] = 1;
      if (t1 == O[end]) return;
      continue;
    }
    rv_aside(M, B, rows, false);
    I[rejected]++;
    I[fresh_begin] = !FLOWS && !I[steps];
    const double smallest = rv_smallest(t0, O[end], O);
    C[next_h] = rv_smaller(length * factor, O[max_step]);
    if (C[next_h] < smallest) { I[outcome] = TOO_SMALL; return; }
  }
}
#endif
