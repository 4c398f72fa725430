"""The C text of one variant and the types of a kernel -> an artifact: bytecode, map definitions, BTF and layouts.

bcc compiles and does nothing else; only compiler.py imports bcc. Nothing here is loaded into the kernel.
"""
