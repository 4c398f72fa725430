"""The unprivileged role: programs and map descriptors from the supervisor -> answers to scrapes.

process.py is the process, registry.py has the programs, pages.py makes the page of metrics. Nothing here loads or
attaches.
"""
