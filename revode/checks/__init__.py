"""Every refusal of what the user gave, before the first step; what passes is a Problem that can be marched.

Each message says what was given, what is expected, and what to do. A file for each kind of thing that is given; preparing.py
asks them in the order of the arguments.
"""
from .arguments import hinted
from .choices import check_backend, check_exact, checked_gradient, method_of, of_one_arithmetic, on_lattice
from .grids import check_plain, check_save, check_save_at, check_single, check_smooth, check_times
from .leaves import check_params
from .preparing import prepare
from .states import check_reached, check_y0

__all__ = ["check_backend", "check_exact", "check_params", "check_plain", "check_reached", "check_save", "check_save_at",
           "check_single", "check_smooth", "check_times", "check_y0", "checked_gradient", "hinted", "method_of", "of_one_arithmetic",
           "on_lattice", "prepare"]
