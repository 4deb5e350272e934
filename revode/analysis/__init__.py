"""Looking at methods from outside: linear stability, order as observed, round-off, the programs that are made of them."""
from .order import local_orders, observed_order
from .programs import Printed, printed
from .roundoff import accumulated, gulp, modal_growth, reverse_growth, rulp, scaled_ulps
from .stability import amplification, determinant, intervals, limit, region, spectral_radius

__all__ = ["Printed", "accumulated", "amplification", "determinant", "gulp", "intervals", "limit", "local_orders", "modal_growth",
           "observed_order", "printed", "region", "reverse_growth", "rulp", "scaled_ulps", "spectral_radius"]
