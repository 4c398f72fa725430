"""The privileged role: has programs loaded, keeps every descriptor, starts the server, reloads, measures overhead.

supervisor.py is the loop, programs.py the list of programs; most other modules are a part of the loop. It
handles no network traffic and reads no map for a scrape.

After a restart under systemd, fd_store.py adopts stored programs and logs why others are not adopted; adoption.py,
which it calls, compares bytecode and probed files.
"""
