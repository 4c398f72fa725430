"""The landing page: the state of every program and the reason for it, for a person with a browser."""

from __future__ import annotations

from collections.abc import Sequence

from exporter import __version__
from exporter.program import Program

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>bpf-exporter</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
 color: #1c2733; background: #fff }}
h1 {{ font-size: 1.5rem; margin-bottom: .2rem }} h1 small {{ color: #667; font-weight: normal; font-size: 1rem }}
table {{ border-collapse: collapse; width: 100%; margin-top: 1rem }}
th, td {{ text-align: left; vertical-align: top; padding: .45rem .7rem; border-bottom: 1px solid #dde3ea }}
th {{ font-weight: 600; color: #556 }} td.state {{ font-weight: 600; white-space: nowrap }}
.running {{ color: #17794a }} .failed {{ color: #b3261e }} .skipped, .disabled, .loading {{ color: #77611a }}
pre {{ white-space: pre-wrap; margin: 0; font: 12.5px/1.45 ui-monospace, monospace; color: #444 }}
code {{ font: 13px ui-monospace, monospace }}
details summary {{ cursor: pointer; color: #556 }}
@media (prefers-color-scheme: dark) {{ body {{ background: #11161c; color: #dbe3ec }} pre {{ color: #b8c4d0 }}
 th, td {{ border-color: #2a3440 }} th, details summary {{ color: #9aa8b5 }} a {{ color: #7db7ff }}
 .running {{ color: #5fd39b }} .failed {{ color: #ff8a80 }} .skipped, .disabled, .loading {{ color: #e0c46c }} }}
</style></head><body>
<h1>bpf-exporter <small>{version}</small></h1>
<p><a href="{metrics}">Metrics</a> · one program: <code>{metrics}?collect[]=NAME</code> ·
<a href="/-/healthy">healthy</a> · <a href="/-/ready">ready</a></p>
<table><tr><th>Program</th><th>State</th><th>Variant</th><th>Attached</th><th>Details</th></tr>
{rows}</table>
</body></html>
"""


_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})


def escape(text: str) -> str:
    """Return the text for HTML, in quotes too. Python's html would bring 400 kB of entities."""
    return text.translate(_ESCAPES)


def render(programs: Sequence[Program], metrics_path: str) -> bytes:
    """Return the page as UTF-8 bytes; every text from outside is escaped."""
    rows = "".join(_row(p, metrics_path) for p in programs)
    if not programs:
        rows = '<tr><td colspan="5">No programs are configured.</td></tr>'
    return _PAGE.format(version=escape(__version__), metrics=escape(metrics_path), rows=rows).encode()


def _row(program: Program, metrics_path: str) -> str:
    name = escape(program.name)
    link = f'<a href="{escape(metrics_path)}?collect[]={name}">{name}</a>'
    attached = sum(a.attached for a in program.attachments)
    points = f"{attached} of {len(program.attachments)}" if program.attachments else ""
    state = f'<td class="state {program.state}">{program.state}</td>'
    return (
        f"<tr><td>{link}</td>{state}<td>{escape(program.variant)}</td><td>{points}</td>"
        f"<td>{_details(program)}</td></tr>\n"
    )


def _details(program: Program) -> str:
    parts = []
    if program.text:
        parts.append(f"<pre>{escape(program.text)}</pre>")
    lines = [f"{a.kind} {a.target}: {'attached' if a.attached else a.text}" for a in program.attachments]
    lines += [f"variant {a.variant or '-'} not used ({a.reason}): {a.text}" for a in program.attempts]
    if lines:
        text = "\n".join(escape(line) for line in lines)
        parts.append(f"<details><summary>{len(lines)} attach points and variants</summary><pre>{text}</pre></details>")
    return "".join(parts)
