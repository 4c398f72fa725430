"""Each module is a command of `bpf-exporter`: parsed arguments -> output and an exit code (exit_codes.py).

printing.py and verdicts.py are shared by several. cli.py parses the arguments and imports the module of the command
that runs only.
"""
