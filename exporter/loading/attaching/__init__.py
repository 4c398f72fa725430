"""Attach points of a loaded variant -> links that hold its programs there. A kind of attach point is a row of KINDS in
one module, and a function that attaches.

Nothing here compiles or loads a program.
"""
