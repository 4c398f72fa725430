"""The privileged role: has programs loaded, keeps every descriptor, starts the server, reloads, measures overhead.

supervisor.py is the loop, programs.py the list of programs; most other modules are a part of the loop. Nothing here
reads a map for a scrape, and no network is touched.

After a restart under systemd, fd_store.py and adoption.py decide which stored programs are adopted.
"""
