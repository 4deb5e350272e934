"""Experiments as data. EXPERIMENTS maps a name of the command line to the module that builds it:

    module.experiment(steps=N, dtype="float64") -> Experiment       module.STEPS: the published number of steps
"""
from . import white_dwarf

EXPERIMENTS = {"white-dwarf": white_dwarf}
