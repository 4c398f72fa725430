"""The unprivileged role: programs and map descriptors from the supervisor -> answers to scrapes.

process.py is the process, registry.py the programs, pages.py the page of metrics. Nothing here loads or attaches.
"""
