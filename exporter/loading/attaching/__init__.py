"""Attach points of a loaded variant -> links that hold its programs there.

A kind of attach point is one function and one row of KINDS in a module that kinds.py names; spec.ATTACH_KINDS,
config/attach_points.py and config/document.py declare its name and its target. commands/doctor.py tries each kind
(TARGETS), and other_kernel.py finds its targets in another kernel's types. If its target begins with FILE:, it is in
kind.FILE_KINDS; if it traps in user space, in supervisor/overhead.py (_TRAPS). This folder does not compile or load.
"""
