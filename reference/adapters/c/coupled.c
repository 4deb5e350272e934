/* The worked example of `revode check --exec`: the coupled midpoint method (McCallum & Foster 2024) and its reverse sweep in C.

       cc -O2 -o coupled coupled.c -lm
       revode check --exec ./coupled --cases 'coupled-midpoint*'

   A program reads one JSON object from its standard input and prints one. json.h does that. */
#include "json.h"
#include <math.h>

enum { D = 3, H = 4, STEPS = 64 };
static char text[1 << 16];

/* f(t, y) = tanh(y W1 + t b1) W2 + b2 - k y, and its pullback: ay += a df/dy, and the gradient of the parameters */
static struct { double W1[D * H], b1[H], W2[H * D], b2[D], k; } p, g;

static void hidden(double t, const double* y, double* u) {
  for (int j = 0; j < H; j++) {
    double s = t * p.b1[j];
    for (int i = 0; i < D; i++) s += y[i] * p.W1[i * H + j];
    u[j] = tanh(s);
  }
}

static void field(double t, const double* y, double* f) {
  double u[H];
  hidden(t, y, u);
  for (int i = 0; i < D; i++) {
    f[i] = p.b2[i] - p.k * y[i];
    for (int j = 0; j < H; j++) f[i] += u[j] * p.W2[j * D + i];
  }
}

static void field_vjp(double t, const double* y, const double* a, double* ay) {
  double u[H];
  hidden(t, y, u);
  for (int i = 0; i < D; i++) {
    g.b2[i] += a[i];
    g.k -= y[i] * a[i];
    ay[i] -= p.k * a[i];
  }
  for (int j = 0; j < H; j++) {
    double s = 0;
    for (int i = 0; i < D; i++) s += p.W2[j * D + i] * a[i], g.W2[j * D + i] += u[j] * a[i];
    s *= 1 - u[j] * u[j];
    g.b1[j] += t * s;
    for (int i = 0; i < D; i++) g.W1[i * H + j] += y[i] * s, ay[i] += p.W1[i * H + j] * s;
  }
}

/* Psi_h(t, y) = h f(t + h/2, y + h/2 f(t, y)) */
static void psi(double t, double h, const double* y, double* out) {
  double k[D], Y[D];
  field(t, y, k);
  for (int i = 0; i < D; i++) Y[i] = y[i] + h / 2 * k[i];
  field(t + h / 2, Y, out);
  for (int i = 0; i < D; i++) out[i] *= h;
}

static void psi_vjp(double t, double h, const double* y, const double* a, double* ay) {
  double k[D], Y[D], b[D], aY[D] = {0};
  field(t, y, k);
  for (int i = 0; i < D; i++) Y[i] = y[i] + h / 2 * k[i], b[i] = h * a[i];
  field_vjp(t + h / 2, Y, b, aY);
  for (int i = 0; i < D; i++) b[i] = h / 2 * aY[i], ay[i] += aY[i];
  field_vjp(t, y, b, ay);
}

int main(void) {
  text[fread(text, 1, sizeof text - 1, stdin)] = 0;
  if (!strstr(text, "\"name\": \"Coupled\"") || !strstr(text, "\"base\": \"midpoint\"") || !strstr(text, "\"kind\": \"ode\"")) {
    printf("{\"unsupported\": \"coupled midpoint on ordinary equations is all there is\"}\n");
    return 0;
  }
  double lam, ts[STEPS + 1], w[(STEPS + 1) * D], ys[(STEPS + 1) * D], y[D], z[D], v[D];
  const char* inside = strstr(text, "\"params\":");
  numbers(text, "lam", &lam, 1);
  int N = numbers(text, "ts", ts, STEPS + 1) - 1;
  numbers(text, "y0", y, D);
  numbers(text, "weights", w, (STEPS + 1) * D);
  numbers(inside, "W1", p.W1, D * H);
  numbers(inside, "b1", p.b1, H);
  numbers(inside, "W2", p.W2, H * D);
  numbers(inside, "b2", p.b2, D);
  numbers(inside, "k", &p.k, 1);
  memcpy(z, y, sizeof z);
  memcpy(ys, y, sizeof y);
  for (int n = 0; n < N; n++) {                      /* y' = lam y + (1 - lam) z + Psi_h(t, z),   z' = z - Psi_{-h}(t + h, y') */
    double h = ts[n + 1] - ts[n];
    psi(ts[n], h, z, v);
    for (int i = 0; i < D; i++) y[i] = lam * y[i] + (1 - lam) * z[i] + v[i];
    psi(ts[n + 1], -h, y, v);
    for (int i = 0; i < D; i++) z[i] -= v[i];
    memcpy(ys + (n + 1) * D, y, sizeof y);
  }
  double ay[D], az[D] = {0}, a[D];
  memcpy(ay, w + N * D, sizeof ay);
  for (int n = N - 1; n >= 0; n--) {                 /* nothing was stored: both are reconstructed on the way back */
    double h = ts[n + 1] - ts[n];
    psi(ts[n + 1], -h, y, v);
    for (int i = 0; i < D; i++) a[i] = -az[i];
    psi_vjp(ts[n + 1], -h, y, a, ay);
    for (int i = 0; i < D; i++) z[i] += v[i];
    psi(ts[n], h, z, v);
    psi_vjp(ts[n], h, z, ay, az);
    for (int i = 0; i < D; i++) {
      y[i] = (y[i] - (1 - lam) * z[i] - v[i]) / lam;
      az[i] += (1 - lam) * ay[i];
      ay[i] = lam * ay[i] + w[n * D + i];
    }
  }
  for (int i = 0; i < D; i++) ay[i] += az[i];
  printf("{");
  print_rows("ys", ys, N + 1, D), printf(", ");
  print("ay0", ay, D), printf(", \"aparams\": {");
  print_rows("W1", g.W1, D, H), printf(", "), print("b1", g.b1, H), printf(", ");
  print_rows("W2", g.W2, H, D), printf(", "), print("b2", g.b2, D), printf(", \"k\": %.17g}}\n", g.k);
  return 0;
}
