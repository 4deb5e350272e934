/* Enough of JSON for `revode check --exec`: the names that matter are looked for in the text, and the numbers after a name are
   read in order, whatever brackets stand between them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The numbers of the array (or the number) that belongs to a name, after the place `from`. */
static int numbers(const char* from, const char* name, double* out, int most) {
  char key[32];
  snprintf(key, sizeof key, "\"%s\":", name);
  const char* at = strstr(from, key);
  if (!at) return 0;
  int depth = 0, count = 0;
  for (at += strlen(key); count < most; ) {
    if (*at == '[') depth++, at++;
    else if (*at == ']') { at++; if (--depth == 0) break; }
    else if (*at == ',' || *at == ' ') { if (*at == ',' && !depth) break; at++; }
    else if (*at == '}' || !*at) break;
    else out[count++] = strtod(at, (char**)&at);
  }
  return count;
}

static void print(const char* name, const double* x, int n) {
  printf("\"%s\": [", name);
  for (int i = 0; i < n; i++) printf(i ? ", %.17g" : "%.17g", x[i]);
  printf("]");
}

static void print_rows(const char* name, const double* x, int rows, int n) {
  printf("\"%s\": [", name);
  for (int r = 0; r < rows; r++) {
    printf(r ? ", [" : "[");
    for (int i = 0; i < n; i++) printf(i ? ", %.17g" : "%.17g", x[r * n + i]);
    printf("]");
  }
  printf("]");
}
