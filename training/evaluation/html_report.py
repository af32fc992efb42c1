"""The report as one HTML file that needs nothing beside it: tables, plots, learning curves; light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from model_store.durable import naming
from training.evaluation.report import OURS, EvaluationReport, Group, Protocol, Table
from training.run_log import read_lines

_AXES = {"popularity": "engagements of the query", "activity": "engagements of the user before"}
_TITLES = {"popularity": "By popularity", "activity": "By activity", "relation": "By relation"}

_STYLE = """
:root { --page: #fcfcfb; --ink: #1d1f23; --quiet: #5d636d; --grid: #d9dce1; --panel: #f3f4f6; --ours: #1f63c6;
  --other: #8b929c; --font: system-ui, -apple-system, "Segoe UI", sans-serif; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --page: #16181c; --ink: #e8eaed; --quiet: #a3a9b3; --grid: #363b43;
  --panel: #1f2227; --ours: #74aaff; --other: #868e99; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 var(--font); }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 3rem 0 .25rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .25rem; } p { margin: .25rem 0 .75rem; } .quiet { color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0 1.5rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
.wide th, .wide td { padding: .3rem .45rem; } .wide td:first-child, .wide td:nth-child(5) { white-space: normal; }
th { color: var(--quiet); font-weight: 500; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
tr.ours td { color: var(--ours); font-weight: 600; background: var(--panel); }
td small { display: block; color: var(--quiet); font-weight: 400; font-size: .78em; }
figure { margin: .75rem 0 0; } figure svg { display: block; width: 100%; max-width: 46rem; height: auto; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--quiet); }
"""


def write_html(
    report: EvaluationReport,
    file: Path,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    log: Path | None = None,
    tables: Sequence[Table] = (),
) -> None:
    """Write the report; the file appears whole or not at all.

    Args:
        report: What was measured.
        file: Where to write; its folder is made.
        title: The heading.
        facts: What the reader must know of the run (bundle, snapshot), by name.
        log: The training's ``log.jsonl``; without it, or where it is missing, there are no learning curves.
        tables: What was measured in another form, such as clicks.
    """
    lines = read_lines(log) if log is not None else []
    text = render_html(report, title=title, facts=facts or {}, log=lines, tables=tables)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.part")
    with naming(file):
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)


def render_html(
    report: EvaluationReport,
    *,
    title: str,
    facts: Mapping[str, str],
    log: Sequence[Mapping[str, Any]],
    tables: Sequence[Table] = (),
) -> str:
    """The page. ``log`` are the lines of ``training.run_log``."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if facts:
        parts.append("<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()) + "</dl>")
    if report.protocols:
        parts.append(_summary(report.protocols))
    parts += [f'<p class="quiet">{escape(note)}</p>' for note in report.notes]
    parts += [_protocol(protocol) for protocol in report.protocols]
    for table in tables:
        parts.append(f"<section>\n<h2>{escape(table.title)}</h2>\n{_table(table.columns, table.rows)}\n</section>")
    parts += _curves(log)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _summary(protocols: Sequence[Protocol]) -> str:
    rows = []
    for each in protocols:
        ours = each.scores.get(OURS, {}).get(each.headline)
        best = each.scores.get(each.best_baseline, {}).get(each.headline)
        rows.append(
            (each.name, f"{each.queries:,}", each.headline, ours, each.best_baseline or "-", best, each.gain),
        )
    columns = ("protocol", "queries", "metric", OURS, "best baseline", "its figure", "gain")
    return f'<div class="wide">{_table(columns, rows)}</div>'


def _protocol(protocol: Protocol) -> str:
    from training.evaluation.plots import named_groups_plot, ordered_groups_plot, scorers_plot

    parts = [f"<section>\n<h2>{escape(protocol.name)}</h2>"]
    parts.append(f'<p class="quiet">{protocol.queries:,} queries. {escape(protocol.note)}</p>')
    if protocol.gain is not None:
        parts.append(
            f"<p>Gain in {escape(protocol.headline)} over {escape(protocol.best_baseline)}, query by query: "
            f"<strong>{escape(str(protocol.gain))}</strong>.</p>"
        )
    if not protocol.queries or not protocol.scores:
        return "\n".join([*parts, "</section>"])
    parts.append(_figure(scorers_plot(protocol), f"{protocol.headline} of every scorer, with 95 % intervals"))
    parts.append(_scores(protocol))
    for by in dict.fromkeys(group.by for group in protocol.groups):
        groups = [group for group in protocol.groups if group.by == by]
        parts.append(f"<h3>{escape(_TITLES.get(by, f'By {by}'))}</h3>")
        if by == "relation":
            plot, what = named_groups_plot(protocol, groups), "queries that have an edge of a relation, and that do not"
        else:
            plot, what = ordered_groups_plot(protocol, groups, _AXES.get(by, by)), "queries cut at the deciles"
        parts.append(_figure(plot, f"{protocol.headline}: {what}"))
        parts.append(_groups(protocol, groups))
    return "\n".join([*parts, "</section>"])


def _scores(protocol: Protocol) -> str:
    rows = [(name, *(protocol.scores[name][each] for each in protocol.metrics)) for name in protocol.ranked()]
    return _table(("scorer", *protocol.metrics), rows, ours=OURS)


def _groups(protocol: Protocol, groups: Sequence[Group]) -> str:
    names = protocol.ranked()
    rows = [(group.name, f"{group.queries:,}", *(group.scores[name] for name in names)) for group in groups]
    return f"<details><summary>Figures of every scorer</summary>{_table(('group', 'queries', *names), rows)}</details>"


def _curves(log: Sequence[Mapping[str, Any]]) -> list[str]:
    from training.evaluation.plots import curve_plot, figures_of

    parts = []
    for space in dict.fromkeys(line["space"] for line in log):
        lines = [dict(line) for line in log if line["space"] == space]
        for name in figures_of(lines):
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            if len(points) > 1:
                plot = curve_plot([step for step, _ in points], [value for _, value in points], name)
                parts.append(f"<h3>Space {escape(str(space))}: {escape(name)}</h3>")
                parts.append(_figure(plot, f"{name} by training step in the space {space}"))
    return ["<section>\n<h2>Learning curves</h2>", *parts, "</section>"] if parts else []


def _figure(svg: str, label: str) -> str:
    return f'<figure role="img" aria-label="{escape(label)}">{svg}</figure>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, ours: str | None = None) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = []
    for row in rows:
        mark = ' class="ours"' if ours is not None and row[0] == ours else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    mean, _, interval = str(value).partition(" [")
    if isinstance(value, str) or not interval:
        return escape(str(value))
    return f"{escape(mean)}<small>{escape('[' + interval)}</small>"
