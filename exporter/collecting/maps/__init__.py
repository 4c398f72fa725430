"""Descriptors of BPF maps -> arrays of raw keys and values, and integer columns of the fields in them.

A label or a metric is not known here.
"""
