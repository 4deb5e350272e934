"""Experiments as data. EXPERIMENTS maps a name of the command line to the module that builds it:

    module.experiment(steps=N, dtype="float64") -> Experiment       module.STEPS: the number of steps by default

Modules with NAMES, the columns of a recorded file, take data=PATH as well.
"""
from . import oscillator, pendulum, sir, spiral, white_dwarf

EXPERIMENTS = {"oscillator": oscillator, "pendulum": pendulum, "sir": sir, "spiral": spiral, "white-dwarf": white_dwarf}
