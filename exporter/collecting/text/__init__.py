"""Families of series -> the bytes of an exposition format. This folder does not know where a value comes from.

exposition.py writes text 0.0.4 and OpenMetrics at once (exposition.Text); server/registry.py keeps the text and not the
families. Another format is a module here, a field of exposition.Text, and a change of server/registry.py,
server/pages.py (a page per format), web/negotiation.py (Accept), web/application.py (Content-Type) and the rehearsal in
server/process.py.
"""
