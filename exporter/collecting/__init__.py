"""The maps of one loaded program -> the families of its metrics as exposition text.

Each folder is a step: maps/ reads raw keys and values into arrays, series/ turns rows into series and their totals,
text/ writes the lines. Nothing here attaches a program or speaks to a client.
"""
