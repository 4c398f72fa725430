"""Configurations that are right: what becomes of include, use, source, code, defines and units."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter import config
from exporter.config import bundled
from exporter.config.config_files import FileError, check_owner
from exporter.config.nodes import ListNode, MappingNode, ScalarNode, compose, plain, resolve
from exporter.spec import (
    AttachSpec,
    BucketSpec,
    Config,
    DecodeStep,
    LabelSpec,
    MetricSpec,
    ProgramSpec,
    Requirements,
    VariantSpec,
)

ROOT = Path(__file__).resolve().parents[3]

RETRANSMITS = """\
name: retransmits
source: retransmits.c
defines: {SAMPLE: 1, DEBUG: false, FUNCTION: tcp_retransmit_skb}
attach: [{kprobe: "{FUNCTION}", function: on_retransmit}]
metrics:
  - {name: ebpf_retransmits_total, type: counter, help: Retransmitted segments., map: retransmits}
  - {name: ebpf_retransmits_bytes_total, type: counter, help: Their bytes., map: retransmits, value: bytes}
"""

OWN = """\
  - name: {name}
    code: |
      int on_send(void *ctx) {{ return 0; }}
    attach: [{{kprobe: tcp_sendmsg, function: on_send}}]
    metrics:
      - {{name: ebpf_{name}_total, type: counter, help: Sends., map: sends}}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with programs/retransmits and an empty directory of bundled programs."""
    (tmp_path / "bundled").mkdir()
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "retransmits.yaml").write_text(RETRANSMITS)
    (tmp_path / "programs" / "retransmits.c").write_text("int on_retransmit(void *ctx) { return 0; }\n")
    return tmp_path


def load(here: Path, text: str, **options: object) -> config.LoadedConfig:
    path = here / "config.yaml"
    path.write_text(text)
    return config.load(path, bundled=here / "bundled", **options)  # type: ignore[arg-type]


def only(here: Path, text: str) -> ProgramSpec:
    (program,) = load(here, text).config.programs
    return program


def metric(here: Path, text: str) -> MetricSpec:
    """The one metric of a program that is otherwise the smallest."""
    lines = OWN.format(name="sends").splitlines()[:-1]
    return only(here, "programs:\n" + "\n".join(lines) + f"\n      - {text}\n").metrics[0]


def errors(here: Path, text: str, **options: object) -> list[str]:
    with pytest.raises(config.ConfigErrors) as caught:
        load(here, text, **options)
    return [str(finding).removeprefix(f"{here}/") for finding in caught.value.findings]


# --- values


def test_smallest_program_gets_every_default(here: Path) -> None:
    program = only(here, "programs:\n" + OWN.format(name="sends"))
    assert program == ProgramSpec(
        name="sends",
        variants=[VariantSpec(attach=[AttachSpec(kind="kprobe", targets=["tcp_sendmsg"], function="on_send")])],
        metrics=[MetricSpec(name="ebpf_sends_total", type="counter", help="Sends.", map="sends")],
        source=here / "config.yaml",
        line=4,
        indent=6,
        text="int on_send(void *ctx) { return 0; }\n",
    )


def test_everything_of_a_metric_arrives(here: Path) -> None:
    found = metric(
        here,
        "{name: ebpf_a, type: gauge, help: A., map: m, value: a.b, scale: us, reduce: max, max_series: 7,"
        " enabled: false, labels: [{field: a.port}, {name: x, const: sent},"
        ' {name: op, field: "op[1]", decode: [{map: {0: read, 1: "no"}, unknown: other}]}, {field: cpu}]}',
    )
    assert found == MetricSpec(
        name="ebpf_a",
        type="gauge",
        help="A.",
        map="m",
        value="a.b",
        scale=1e-6,
        reduce="max",
        max_series=7,
        enabled=False,
        labels=[
            LabelSpec(name="port", field="a.port"),
            LabelSpec(name="x", const="sent"),
            LabelSpec(
                name="op",
                field="op[1]",
                decode=[DecodeStep(name="map", argument={0: "read", 1: "no"}, unknown="other")],
            ),
            LabelSpec(name="cpu", field="cpu"),
        ],
    )


def test_options_of_a_decoder_are_kept_apart_from_its_argument(here: Path) -> None:
    found = metric(
        here,
        "{name: ebpf_a, type: gauge, help: A., map: m,"
        " labels: [{field: r, decode: [{enum: skb_drop_reason, strip: SKB_, unknown: keep}]}]}",
    )
    assert found.labels is not None
    assert found.labels[0].decode == [
        DecodeStep(name="enum", argument="skb_drop_reason", options={"strip": "SKB_"}, unknown="keep")
    ]


@pytest.mark.parametrize(
    ("written", "factor"),
    [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("kib", 1024),
        ("pages", os.sysconf("SC_PAGE_SIZE")),
        ("jiffies", 1 / os.sysconf("SC_CLK_TCK")),
        ("percent", 0.01),
        ("1e-6", 1e-6),
        ("1", 1),
        ("0.5", 0.5),
    ],
)
def test_scale_is_a_factor_whether_unit_or_number(here: Path, written: str, factor: float) -> None:
    assert metric(here, f"{{name: ebpf_a, type: gauge, help: A., map: m, scale: {written}}}").scale == factor


def test_histogram_with_the_slot_in_the_key(here: Path) -> None:
    found = metric(
        here,
        "{name: ebpf_a_seconds, type: histogram, help: A., map: m, scale: us, slot: key.slot, sum_slot: 28,"
        " buckets: {type: exp2zero, min: 1, max: 27}}",
    )
    assert (found.slot, found.sum_slot) == ("key.slot", 28)
    assert found.buckets == BucketSpec(type="exp2zero", min=1, max=27)


def test_fixed_buckets_may_be_counted_by_their_bound(here: Path) -> None:
    found = metric(
        here,
        "{name: ebpf_a, type: histogram, help: A., map: m, slot: key,"
        " buckets: {type: fixed, bounds: [100, 1e3, 5000], slot_is_bound: true}}",
    )
    assert found.buckets == BucketSpec(type="fixed", bounds=[100, 1000, 5000], slot_is_bound=True)


def test_requires_of_program_and_variant_are_lists_either_way(here: Path) -> None:
    program = only(
        here,
        "programs:\n"
        + OWN.format(name="sends").replace(
            "    attach: [{kprobe: tcp_sendmsg, function: on_send}]\n",
            '    requires: {kernel: ">=5.10, <7.0", member: request_queue.disk}\n'
            "    variants:\n"
            '      - name: raw\n        requires: {tracepoint_field: ["tcp:tcp_send_reset.reason"]}\n'
            "        attach: [{raw_tracepoint: tcp_send_reset, function: on_send, optional: yes}]\n",
        ),
    )
    assert program.requires == Requirements(kernel=">=5.10, <7.0", member=["request_queue.disk"])
    assert program.variants[0].requires.tracepoint_field == ["tcp:tcp_send_reset.reason"]
    assert program.variants[0].attach[0].optional is True


@pytest.mark.parametrize(
    ("point", "function"),
    [
        ("kprobe: tcp_sendmsg", "kprobe__tcp_sendmsg"),
        ("kretprobe: tcp_sendmsg", "kretprobe__tcp_sendmsg"),
        ("fentry: tcp_sendmsg", "kfunc__vmlinux__tcp_sendmsg"),
        ('fexit: "nf_conntrack:nf_confirm"', "kretfunc__nf_conntrack__nf_confirm"),
        ('tracepoint: "tcp:tcp_probe"', "tracepoint__tcp__tcp_probe"),
        ("raw_tracepoint: tcp_probe", "raw_tracepoint__tcp_probe"),
    ],
)
def test_function_left_out_is_the_one_of_bccs_macro(here: Path, point: str, function: str) -> None:
    text = "programs:\n" + OWN.format(name="sends").replace("kprobe: tcp_sendmsg, function: on_send", point)
    assert only(here, text).variants[0].attach[0].function == function


def test_targets_may_be_a_list(here: Path) -> None:
    text = "programs:\n" + OWN.format(name="sends").replace("tcp_sendmsg", "[tcp_sendmsg, udp_sendmsg]")
    assert only(here, text).variants[0].attach[0].targets == ["tcp_sendmsg", "udp_sendmsg"]


def test_programs_survive_the_way_through_json(here: Path) -> None:
    loaded = load(here, "programs:\n  - use: retransmits\n" + OWN.format(name="sends")).config
    assert Config.model_validate(json.loads(json.dumps(loaded.model_dump(mode="json")))) == loaded


# --- C text


def test_code_knows_the_line_it_starts_on(here: Path) -> None:
    text = "programs:\n  - name: a\n    code: |  # bcc's dialect\n\n      first\n" + "\n".join(
        OWN.format(name="a").splitlines()[3:]
    )
    program = only(here, text)
    lines = (here / "config.yaml").read_text().splitlines()
    for offset, line in enumerate(program.text.splitlines()):
        assert lines[program.line - 1 + offset].strip() == line.strip()
    assert "first" in program.text


def test_code_on_one_line_starts_on_the_line_of_its_key(here: Path) -> None:
    text = OWN.format(name="a").splitlines()
    text[1:3] = ["    code: int x;"]
    program = only(here, "programs:\n" + "\n".join(text))
    assert (program.line, program.text) == (3, "int x;")


def test_source_is_found_beside_the_file_that_names_it(here: Path) -> None:
    (here / "conf.d").mkdir()
    (here / "conf.d" / "a.c").write_text("int x;\n")
    text = OWN.format(name="a").splitlines()
    text[1:3] = ["    source: a.c"]
    (here / "conf.d" / "a.yaml").write_text("programs:\n" + "\n".join(text))
    loaded = load(here, "include: [conf.d/*.yaml]\n")
    (program,) = loaded.config.programs
    assert (program.source, program.line, program.text) == (here / "conf.d" / "a.c", 1, "int x;\n")
    assert loaded.files == (here / "config.yaml", here / "conf.d" / "a.yaml", here / "conf.d" / "a.c")


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(here: Path) -> None:
    text = "programs:\n" + OWN.format(name="sends")
    plain_one = only(here, text)
    path = here / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert config.load(path, bundled=here).config.programs == [plain_one]


# --- include and use


def test_an_included_loop_of_links_is_a_file_that_cannot_be_read(here: Path) -> None:
    (here / "loop.yaml").symlink_to("loop.yaml")
    (found,) = errors(here, "include: [loop.yaml]\nprograms:\n" + OWN.format(name="main"))
    assert "cannot be read: too many levels of symbolic links" in found


def test_included_files_come_sorted_after_the_main_file_each_once(here: Path) -> None:
    (here / "conf.d").mkdir()
    for name in ("b", "c", "a"):
        (here / "conf.d" / f"{name}.yaml").write_text("programs:\n" + OWN.format(name=name))
    text = "include: [conf.d/c.yaml, conf.d/*.yaml, none.d/*.yaml]\nprograms:\n" + OWN.format(name="main")
    assert [program.name for program in load(here, text).config.programs] == ["main", "c", "a", "b"]


def test_use_takes_the_entry_as_it_is(here: Path) -> None:
    program = only(here, "programs:\n  - use: retransmits\n")
    assert program.name == "retransmits"
    assert program.defines == {"SAMPLE": 1, "DEBUG": 0, "FUNCTION": "tcp_retransmit_skb"}
    assert program.variants[0].attach[0].targets == ["tcp_retransmit_skb"]
    assert program.source == here / "programs" / "retransmits.c"


def test_use_changes_only_what_it_names(here: Path) -> None:
    program = only(
        here,
        "programs:\n"
        "  - use: retransmits\n    name: again\n    enabled: false\n    optional: true\n    budget: 0.02\n"
        "    lifetime: 15m\n"
        "    defines: {SAMPLE: 10, FUNCTION: __tcp_retransmit_skb, DEBUG: true}\n"
        "    metrics:\n      - {name: ebpf_retransmits_total, max_series: 5}\n"
        "      - {name: ebpf_retransmits_bytes_total, enabled: false}\n",
    )
    assert (program.name, program.enabled, program.optional) == ("again", False, True)
    assert program.budget == 0.02
    assert program.lifetime == 900
    assert program.defines == {"SAMPLE": 10, "DEBUG": 1, "FUNCTION": "__tcp_retransmit_skb"}
    assert program.variants[0].attach[0].targets == ["__tcp_retransmit_skb"]
    assert [(m.max_series, m.enabled) for m in program.metrics] == [(5, True), (1000, False)]


def test_programs_beside_the_main_file_come_before_bundled_ones(here: Path) -> None:
    other = RETRANSMITS.replace("retransmits.c", "other.c")
    (here / "bundled" / "retransmits.yaml").write_text(other)
    (here / "bundled" / "other.c").write_text("int other;\n")
    assert only(here, "programs: [{use: retransmits}]").source == here / "programs" / "retransmits.c"
    (here / "programs" / "retransmits.yaml").unlink()
    assert only(here, "programs: [{use: retransmits}]").source == here / "bundled" / "other.c"


def test_a_define_set_by_use_is_checked_as_target(here: Path) -> None:
    found = errors(here, 'programs: [{use: retransmits, defines: {FUNCTION: "a b"}}]')
    assert found == [
        'programs/retransmits.yaml:4:19: retransmits: attach kprobe {FUNCTION}: "a b" is no target of a kprobe; '
        "write FUNC or MODULE:FUNC, like tcp_sendmsg"
    ]


def test_a_metric_of_a_disabled_program_takes_no_name(here: Path) -> None:
    text = "programs:\n  - use: retransmits\n  - {use: retransmits, name: again, enabled: false}\n"
    assert [program.enabled for program in load(here, text).config.programs] == [True, False]


def test_the_same_metric_again_in_one_program_adds_its_entries(here: Path) -> None:
    text = "programs:\n" + OWN.format(name="sends")
    line = text.splitlines()[-1]
    text += line.replace("map: sends", "map: sends6") + "\n"
    assert [m.map for m in only(here, text).metrics] == ["sends", "sends6"]


@pytest.mark.parametrize("name", bundled.names(bundled.bundled_dir()))
def test_bundled_program_has_no_mistake_and_no_warning(name: str) -> None:
    loaded = config.load_bundled(name)
    assert [program.name for program in loaded.config.programs] == [name]
    assert loaded.warnings == ()


def test_there_are_bundled_programs() -> None:
    assert {"tcp_latency", "tcp_rst", "tcp_sendmsg"} <= set(bundled.names(bundled.bundled_dir()))


def test_the_example_is_a_configuration() -> None:
    assert config.load(ROOT / "config.example.yaml", strict=True).config.programs


def test_the_program_in_the_examples_comments_works(here: Path) -> None:
    lines = (ROOT / "config.example.yaml").read_text().splitlines()
    own = [line[:2] + line[4:] for line in lines if line.startswith("  #") and "Remove the leading #" not in line]
    (program,) = load(here, "programs:\n" + "\n".join(own), strict=True).config.programs
    assert program.text.strip().endswith("}")


# --- matters of taste

TASTE = [
    ("{name: ebpf_sends, type: counter, help: A., map: m}", "counters end in _total; write ebpf_sends_total"),
    (
        "{name: ebpf_a_total, type: gauge, help: A., map: m}",
        "_total is for counters, and this is a gauge; write ebpf_a",
    ),
    (
        "{name: ebpf_a_total, type: counter, map: m}",
        '"help" is missing; write one sentence that Prometheus shows',
    ),
    (
        "{name: ebpf_wait_ms, type: gauge, help: A., map: m}",
        "ms is no base unit; write seconds, and scale: if the map has another unit",
    ),
    (
        "{name: ebpf_wait_count, type: gauge, help: A., map: m}",
        "_count is for the series of a histogram; leave it out or choose another word",
    ),
    (
        "{name: ebpf_wait_gauge, type: gauge, help: A., map: m}",
        "the type gauge does not belong in the name; leave it out",
    ),
    (
        "{name: ebpf_tcpSends, type: gauge, help: A., map: m}",
        "the name is in camelCase; write ebpf_tcp_sends",
    ),
    ("{name: 'ebpf:a', type: gauge, help: A., map: m}", "colons are for recording rules; write _"),
    (
        "{name: ebpf_a, type: gauge, help: A., map: m, labels: [{name: job, field: j}]}",
        "label job: Prometheus sets job itself and will call this one exported_job; choose another name",
    ),
    (
        "{name: ebpf_a, type: gauge, help: A., map: m, labels: [{field: srcPort}]}",
        "label srcPort: the name is in camelCase; write src_port",
    ),
]


@pytest.mark.parametrize(("line", "expected"), TASTE)
def test_a_matter_of_taste_is_a_warning_and_an_error_when_strict(here: Path, line: str, expected: str) -> None:
    text = "programs:\n" + "\n".join(OWN.format(name="sends").splitlines()[:-1]) + f"\n      - {line}\n"
    (warning,) = load(here, text).warnings
    assert warning.text.split(": ", 2)[2] == expected
    assert errors(here, text, strict=True) == [str(warning).removeprefix(f"{here}/")]


# --- files


def test_a_file_of_another_owner_or_writable_by_others_is_refused_when_asked(here: Path) -> None:
    path = here / "programs" / "retransmits.c"
    owner = os.getuid() or 65534
    for file in (here / "config.yaml", here / "programs" / "retransmits.yaml", path):
        file.touch()
        file.chmod(0o644)
        if os.getuid() == 0:
            os.chown(file, 0, 0)
    if os.getuid() == 0:
        os.chown(path, owner, 0)
    text = "programs: [{use: retransmits}]"
    assert load(here, text).config.programs  # nobody asked
    trusted = load(here, text, enforce_owner=True, trust_owner=[owner])
    assert trusted.config.programs == load(here, text).config.programs
    refused = errors(here, text, enforce_owner=True)
    assert refused[-1].endswith(
        f"belongs to user {owner}, and what stands in it runs in the kernel; "
        f"chown 0 {path}, or start with --config.trust-owner {owner} (trusted: 0)"
        if os.getuid() == 0
        else f"chown 0 {here}/config.yaml, or start with --config.trust-owner {owner} (trusted: 0)"
    )
    path.chmod(0o666)
    (refused_mode,) = errors(here, text, enforce_owner=True, trust_owner=owner)
    assert refused_mode.endswith(
        "can be written by its group and everybody (mode 0666), and what stands in it runs in the kernel; "
        f"chmod go-w {path}"
    )


@pytest.mark.parametrize(("uid", "gid", "taken"), [(0, 0, False), (7, 7, True), (0, 100, False), (7, 100, False)])
def test_the_private_group_of_an_owner_other_than_root_may_write(uid: int, gid: int, taken: bool) -> None:
    status = os.stat_result((stat.S_IFREG | 0o664, 1, 1, 1, uid, gid, 0, 0, 0, 0))
    if taken:
        check_owner(Path("config.yaml"), status, [0, 7], "and it runs")
        return
    with pytest.raises(FileError, match=r"can be written by its group \(mode 0664\)"):
        check_owner(Path("config.yaml"), status, [0, 7], "and it runs")


def test_a_file_that_is_none_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, sentence in {
        "fifo": "is no regular file; name one",
        "": "is a directory; name a file",
        "loop": "cannot be read: too many levels of symbolic links; name a readable file",
        "no\0name": "cannot be read: embedded null byte; name a readable file",
        "x" * 300: "cannot be read: file name too long; name a readable file",
    }.items():
        with pytest.raises(config.ConfigErrors) as caught:
            config.load(f"{tmp_path}/{name}")
        assert caught.value.findings[0].text == sentence


def test_a_huge_file_is_refused(here: Path) -> None:
    assert errors(here, "#" * (5 << 20)) == ["config.yaml: has 5242880 bytes; at most 4194304 are read"]


# --- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("0", 0),
        ("-12", -12),
        ("0x1F", 31),
        ("1e-6", 1e-6),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e", "1e"),
        ("-", "-"),
        ("2024-01-01", "2024-01-01"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_read_as_yaml_11_does_but_for_exponents(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_columns_count_characters_not_bytes() -> None:
    root = compose('{"größe ☃": here}', "x").root
    assert isinstance(root, MappingNode)
    assert root.items[0][1].mark.column == 13


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_is_read_as_what_it_says(value: object) -> None:
    composed = compose(json.dumps(value, ensure_ascii=True), "x")
    if composed.surprises:  # lone surrogates and the like are no YAML
        return
    assert isinstance(composed.root, MappingNode | ListNode | ScalarNode)
    assert plain(composed.root) == value


EXAMPLE = "programs:\n  - use: tcp_rst\n    metrics: [{name: ebpf_tcp_resets_total, max_series: 3}]\n" + OWN.format(
    name="a"
)
TOKENS = st.sampled_from(
    [
        *"{}[]:,-#&*!|>'\"%@`?\n\t 0",
        "no",
        "1e999",
        "~",
        "- ",
        ": ",
        "  ",
        "<<",
        "name",
        "use",
        "metrics",
        "[]",
        "é",
        "\x00",
    ]
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(EXAMPLE)), st.integers(0, 6), TOKENS | st.text(max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_the_file_holds_there_is_a_config_or_a_list_of_mistakes(
    tmp_path: Path, edits: list[tuple[int, int, str]]
) -> None:
    text = EXAMPLE
    for start, length, new in edits:
        text = text[:start] + new + text[start + length :]
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config.load(path)
    except config.ConfigErrors as error:
        assert error.findings  # noqa: PT017  (both ends are right)


WHOLE: dict[str, object] = {
    "include": ["conf.d/*.yaml"],
    "limits": {"label_length": 64},
    "programs": [
        {"use": "tcp_rst", "defines": {}, "metrics": [{"name": "ebpf_tcp_resets_total", "max_series": 3}]},
        {
            "name": "a",
            "code": "int x;",
            "defines": {"A": 1, "B": "b"},
            "requires": {"kernel": ">=5.10", "member": ["a.b"], "tracepoint_field": "a:b.c"},
            "variants": [{"name": "v", "requires": {}, "attach": [{"kprobe": ["f", "{B}"], "function": "g"}]}],
            "maps": {"m": {"seed": "listening_ports", "ttl": "10m"}},
            "metrics": [
                {
                    "name": "ebpf_a_seconds",
                    "type": "histogram",
                    "map": "m",
                    "scale": "ns",
                    "slot": "s",
                    "sum_slot": 9,
                    "buckets": {"type": "fixed", "bounds": [1, 2], "min": 0, "max": 1},
                    "labels": [
                        {
                            "name": "l",
                            "field": "a.b[1]",
                            "decode": [{"map": {"x": "y"}, "unknown": "z"}, "uint"],
                        },
                        {"name": "r", "field": "a", "decode": ["string", {"regexp": ["x"]}]},
                        {"name": "c", "field": "a", "decode": [{"cidr": {"10.0.0.0/8": "in"}}]},
                    ],
                }
            ],
        },
    ],
}


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, below in inner for place in places(below, (*path, key))]


HOSTILE = [
    *({}, [], [[]], [{}], {"1": 2}, "", "a b", -1, 0, 1, 1e300, 10**39, "x" * 200, [None]),
    *("a\0b", "9" * 400 + "d", "9" * 5000 + "KiB", "a{99999999999}", "(" * 5000 + ")" * 5000),
]


def changed(value: object, path: tuple[str | int, ...], new: object) -> object:
    if not path:
        return new
    if isinstance(value, dict):
        return {key: changed(below, path[1:], new) if key == path[0] else below for key, below in value.items()}
    assert isinstance(value, list)
    return [changed(below, path[1:], new) if key == path[0] else below for key, below in enumerate(value)]


def test_a_name_longer_than_any_file_is_a_mistake_like_others(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"programs:\n  - use: {'x' * 300}\n")
    with pytest.raises(config.ConfigErrors, match=r"config\.yaml:2:10: "):
        config.load(path)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(places(WHOLE)),
    new=json_values | st.sampled_from(HOSTILE),
)
def test_any_value_in_any_place_is_a_config_or_a_list_of_mistakes_in_this_file(
    tmp_path: Path, path: tuple[str | int, ...], new: object
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(changed(WHOLE, path, new)))
    try:
        config.load(file)
    except config.ConfigErrors as error:
        assert {finding.mark.file for finding in error.findings} == {str(file)}  # noqa: PT017
