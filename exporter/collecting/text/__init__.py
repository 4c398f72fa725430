"""Families of series -> the bytes of an exposition format. A new wire format is a new module here.

web/negotiation.py chooses the format from the Accept header, web/application.py sets its content type, and
server/pages.py keeps a page per format. This folder does not know where a value comes from.
"""
