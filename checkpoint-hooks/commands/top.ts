/**
 * `sluice top`: all groups as a table that renews itself, the chosen one below it with its phases,
 * members and a line of held bytes.
 *
 *     figures, events ─► Histories ─► screenText(size) ─► terminal, DRAW_MS apart
 *
 * q or Ctrl-C ends it, arrows choose the group. Without a terminal, or with --once, one picture is
 * printed, of two looks ONCE_MS apart, and that is all. When no figures come it says since when.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Figures, GroupFigures } from '../../proxy/api/contract.ts';
import { bytesText, msText, table } from '../format.ts';
import { Histories, leaksOf, portTrouble } from '../page/history.ts';
import type { GroupHistory } from '../page/history.ts';
import type { Context } from './context.ts';
import { untilSignal } from './running.ts';

const DRAW_MS = 250;
const STALE_MS = 2000;
/** Between the two looks of --once. */
const ONCE_MS = 500;
const BLOCKS = ' ▁▂▃▄▅▆▇█';
const CLEAR = '\x1b[H';
const LINE_END = '\x1b[K\n';
const BELOW = '\x1b[J';

export interface Screen {
  readonly columns: number;
  readonly rows: number;
}

/** The peaks of the values, one character each. */
export function spark(values: readonly number[], width: number): string {
  const most = Math.max(1, ...values);
  return Array.from({ length: Math.min(width, values.length) }, (_, i, size = Math.min(width, values.length)) => {
    const peak = Math.max(...values.slice(Math.floor((i * values.length) / size), Math.max(Math.floor((i * values.length) / size) + 1, Math.floor(((i + 1) * values.length) / size))));
    return BLOCKS[Math.ceil((peak / most) * 8)] ?? ' ';
  }).join('');
}

function groupRow(group: GroupFigures, history: GroupHistory, isChosen: boolean): string[] {
  const { dropped, held } = group;
  return [
    `${isChosen ? '>' : ' '} ${group.group}`, group.phase, String(group.generation), group.phase === 'idle' ? '-' : String(group.open), history.rate((of) => of.sealed).toFixed(1),
    String(group.sealed - group.released), bytesText(held.bytes), msText(held.oldestMs), `${Math.round(history.rate((of) => of.hold.releasedFrames))}`,
    String(dropped.overflow + dropped.refused), String(dropped.discarded),
  ];
}
const HEAD = ['  group', 'phase', 'gen', 'open', 'cuts/s', 'in flight', 'held', 'oldest', 'released/s', 'dropped', 'discarded'];
const ALIGN = ['left', 'left', ...HEAD.slice(2).map(() => 'right' as const)] as const;

/** The whole picture as text; lines beyond the screen are cut, never wrapped. */
export function screenText(figures: Figures, histories: Histories, chosen: number, { columns, rows }: Screen, note = ''): string {
  const leaks = leaksOf(figures);
  const lines = [
    `sluice ${figures.version} on ${figures.host}  ${figures.ready ? 'ready' : 'NOT READY'}  leaks ${leaks}${leaks === 0 ? '' : ' STOPPED BY A GUARD'}${note === '' ? '' : `  ${note}`}`,
    ...acrossLines(figures),
    ...figures.missing.map((one) => `! ${one}`),
    '',
  ];
  if (figures.groups.length === 0) lines.push('no group yet; create one: sluice group apply -f web.yaml');
  else lines.push(...table(HEAD, figures.groups.map((group, i) => groupRow(group, histories.of(group.group), i === chosen)), ALIGN).split('\n'));
  const group = figures.groups[chosen];
  if (group !== undefined) lines.push('', ...groupLines(group, histories.of(group.group), figures, columns));
  return lines.slice(0, rows).map((line) => line.slice(0, columns)).join('\n');
}

/** The other hosts and the way to them, in a line. */
function acrossLines({ across }: Figures): string[] {
  if (across === undefined) return [];
  const { ledger, peers, isolation } = across;
  const heard = peers.map(({ host, phase, silentMs }) => `${host} ${phase === 'there' ? phase : phase.toUpperCase()}${silentMs === undefined ? '' : ` (${msText(silentMs)})`}`);
  const cut = isolation === undefined ? 'not looked at' : isolation.phase === 'isolated' ? `ISOLATED for ${msText(isolation.forMs)}` : isolation.phase;
  const closed = isolation === undefined || isolation.closedPorts.length === 0 ? '' : `, ports CLOSED: ${isolation.closedPorts.join(' ')}`;
  return [`ledger ${ledger.ok ? 'there' : 'NOT THERE'}   other hosts: ${heard.length === 0 ? 'none' : heard.join(', ')}   isolation: ${cut}${closed}`];
}

function hostLines({ hosts }: GroupFigures, isLedgerThere: boolean): string[] {
  if (hosts === undefined) return [];
  const rows = hosts.map(({ host, acked, behind, late, alive }) => [`  ${host}`, String(acked), String(behind), !isLedgerThere ? 'not known: no ledger' : !alive ? 'NOT HEARD' : late ? 'LATE: the group waits for it' : 'there']);
  return ['', ...table(['  host', 'acked', 'behind', 'state'], rows, ['left', 'right', 'right', 'left']).split('\n')];
}

function memberLines(figures: Figures, { phase, members, spec }: GroupFigures): string[] {
  const rows = members.map((member) => {
    const state = portTrouble(figures, spec.members.find(({ name }) => name === member.name))?? (phase === 'idle' ? 'not held' : member.ready ? 'ready' : 'joining');
    return [`  ${member.name}`, ...(phase === 'idle' ? ['-', '-'] : [String(member.open), String(member.acked)]), state];
  });
  return table(['  member', 'open', 'acked', 'state'], rows, ['left', 'right', 'right', 'left']).split('\n');
}

function groupLines(group: GroupFigures, history: GroupHistory, figures: Figures, columns: number): string[] {
  const { atMs: nowMs, across } = figures;
  const isLedgerThere = across?.ledger.ok ?? true;
  const phases = history.phases().filter(({ count }) => count > 0).map(({ name, p50, p99 }) => `${name} ${msText(p50)} (p99 ${msText(p99)})`);
  const recent = history.heldBytes.slice(-400);
  return [
    `${group.group}: held ${bytesText(group.held.bytes)} of ${bytesText(group.hold.bytesMax)}, ${(group.hold.occupancy * 100).toFixed(0)} % of the ring`,
    ...(recent.length < 2 ? [] : [`${spark(recent, columns - 24)}  most ${bytesText(Math.max(...recent))}`]),
    ...(phases.length === 0 ? [] : [phases.join('   ')]),
    ...history.alarms(nowMs).map(({ text }) => `! ${text}`),
    '',
    ...memberLines(figures, group),
    ...hostLines(group, isLedgerThere),
  ];
}

async function once(context: Context, command: Command): Promise<void> {
  const client = context.client(command);
  let figures = await client.figures();
  const histories = new Histories();
  histories.take(figures);
  if (!context.isJson(command) && figures.groups.length > 0) { // what happens a second is the difference of two
    await sleep(ONCE_MS);
    figures = await client.figures();
    histories.take(figures);
  }
  context.show(command, figures, () => screenText(figures, histories, -1, { columns: Infinity, rows: Infinity }));
}

/** Returns what gives the terminal back. */
function takeTerminal(onKey: (key: string) => void, onResize: () => void): () => void {
  process.stdout.write('\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J');
  process.stdout.on('resize', onResize);
  const listen = (data: Buffer): void => onKey(data.toString('latin1'));
  const { stdin } = process;
  if (stdin.isTTY) stdin.setRawMode(true).resume().on('data', listen);
  return () => {
    process.stdout.off('resize', onResize);
    if (stdin.isTTY) stdin.off('data', listen).setRawMode(false).pause();
    process.stdout.write('\x1b[?7h\x1b[?25h\x1b[?1049l');
  };
}

async function live(context: Context, command: Command): Promise<void> {
  const client = context.client(command);
  let figures = await client.figures(); // refused or not there: said before the terminal is taken
  const histories = new Histories();
  histories.take(figures);
  let heardAtMs = performance.now();
  let chosen = 0;
  const draw = (): void => {
    chosen = Math.max(0, Math.min(chosen, figures.groups.length - 1));
    const silentMs = performance.now() - heardAtMs;
    const note = silentMs < STALE_MS ? 'q quits' : `NO DATA since ${new Date(Date.now() - silentMs).toLocaleTimeString('en-GB')}`;
    const text = screenText(figures, histories, chosen, { columns: process.stdout.columns, rows: process.stdout.rows - 1 }, note);
    process.stdout.write(`${CLEAR}${text.replaceAll('\n', LINE_END)}${LINE_END}${BELOW}`);
  };
  await untilSignal({ first: '', isShown: false, text: () => '' }, async (signal) => {
    const quit = new AbortController();
    const all = AbortSignal.any([signal, quit.signal]);
    const giveBack = takeTerminal((key) => {
      if (key === 'q' || key === '\x03') quit.abort();
      if (key === '\x1b[A') chosen -= 1;
      if (key === '\x1b[B' || key === '\t') chosen += 1;
      draw();
    }, draw);
    const timer = setInterval(draw, DRAW_MS);
    const hearEvents = async (): Promise<void> => {
      for await (const { event } of client.events({ signal: all })) histories.hear(event);
    };
    try {
      const events = hearEvents().catch((error: unknown) => quit.abort(error));
      for await (const now of client.liveFigures({ signal: all })) {
        figures = now;
        heardAtMs = performance.now();
        histories.take(now);
      }
      await events;
    } finally {
      clearInterval(timer);
      giveBack();
    }
  });
}

export function addTop(program: Command, context: Context): void {
  program
    .command('top')
    .description('all groups, renewed four times a second: epochs, held bytes, phases, who is late; q quits, arrows choose')
    .option('--once', 'print one picture and end, as without a terminal')
    .addHelpText('after', '\nExample:\n  $ sluice top\n  $ sluice top --once')
    .action((options: { once?: boolean }, command: Command) =>
      options.once === true || context.isJson(command) || !process.stdout.isTTY ? once(context, command) : live(context, command));
}
