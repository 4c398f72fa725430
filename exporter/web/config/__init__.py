"""A web configuration file (exporter-toolkit's format) -> settings of TLS, passwords, headers and the rate limit.

The supervisor reads the file in a child process; the server is handed the settings.
"""
