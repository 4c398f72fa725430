"""What clang prints, and what the user reads of it."""

from __future__ import annotations

from exporter.loading.compiling import diagnostics
from exporter.program import Reason

UNDECLARED = """\
sends.c:9:22: warning: unused variable 'x' [-Wunused-variable]
        int x;
            ^
sends.c:12:22: error: use of undeclared identifier 'TCP_FOO'
        return sk->sk_foo == TCP_FOO;
                             ^
1 warning and 1 error generated.
"""


def test_an_error_keeps_its_place_and_its_line() -> None:
    error = diagnostics.from_clang(UNDECLARED)
    assert (error.reason, error.text) == (
        Reason.COMPILER,
        "compile sends.c:12:22: use of undeclared identifier 'TCP_FOO' "
        "(BTF has no macros of kernel headers: #define TCP_FOO here)\n"
        "            return sk->sk_foo == TCP_FOO;\n"
        "                                 ^",
    )


def test_the_first_three_errors_are_shown_and_the_others_counted() -> None:
    output = "".join(f"a.c:{n}:1: error: bad {n}\n" for n in range(1, 6)) + "5 errors generated.\n"
    assert diagnostics.from_clang(output).text.split("\n") == [
        "compile a.c:1:1: bad 1",
        "compile a.c:2:1: bad 2",
        "compile a.c:3:1: bad 3",
        "and 2 more errors",
    ]


def test_a_layout_that_differs_is_a_reason_of_its_own() -> None:
    output = (
        "layout guard:3:1: error: static_assert failed due to requirement "
        "'__builtin_offsetof(struct sock, sk_err) == 4' \"layout of struct sock: sk_err\"\n_Static_assert(...)\n^\n"
    )
    newer = (
        output.replace("static_assert failed", "static assertion failed")
        .replace(' "layout', ": layout")
        .replace('sk_err"\n', "sk_err\n")
    )  # clang 16 and later
    for text in (output, newer):
        error = diagnostics.from_clang(text)
        assert error.reason is Reason.LAYOUT
        assert error.text == (
            "compile layout of struct sock: clang and BTF disagree on sk_err: it would be read at the wrong place "
            "(an error in libbpf's C text of this kernel's types; a newer libbpf may not have it)"
        )


def test_a_map_that_the_kernel_refuses_is_not_the_compilers_fault() -> None:
    error = diagnostics.from_clang("could not open bpf map: sends, error: Operation not permitted\n")
    assert (error.reason, error.text) == (
        Reason.PERMISSION,
        "create map sends: operation not permitted (bcc makes the maps while it compiles: run as root)",
    )
    error = diagnostics.from_clang("could not open bpf map: sends, error: No space left on device\n")
    assert (error.reason, error.text) == (Reason.MAP, "create map sends: no space left on device")


def test_silence_and_chatter_without_an_error_are_told() -> None:
    assert diagnostics.from_clang("").text == "compile: bcc gave no module"
    assert diagnostics.from_clang("bpf: Failed to load\n\n").text == (
        "compile: bcc gave no module\n    bpf: Failed to load"
    )
