"""Attach points of a loaded variant -> links that hold its programs there.

A kind of attach point is one function and one row of KINDS in a module that kinds.py names; spec.ATTACH_KINDS,
config/attach_points.py and config/document.py declare its name and its target. This folder does not compile or load.
"""
