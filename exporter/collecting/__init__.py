"""The maps of one loaded program -> the families of its metrics as exposition text.

Each folder is a step: maps/ reads raw keys and values into arrays, series/ turns rows into series and their totals,
text/ writes the lines. self_metrics.py has the table of the exporter's own metrics: one row each. This folder does not
attach programs and does not serve HTTP.
"""
