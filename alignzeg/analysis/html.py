"""Jinja template of the report, a single file without external resources."""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f6f8; --ink: #1c1e21; --faint: #5d6269; --grid: #c9ccd1;
  --seen: #0072b2; --unseen: #d55e00; --harmonic: #00815e; --other: #84708f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --panel: #1e2125; --ink: #e6e7e9; --faint: #a3a8af; --grid: #474b51;
    --seen: #56b4e9; --unseen: #f59247; --harmonic: #36c99c; --other: #b9a3c6;
  }
}
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; line-height: 1.35; margin: 3rem 0 .8rem; }
p, figcaption { max-width: 46rem; }
.faint, figcaption, footer { color: var(--faint); }
.note { border-left: 4px solid var(--unseen); padding: .3rem .9rem; background: var(--panel); }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
figure.narrow svg { max-width: 42rem; }
figcaption { font-size: .9rem; margin-top: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { font-weight: 600; }
th:first-child, td:first-child, .left { text-align: left; }
tr.own td { background: var(--panel); font-weight: 600; }
td.best { color: var(--harmonic); font-weight: 700; }
.tag { font-size: .75rem; font-weight: 600; border: 1px solid; border-radius: .6rem; padding: 0 .5rem;
  margin-left: .4rem; white-space: nowrap; }
.bar { display: flex; height: 1.1rem; min-width: 9rem; margin-top: .2rem; gap: 1px; }
i.itself { background: var(--harmonic); } i.others { background: var(--unseen); } i.seen { background: var(--seen); }
.key { display: inline-block; width: .8rem; height: .8rem; margin: 0 .35rem 0 .5rem; vertical-align: -.05rem; }
.confusion td, .confusion th { font-size: .9rem; }
.confusion td:nth-child(-n+2), .confusion span { white-space: nowrap; }
.confusion tr.with td { border-bottom-width: 2px; }
.confusion tr.without td { border-bottom: 0; }
details { margin-top: 3rem; } summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 3rem; border-top: 1px solid var(--grid); font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="faint">{{ subtitle }}</p>
{% for sentence in left_out %}<p class="note">{{ sentence }}</p>
{% endfor %}
{% macro cells(row) %}{% for key, _ in columns %}
<td{% if key == leading and row[key] == top %} class="best"{% endif %}>
{{- '%.2f' % row[key] if key in row else '–' }}</td>{% endfor %}{% endmacro %}
<div class="scroll"><table>
<tr><th>in percent</th>{% for _, heading in columns %}<th>{{ heading }}</th>{% endfor %}</tr>
{% for label, row in summary %}
<tr{% if row.own %} class="own"{% endif %}><td>{{ label }}{% if row.own %}<span class="tag">config</span>{% endif %}
</td>{{ cells(row) }}</tr>
{% endfor %}
</table></div>
<p class="faint">“Best” is chosen on these test images: it shows what is possible and is not a result to report. Choose
γ and constants on validation data. All rows use the same proposals; the config's row equals the result of
<code>mim test</code>.{% if bias_shown %} Unseen → seen is the share of unseen classes' pixels that are predicted as a
seen class.{% endif %}</p>
{% for section in sections %}
<section>
<h2>{{ section.heading }}</h2>
<figure{% if section.narrow %} class="narrow"{% endif %}><div class="scroll">{{ section.figure }}</div>
<figcaption>{{ section.caption }}</figcaption></figure>
</section>
{% endfor %}
{% if confusion %}
<section>
<h2>{{ confusion.heading }}</h2>
<figure><p class="faint">Pixels of a class are predicted as <i class="key itself"></i>the class itself,
<i class="key others"></i>another unseen class, <i class="key seen"></i>a seen class.</p>
<div class="scroll"><table class="confusion">
<tr><th>unseen class</th><th class="left">setting</th><th class="left">pixels</th><th>itself</th>
<th>other unseen</th><th>seen</th><th class="left">most frequent seen classes</th></tr>
{% for group in confusion.groups %}{% for name, row in group %}
<tr class="{{ 'with' if loop.last else 'without' }}"><td>{{ row.name if loop.first else '' }}</td>
<td class="left">{{ name }}</td>
<td><div class="bar">{% for kind, share in (('itself', row.itself), ('others', row.other_unseen), ('seen', row.seen)) %}
<i class="{{ kind }}" style="width:{{ '%.2f' % share }}%"></i>{% endfor %}</div></td>
<td>{{ '%.1f' % row.itself }}</td><td>{{ '%.1f' % row.other_unseen }}</td><td>{{ '%.1f' % row.seen }}</td>
<td class="left">{% for taker, share in row.takers %}
<span>{{ taker }} {{ '%.1f' % share }}{{ ',' if not loop.last }}</span> {% endfor %}</td></tr>
{% endfor %}{% endfor %}
</table></div>
<figcaption>{{ confusion.caption }}</figcaption></figure>
</section>
{% endif %}
<details><summary>All evaluated settings</summary>
<div class="scroll"><table>
<tr><th>setting</th>{% for _, heading in columns %}<th>{{ heading }}</th>{% endfor %}</tr>
{% for label, row in everything %}<tr><td>{{ label }}</td>{{ cells(row) }}</tr>
{% endfor %}
</table></div></details>
<footer><dl>{% for key, value in about.items() %}<dt>{{ key }}</dt><dd>{{ value }}</dd>{% endfor %}</dl></footer>
</body>
</html>
"""
