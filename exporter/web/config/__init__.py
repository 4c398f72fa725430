"""A web configuration file (exporter-toolkit's format) -> settings of TLS, passwords, headers and the rate limit.

A child process of the supervisor reads the file and the supervisor sends the settings to the server. This folder does
not serve HTTP.
"""
