"""Rows of keys and values -> the series of a family: label sets, limits, histograms, and totals that never go down.

Nothing here reads a map or writes text.
"""
