"""C text -> lines that compile under bcc and then count wrong, each with what to write instead.

No compiler is needed, and nothing is changed.
"""
