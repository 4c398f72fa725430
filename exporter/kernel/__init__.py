"""The kernel's interfaces, one module each: bpf(2), BTF, perf events, cgroups, files of /proc and /sys.

Only this folder makes system calls by number and reads /proc and /sys. It has no policy: the folders above decide what
a value means for the exporter.
"""
