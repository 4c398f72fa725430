"""A metric of the configuration and the C types of its map -> which bytes to read and how to decode them (Binding).

Loader, `check` and server bind by the same functions, so a metric that does not fit its map is refused before anything
is attached. Nothing here reads a map.
"""
