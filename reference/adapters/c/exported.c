/* The same for a file that rv.export_c wrote: model.h and model.c are those of one case, case.h says which (exported.py). */
#include "json.h"
#include "model.h"
#include "case.h"                    /* NAME, STEPS, D, PARAMS, and LEAF(name, rows, columns) for each leaf of the parameters */

static char text[1 << 16];
static double params[PARAMS], a_params[PARAMS], y0[D], ay0[D], ys[(STEPS + 1) * D], weights[(STEPS + 1) * D], work[MODEL_WORK];

int main(void) {
  text[fread(text, 1, sizeof text - 1, stdin)] = 0;
  if (!strstr(text, "\"name\": \"" NAME "\"")) {
    printf("{\"unsupported\": \"this program is the solver of " NAME "\"}\n");
    return 0;
  }
  const char* inside = strstr(text, "\"params\":");
  double* at = params;
  numbers(text, "y0", y0, D);
  numbers(text, "weights", weights, (STEPS + 1) * D);
#define LEAF(name, rows, columns) numbers(inside, name, at, rows * columns), at += rows * columns;
  LEAVES
#undef LEAF
  model_gradient(y0, params, weights, ys, ay0, a_params, work);
  printf("{");
  print_rows("ys", ys, STEPS + 1, D), printf(", ");
  print("ay0", ay0, D), printf(", \"aparams\": {");
  at = a_params;
#define LEAF(name, rows, columns) printf(at == a_params ? "" : ", "), print_rows(name, at, rows, columns), at += rows * columns;
  LEAVES
  printf("}}\n");
  return 0;
}
