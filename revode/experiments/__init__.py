"""Experiments, each a file: its problem, its data, its optimiser. EXPERIMENTS maps the names of
the command line to modules with

    experiment(**options) -> Experiment, or several of them, one for each row
"""
from . import cde, flow, oscillator, ou, pendulum, sir, spiral, volatility, white_dwarf

EXPERIMENTS = {"white-dwarf": white_dwarf, "oscillator": oscillator, "pendulum": pendulum,
               "sir": sir, "spiral": spiral,
               "ou": ou, "stochastic-volatility": volatility, "flow": flow, "cde": cde}
