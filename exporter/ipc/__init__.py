"""Typed messages and file descriptors -> another process of the exporter, and back; children that run one function.

protocol.py has the messages, messages.py carries them, isolated.py forks. Nothing here acts on a message.
"""
