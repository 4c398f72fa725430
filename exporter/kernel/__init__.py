"""The kernel's interfaces, one module each: bpf(2), BTF, perf events, cgroups, files of /proc and /sys.

Only this folder makes system calls by number or reads /proc and /sys. It has no policy: what a value means for the
exporter is decided above.
"""
