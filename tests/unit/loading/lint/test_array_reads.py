"""Elements of the kernel's arrays that bcc reads from the wrong place: told where that is plain, and nowhere else."""

from __future__ import annotations

import pytest

from exporter.loading.lint.array_reads import findings

FUNCTION = """\
struct mine {{ u64 parts[3]; }};
{head}
{{
    struct task_struct *task = (struct task_struct *){got};
    struct mine *mine = (struct mine *)ctx->args[1];

    value = {use};
    return 0;
}}
"""
RAW = "int on_rename(struct bpf_raw_tracepoint_args *ctx)"


def text(use: str, head: str = RAW, got: str = "bpf_get_current_task()") -> str:
    return FUNCTION.format(head=head, got=got, use=use)


@pytest.mark.parametrize(
    "use", ["task->comm[3]", "task->comm[i]", "task->cgroups->subsys[pids_cgrp_id]", "1 + task->a.b[2]"]
)
@pytest.mark.parametrize("got", ["bpf_get_current_task()", "ctx->args[0]", "PT_REGS_PARM1(ctx)"])
def test_element_behind_the_first_is_told_with_what_reads_it(use: str, got: str) -> None:
    code = text(use, got=got)
    ((offset, said),) = findings(code)
    element = use.removeprefix("1 + ")
    assert code[offset:].startswith(element)
    assert said == (
        f"{element} is read from the wrong place: bcc copies the array and reads behind the copy"
        f" (write bpf_probe_read_kernel(&value, sizeof(value), &{element}))"
    )


@pytest.mark.parametrize(
    "use",
    [
        "task->comm[0]",  # the first is where bcc reads
        "mine->parts[2]",  # what the text defines is no struct of the kernel's
        "ctx->args[2]",
        "peek(&task->comm[3])",
        "PEEK(task->comm[3])",
        "sizeof(task->comm[3])",
        "other->comm[3]",  # whose that is nobody has said
    ],
)
def test_what_is_right_or_not_plain_is_left_alone(use: str) -> None:
    assert list(findings(text(use))) == []


def test_typed_pointers_are_read_by_the_verifier_itself() -> None:
    assert list(findings(text("task->comm[3]", head="BPF_PROG(on_rename, struct task_struct *first)"))) == []
