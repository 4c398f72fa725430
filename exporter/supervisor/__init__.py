"""The privileged role: has programs loaded, keeps every descriptor, starts the server, reloads, measures overhead.

supervisor.py is the loop; each other module is one thing that the loop looks after. Nothing here reads a map for a
scrape, and no network is touched.
"""
