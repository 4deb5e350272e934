"""What all tests share: hypothesis without a clock and without chance, so that a run can be repeated."""
from hypothesis import settings

settings.register_profile("revode", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("revode")
