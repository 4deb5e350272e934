// The stretches of a solve with checkpoints (stretches.py), for one tile: the moves that were planned, one after another. `real`, and
// the types of `run` and its arguments, stand before it.
// at: the two functions; states by row, as they lie in the memory of the tiles, those that are kept and behind them those of a
//    stretch; room for K; where in such a row the numbers of K lie; room for the looks of a stretch, for each tile
// n: moves, tiles, numbers of a tile in a row of states and of K, rows, the first step of the block, the last saved state, numbers
//    in the memory of a tile, in a row of grid values ahead, back and of what begins, saved states
// move: 0 ahead, first, last, row that it starts from or -1 to go on, row of the next look, where the looks stand or -1 for every step;
//       1 back, first, last, row of the state at first
extern "C" void rv_stretches(int tile, const INDEX* n, void* const* at, const INDEX* move, const INDEX* looks, const real* P_ahead,
    const real* P_back, real* M_ahead, real* M_back, const double* GB, const double* GS_ahead, const double* GS_back, INDEX rows,
    const INDEX* save, OUTPUTS) {
  const INDEX tiles = n[1], seen = n[2], known = n[3], most = n[4], from = n[5];
  const Run ahead = (Run)at[0], back = (Run)at[1];
  real* const states = (real*)at[2];
  real* const K = (real*)at[3];
  const INDEX* const place = (const INDEX*)at[4];
  INDEX* const every = (INDEX*)at[5] + tile * most;
  static const INDEX nowhere[1] = {-1};
  INDEX saved = n[6];
  for (INDEX i = 0; i < n[0]; i++, move += 6) {
    const INDEX first = move[1], last = move[2], row = move[3];
    if (move[0] == 0) {
      const INDEX* look = looks + move[5];
      real* const L = states + move[4] * tiles * seen;
      if (row >= 0)
        for (INDEX k = 0; k < seen; k++) M_ahead[tile * n[7] + k] = states[(row * tiles + tile) * seen + k];
      if (move[5] < 0) {
        look = every;
        for (INDEX k = 0; k < last - first; k++) every[k] = first + 1 + k;
      }
      const int begins = row >= 0;
      const double* const GS = GS_ahead + (first - from) * n[8];
      AHEAD;
      if (row >= 0) GB += n[10];
    } else {
      for (INDEX k = 0; k < last - first; k++)
        for (INDEX j = 0; j < known; j++) K[(k * tiles + tile) * known + j] = states[((row + k) * tiles + tile) * seen + place[j]];
      while (saved >= 0 && save[saved] >= last) saved--;
      const double* const GS = GS_back + (first - from) * n[9];
      BACK;
    }
  }
}
