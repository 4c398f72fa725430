"""vmlinux.h, every type of a kernel in C -> the part of it that one program's text needs, some 30 kB of 2.9 MB.

clang would parse all of it three times for bcc, which is three quarters of a cold start. The part has the types that
the text names, what those contain by value, and what they point to by a member that the text names: the structs that
layout_asserts.py asserts, for the same reason. Where a program needs another type (by a macro that pastes a name
together) clang reports an error; the compiler then compiles again with the whole file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1  # of the index and of what is chosen by it

INDEX = "types.json"

# Types whose members bcc's helpers.h uses, and the code that it writes for functions with arguments (0.26 to 0.37).
_OF_BCC = """
    struct pt_regs, struct user_pt_regs, struct bpf_perf_event_data, struct bpf_raw_tracepoint_args, struct __sk_buff,
    struct xdp_md, struct bpf_sock, struct bpf_sock_tuple, struct bpf_sock_ops, struct bpf_spin_lock, struct bpf_timer,
    struct bpf_stack_build_id, struct bpf_cgroup_storage_key, struct bpf_perf_event_value, struct bpf_pidns_info,
    struct bpf_dynptr, enum bpf_func_id, enum bpf_map_type
"""
# Scalars that formats of tracepoints are written in, for TRACEPOINT_PROBE().
_SCALARS = """
    bool size_t ssize_t uintptr_t u8 u16 u32 u64 s8 s16 s32 s64 __u8 __u16 __u32 __u64 __s8 __s16 __s32 __s64 __be16
    __be32 __be64 __le16 __le32 __le64 __wsum pid_t uid_t gid_t dev_t ino_t mode_t umode_t loff_t off_t sector_t gfp_t
    ktime_t time64_t BPF_ANY BPF_F_NO_PREALLOC BPF_F_CURRENT_CPU BPF_F_USER_STACK XDP_ABORTED
"""
# bcc's helpers take pointers to these, and use no member.
_POINTED_AT = """
    bpf_map bpf_redir_neigh bpf_sysctl bpf_tcp_sock btf_ptr cgroup file inode iphdr ipv6hdr linux_binprm mptcp_sock path
    seq_file sk_buff socket task_struct tcp6_sock tcp_request_sock tcp_sock tcp_timewait_sock tcphdr udp6_sock unix_sock
"""

_WORD = re.compile(r"\b[A-Za-z_]\w*")
_TAGGED = re.compile(r"\b((?:struct|union|enum) \w+)( ?\*)?")
_NAMED = re.compile(r"(\w+)(?:\[\w*\])*;$")  # what a line declares; not a pointer to a function
_DEFINED_TAG = re.compile(r"((?:struct|union|enum) \w+) \{")
_ENUMERATOR = re.compile(r"^\t(\w+) =", re.MULTILINE)
_SEVERAL = re.compile(r"((?:struct|union) \w+?)___\d+$")


@dataclass(frozen=True, slots=True)
class KernelTypes:
    """vmlinux.h, split into blocks.

    blocks    a definition or declaration each, in an order that compiles
    block_of  "struct x", "union x", "enum x", typedef and enumerator -> the block that defines it
    several   "struct x" and "union x" of which the kernel has several: libbpf calls the others x___2, x___3
    """

    blocks: tuple[str, ...]
    block_of: dict[str, int]
    several: frozenset[str]

    def needed(self, text: str) -> str:
        """Return C text of the types that a program needs, in the order of vmlinux.h; it depends on `text` alone.

        text  all that is compiled, without comments: the program, the shared header, values of defines
        """
        words = frozenset(_WORD.findall(f"{text} {_SCALARS}"))
        waiting = [self.block_of[name] for name in (*words, *_tags(f"{text} {_OF_BCC}")) if name in self.block_of]
        chosen: set[int] = set()
        declared = {f"struct {name}" for name in _POINTED_AT.split()}
        while waiting:
            number = waiting.pop()
            if number in chosen:
                continue
            chosen.add(number)
            for name, whole in _mentioned(self.blocks[number], words):
                if whole and name in self.block_of:
                    waiting.append(self.block_of[name])
                elif name.startswith(("struct ", "union ")):
                    declared.add(name)
        return "\n\n".join(
            ("\n".join(f"{tag};" for tag in sorted(declared)), *(self.blocks[number] for number in sorted(chosen)), "")
        )


def read(tree: Path) -> KernelTypes:
    """Return the types of a header tree. OSError, or ValueError where its index is damaged."""
    index = json.loads((tree / INDEX).read_text())
    blocks = tuple((tree / "include/vmlinux.h").read_text().split("\n\n"))
    return KernelTypes(blocks, index["places"], frozenset(index["several"]))


def write_index(tree: Path) -> None:
    """Write the index beside vmlinux.h: `read` takes 10 ms with it, and making it takes 100."""
    blocks = (tree / "include/vmlinux.h").read_text().split("\n\n")
    block_of = {name: number for number, block in enumerate(blocks) for name in defined(block)}
    several = sorted({match[1] for name in block_of if (match := _SEVERAL.match(name))})
    (tree / INDEX).write_text(json.dumps({"places": block_of, "several": several}, separators=(",", ":")))


def defined(block: str) -> Iterator[str]:
    """Yield what a block of libbpf's C defines: "struct x", the name of a typedef, an enum and its enumerators."""
    if block.startswith("typedef "):
        last = block.rpartition("}")[2] or block
        if match := re.search(r"\(\*+ ?(?:const )?(\w+)\)|(\w+)\(|(\w+)(?:\[\w*\])*;$", last):
            yield next(filter(None, match.groups()))
        return
    if match := _DEFINED_TAG.match(block):
        yield match[1]
    if block.startswith("enum ") and "{" in block:
        yield from _ENUMERATOR.findall(block)


def _mentioned(block: str, words: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """Yield (name, True if it must be defined and not only declared) of what a block refers to."""
    if block.startswith("enum "):
        return
    for line in block.split("\n"):
        member = _NAMED.search(line)
        followed = member is not None and "(" not in line and member[1] in words
        for tag, pointer in _TAGGED.findall(line):
            yield tag, not pointer or followed or tag.startswith("enum ")
        for word in _WORD.findall(line):
            yield word, True


def _tags(text: str) -> Iterable[str]:
    return {tag for tag, _ in _TAGGED.findall(text)}
