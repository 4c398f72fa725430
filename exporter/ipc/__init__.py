"""What processes of the exporter say to each other: typed messages with file descriptors over a Unix socket.

Nothing here acts on a message.
"""
