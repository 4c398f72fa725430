"""A metric of the configuration and the C types of its map -> which bytes to read and how to decode them (Binding).

Loader, `check` and server use the same functions, so a metric that does not fit its map is refused before anything is
attached. This folder does not read maps.
"""
