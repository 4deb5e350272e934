"""A reverse-mode engine: the tape, THE table of rules, derivatives, trees, and the functions of NumPy. It knows no solver."""
from .checking import check_vjp
from .derivatives import custom_vjp, grad, stop_gradient, value_and_grad, vjp
from .tangents import jvp
from .tensor import Tensor

__all__ = ["Tensor", "check_vjp", "custom_vjp", "grad", "jvp", "stop_gradient", "value_and_grad", "vjp"]
