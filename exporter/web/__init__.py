"""HTTP on sockets that never block: requests -> an application -> answers; with TLS, passwords and rate limits.

Nothing here knows what a page holds.
"""
