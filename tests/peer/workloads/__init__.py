"""Work whose amount somebody else counts too: the kernel in /proc and /sys, or the code that does it.

Python's standard library and Debian's basic tools only: these run inside the virtual machines as well.
"""
