"""Traffic made for tests: how much of what kind is known, so that it can be found in a program's counters.

Python's standard library and iproute2 only, nothing of the exporter: these run inside the virtual machines too.
"""
