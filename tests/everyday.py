"""Which tests are for every day. The others are `long`: `python -m pytest -m long`; `python -m reference.release_check` runs all.

A test marked `sample(n)` has a table of cases: n of them are for every day, more where each value of each parameter wants one
(of each parameter that has values more than once; not so for `sample(n, cover=False)`, where each case takes seconds). They are
the same on every machine, and stay when the table grows: those whose names have the least checksums.
"""
from zlib import crc32

import pytest


def mark_long(items):
    """All cases but the sample are marked `long`, each test by itself."""
    cases = {}
    for item in items:
        if (marker := item.get_closest_marker("sample")) is not None:
            cases.setdefault((item.path, item.originalname), (marker, []))[1].append(item)
    for marker, group in cases.values():
        kept = {id(item) for item in sample(group, *marker.args, **marker.kwargs)}
        for item in group:
            if id(item) not in kept:
                item.add_marker(pytest.mark.long)


def sample(group, least, cover=True):
    """Of these cases `least`; if they are to cover, every value at least once of the parameters that have values more than once."""
    group = sorted(group, key=lambda item: crc32(item.name.encode()))
    columns = [[repr(item.callspec.params[name]) for item in group] for name in group[0].callspec.params if cover]
    columns = [column for column in columns if len(set(column)) < len(column)]
    seen, kept = set(), []
    for i, item in enumerate(group):
        values = {(n, column[i]) for n, column in enumerate(columns)}
        kept += [item] if values - seen else []
        seen |= values
    return kept + [item for item in group if item not in kept][:max(0, least - len(kept))]
