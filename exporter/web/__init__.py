"""HTTP on sockets that never block: requests -> an application -> responses; with TLS, passwords and rate limits.

h11 parses what clients send. This folder does not know what a page of metrics contains.
"""
