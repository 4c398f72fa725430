"""One module for each command of `bpf-exporter`: parsed arguments -> output, and an exit code (exit_codes.py).

cli.py parses the arguments and imports the module of the chosen command only.
"""
