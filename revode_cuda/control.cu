// The controller of adaptive.py behind an attempt of a step by all tiles, so that the next attempt need not wait for the host.
//
//     E     of each tile: whether its solution is finite, and the sums of squares of its errors
//     B     the controller's numbers, its options, the times to stop at, and behind them a log: of each attempt t1 and its norms
//
// What it decides is a guess: the host goes through the log with the controller of Python, and takes as much as is what that decides.
// (A power may differ in its last bit. Everything else is the same, operation by operation.) An attempt goes from the state in row
// AT_ROW of a list to the next row; it is accepted where that becomes the row of the next attempt. Where DONE is set nothing is done.
//
// launch: one block of LANES threads. search.py puts rv_power before this text, in double, and the type of the states for STATE.

#define LANES 128
enum { DONE, AT_ROW, MOST, FRESH, FLOWS, FIRST, T0, T1, H, H_BEFORE, NEXT_H, NORM_1, NORM_2, AT_STOP, ATTEMPTS, DIRECTION, END, SAFETY,
       SHRINK, GROW, MAX_STEP, MIN_STEP, POWER_1, POWER_2, POWER_3, STOPS };
#define FINITE(x) ((x) - (x) == 0)
#define LARGER(a, b) ((b) > (a) ? (b) : (a))
#define SMALLER(a, b) ((b) < (a) ? (b) : (a))

// The root of the mean square of an error; Inf where anything is not finite.
FUNCTION double norm_of(STATE total, long long entries, bool finite) {
    const STATE norm = (STATE)sqrt((double)(total / (STATE)entries));
    return finite && FINITE(norm) ? (double)norm : 1 / (double)0;
}

FUNCTION double factor_of(const double* B, double norm) {
    if (!FINITE(norm)) return B[SHRINK];
    const double tiny = 1e-10, e[3] = {norm, B[NORM_1], B[NORM_2]};
    double value = B[SAFETY];
    #pragma unroll
    for (int k = 0; k < 3; k++)
        if (B[POWER_1 + k] != 0) value = value * rv_power(LARGER(e[k], tiny), B[POWER_1 + k]);
    value = SMALLER(LARGER(value, B[SHRINK]), B[GROW]);
    return norm <= 1 ? value : SMALLER(value, B[SAFETY]);
}

// The end of the next attempt: t0 + h, but never past the next stop, and not leaving a crumb before it.
FUNCTION double end_of_step(double* B, int stops) {
    while (B[AT_STOP] < stops - 1 && (B[STOPS + (int)B[AT_STOP]] - B[T0]) * B[DIRECTION] <= 0) B[AT_STOP] += 1;
    const double stop = B[STOPS + (int)B[AT_STOP]], left = fabs(stop - B[T0]), h = B[NEXT_H];
    if (left <= h * 1.0001) return stop;
    return B[T0] + B[DIRECTION] * (left >= 2 * h ? h : left / 2);
}

FUNCTION void control_of(double* B, int stops, double norm, double apart) {
    double* const log = B + STOPS + stops + 3 * (int)B[ATTEMPTS];
    log[0] = B[T1], log[1] = norm, log[2] = apart;
    B[ATTEMPTS] += 1;
    norm = LARGER(norm, apart);
    const double length = fabs(B[T1] - B[T0]), factor = factor_of(B, norm), next = SMALLER(length * factor, B[MAX_STEP]);
    const bool accepted = norm <= 1;
    B[FRESH] = accepted && B[FLOWS] != 0;
    if (accepted) {
        B[NORM_2] = B[NORM_1], B[NORM_1] = norm;
        if (B[T1] == B[END] || length >= 0.99 * B[NEXT_H] || factor < 1) B[NEXT_H] = next;
        B[T0] = B[T1], B[H_BEFORE] = B[H], B[FIRST] = 0, B[AT_ROW] += 1;
    } else {
        B[NEXT_H] = next;
    }
    if (B[T0] == B[END] || B[AT_ROW] == B[MOST]) {
        B[DONE] = 1;
        return;
    }
    B[T1] = end_of_step(B, stops);
    B[H] = (double)(STATE)(B[T1] - B[T0]);
    if (B[FIRST] != 0) B[H_BEFORE] = B[H];
}

extern "C" KERNEL void control(double* B, const STATE* E, long long tiles, long long entries, int errors, int stops) {
    __shared__ STATE part[3][LANES];
    if (B[DONE] != 0) return;
    STATE error = 0, apart = 0;
    bool finite = true;
    for (long long first = 0; first < tiles; first += LANES) {              // sums of the tiles, in their order
        const int n = (int)SMALLER(tiles - first, LANES);
        for (int i = TID; i < n; i += NT)
            for (int j = 0; j <= errors; j++) part[j][i] = E[(first + i) * (errors + 1) + j];
        SYNC
        for (int i = 0; TID == 0 && i < n; i++) {
            finite = finite && part[0][i] != 0;
            error = first + i ? error + part[1][i] : part[1][i];
            if (errors > 1) apart = first + i ? apart + part[2][i] : part[2][i];
        }
        SYNC
    }
    if (TID) return;
    control_of(B, stops, norm_of(error, entries, finite), errors > 1 ? norm_of(apart, entries, finite) : 0);
}
