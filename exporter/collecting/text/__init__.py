"""Families of series -> the bytes of an exposition format. A new wire format is a new module here.

Nothing here knows where a value comes from.
"""
