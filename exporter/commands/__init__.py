"""The commands of `bpf-exporter`, one module each: parsed arguments -> output and an exit code (`command(options)`).

`supervise` is in run.py, `schema` in cli.py. exit_codes.py, printing.py and verdicts.py are shared. cli.py declares the
arguments, and imports only the module of the command that runs.
"""
