/** out/bench.html: one file, no script, nothing fetched; light or dark as the reader's system says. */
import type { Figure, Outcome } from '../figures.ts';
import { SECTIONS } from '../scenario.ts';
import type { Chart } from './charts.ts';
import { HEAD, cells, faults, gaps, notes, verdictText } from './words.ts';

const escape = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');

const STYLE = `
:root { color-scheme: light dark; --ground: #fdfdfc; --ink: #1d2228; --soft: #5d6670; --line: #d9dde2; --bad: #b3263e; --good: #20744a; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --ink: #e6e8ea; --soft: #9aa4ae; --line: #333a42; --bad: #ff8098; --good: #6cc99a; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .2rem; } h3::first-letter { text-transform: uppercase; }
p { margin: .3rem 0; } .soft { color: var(--soft); font-size: .9rem; }
figure { margin: 0; overflow-x: auto; } figure svg { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; width: 100%; } th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:not(:first-child) { font-variant-numeric: tabular-nums; white-space: nowrap; } td:first-child { min-width: 16rem; } .bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); }
`;

const row = (figure: Figure): string => {
  const verdict = verdictText(figure);
  const kind = verdict === 'MISSED' ? 'bad' : verdict === 'ok' ? 'good' : '';
  const [low, high] = figure.spread;
  const tip = `middle half of ${figure.samples.length} laps: ${low.toPrecision(3)} to ${high.toPrecision(3)} ${figure.unit}`;
  return `<tr title="${escape(tip)}">${cells(figure).map((cell, i) => `<td${i === 5 ? ` class="${kind}"` : ''}>${escape(cell)}</td>`).join('')}</tr>`;
};

function list(title: string, sentences: readonly string[], otherwise: string): string {
  if (sentences.length === 0) return otherwise === '' ? '' : `<p class="good">${escape(otherwise)}</p>`;
  return `<h3>${escape(title)}</h3><ul>${sentences.map((sentence) => `<li>${escape(sentence)}</li>`).join('')}</ul>`;
}

export interface PageInput {
  readonly outcomes: readonly Outcome[];
  readonly figures: readonly Figure[];
  readonly charts: readonly Chart[];
  readonly machineLine: string;
  /** For noise, before a missed floor is a failure. */
  readonly room: number;
}

export function page({ outcomes, figures, charts, machineLine, room }: PageInput): string {
  const times = outcomes.map(({ result }) => result.beganAt).sort();
  const wrong = faults(outcomes, figures, new Set(outcomes.map(({ scenario }) => scenario.name)));
  const tables = SECTIONS.flatMap((section) => {
    const own = figures.filter((figure) => figure.section === section);
    return own.length === 0 ? [] : [`<h2>${section}</h2>${about(outcomes, section)}<div class="wide"><table><tr>${HEAD.map((head) => `<th>${head}</th>`).join('')}</tr>${own.map(row).join('\n')}</table></div>`];
  });
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Sluice bench</title><style>${STYLE}</style></head><body>
<h1>Sluice beside the plain bridge and its peers</h1>
<p class="soft">${escape(machineLine)}</p>
<p class="soft">${outcomes.length} scenarios, ${escape(times[0] ?? '')} to ${escape(times.at(-1) ?? '')}. Every value is the median of laps that alternate with its baseline, and a ratio the median of the laps' own ratios; a row's tip has the spread. A floor is missed where it is missed by more than ${Math.round((1 - room) * 100)} %.</p>
${list('Missed', wrong, 'No floor is missed.')}
${list('Not measured here', gaps(outcomes), '')}
<h2>Charts</h2>
${charts.map(({ title, caption, svg }) => `<h3>${escape(title)}</h3><figure>${svg}<figcaption class="soft">${escape(caption)}</figcaption></figure>`).join('\n')}
${tables.join('\n')}
</body></html>
`;
}

function about(outcomes: readonly Outcome[], section: string): string {
  const own = outcomes.filter(({ scenario }) => scenario.section === section);
  return `${notes(own).map((note) => `<p>${escape(note)}</p>`).join('')}<details class="soft"><summary>how</summary><ul>${own.map(({ scenario, result }) =>
    `<li><b>${escape(scenario.name)}</b>: ${escape(scenario.topology)}; ${escape(scenario.arguments)} (${result.laps} laps)</li>`).join('')}</ul></details>`;
}
