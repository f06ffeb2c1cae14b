"""Reports as HTML: one file without a script, which needs nothing from elsewhere."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from jaxnet.verification.report.numbers import from_here
from jaxnet.verification.report.record import Record
from jaxnet.verification.report.table import Table, alike, names_of

STYLE = """
.jaxnet { --good: #2a9d62; --bad: #d64545; --line: #3d84d6; line-height: 1.45; }
.jaxnet table { border-collapse: collapse; margin: .5rem 0; }
.jaxnet td, .jaxnet th { padding: .1rem 1rem .1rem 0; text-align: left;
  vertical-align: top; background: none; }
.jaxnet th { border-bottom: 1px solid; font-weight: 600; }
.jaxnet .wide { overflow-x: auto; }
.jaxnet code, .jaxnet td { font-family: ui-monospace, monospace; font-size: .9em;
  overflow-wrap: anywhere; }
.jaxnet .verdict { font-size: 1.1em; border-left: .4rem solid var(--good);
  padding-left: .8rem; }
.jaxnet.failed .verdict { border-color: var(--bad); }
.jaxnet section { border-left: .15rem solid var(--bad); padding-left: .8rem;
  margin: 1rem 0; }
.jaxnet .failed td { color: var(--bad); }
.jaxnet .muted { opacity: .7; font-size: .9em; }
.jaxnet .records { display: flex; flex-wrap: wrap; gap: .5rem 2rem; }
.jaxnet figure { margin: .3rem 0; max-width: 100%; min-width: 0; }
.jaxnet dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .8rem;
  margin: .2rem 0; font-size: .9em; max-width: 430px; }
.jaxnet dt { opacity: .7; } .jaxnet dd { margin: 0; overflow-wrap: anywhere; }
.jaxnet svg { max-width: 100%; height: auto; vertical-align: top;
  font: 11px system-ui, sans-serif; }
.jaxnet svg text { fill: currentColor; }
.jaxnet svg .tick { opacity: .7; font-size: 10px; }
.jaxnet svg .grid { stroke: currentColor; opacity: .15; }
.jaxnet svg .frame { fill: none; stroke: currentColor; stroke-width: .05; }
.jaxnet svg .bound { fill: var(--good); opacity: .18; }
.jaxnet svg polyline { fill: none; stroke: currentColor; opacity: .4; }
.jaxnet svg polyline.better { stroke: var(--line); opacity: 1; stroke-width: 1.5; }
.jaxnet svg polyline.kink { stroke-dasharray: 4 3; opacity: .9; }
.jaxnet svg circle { fill: var(--line); } .jaxnet svg .shade { fill: var(--bad); }
.jaxnet svg line.good { stroke: var(--good); }
.jaxnet svg text.good { fill: var(--good); }
.jaxnet svg line.bad { stroke: var(--bad); stroke-width: 1.5; }
.jaxnet svg text.bad { fill: var(--bad); }
.jaxnet svg .chosen { stroke: currentColor; stroke-dasharray: 2 3; }
.jaxnet svg text.chosen { stroke: none; }
"""

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem; }}
{style}</style></head>
<body><h1>{title}</h1>
"""

PICTURES = (
    "A picture shows how far difference quotients are off, by their step: plain ones "
    "as a thin line, improved by one extrapolation in blue. To the right the function "
    "bends within the step (truncation), to the left its values are rounded. The green "
    "band is what agrees; a dashed curve, the right slope less the left one, stays "
    "where there is a kink."
)


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page: its heading, and what is below it."""
    head = HEAD.format(title=escape(title), style=STYLE)
    return f"{head}{''.join(parts)}</body></html>\n"


def written(page: str, path: str | Path) -> Path:
    """Write a page, in a folder made on the way; return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def styled(content: str) -> str:
    """What a notebook shows: it has no page around it."""
    return f"<style>{STYLE}</style>{content}"


def section(title: str, content: str) -> str:
    """One of several things on a page."""
    return f"<h2>{escape(title)}</h2>{content}"


def content(table: Table) -> str:
    """What is wrong first, equal causes once; then every row, remark and picture."""
    failed = [record for record in table.worst_first if not record.passed]
    kind = "failed" if failed else "passed"
    groups = dict[str, list[Record]]()
    for record in failed:
        groups.setdefault(record.cause, []).append(record)
    rest = [*table.remarks, table.last_line]
    remarks = "".join(f"<li>{_escaped(remark)}</li>" for remark in rest)
    passed = [record for record in table.records if record.passed]
    return (
        f'<article class="jaxnet {kind}">'
        f'<p class="verdict">{_escaped(table.sentence)}</p>'
        f"{''.join(_group(*group) for group in groups.items())}"
        f"{_table(table)}<ul>{remarks}</ul>{_folded(passed)}"
        f'<p class="muted">{_escaped(PICTURES)}</p></article>'
    )


def _group(cause: str, records: Sequence[Record]) -> str:
    """What is wrong for one cause: every place, with both values and its picture."""
    heading = f"<p><b>{_escaped(cause)}</b></p>" if cause else ""
    cards = "".join(map(_card, alike(records)))
    return f'<section>{heading}<div class="records">{cards}</div></section>'


def _card(records: Sequence[Record]) -> str:
    """Records of which all but the leaf is the same."""
    first, count = records[0], len(records)
    _, candidate, _, verdict, *_ = first.cells
    name = names_of(records, count)
    head = f"<code>{_escaped(name)}</code> {_escaped(candidate)}: {_escaped(verdict)}"
    facts = first.facts if count == 1 else {}
    items = "".join(
        f"<dt>{_escaped(key)}</dt><dd>{_escaped(value)}</dd>"
        for key, value in facts.items()
        if value
    )
    pictures = "".join(first.pictures)
    return f"<figure><figcaption>{head}</figcaption>{pictures}<dl>{items}</dl></figure>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{_escaped(name)}</th>" for name in table.columns)
    body = "".join(map(_row, table.records))
    legend = f'<p class="muted">{_escaped(table.legend)}</p>'
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>{legend}'


def _row(record: Record) -> str:
    cells = "".join(f"<td>{_escaped(cell)}</td>" for cell in record.cells)
    kind = "passed" if record.passed else "failed"
    span = f'<tr><td colspan="{len(record.cells)}">{_escaped(record.detail)}</td></tr>'
    below = span if record.passed and record.detail else ""
    return f'<tr class="{kind}">{cells}</tr>{below}'


def _folded(records: Sequence[Record]) -> str:
    """What passed, to be opened."""
    if not records:
        return ""
    cards = "".join(_card([record]) for record in records)
    words = f"<summary>what passed: values and pictures ({len(records)})</summary>"
    return f'<details>{words}<div class="records">{cards}</div></details>'


def _escaped(text: str) -> str:
    return escape(from_here(text))
