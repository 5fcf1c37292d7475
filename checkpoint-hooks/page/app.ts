/**
 * The dashboard: two streams in, one group shown.
 *
 *     /v1/figures/live ─► Histories ─┐
 *     /v1/events ───────► Histories ─┴─► draw, DRAW_MS apart at the least
 *
 * It only looks. When no figures came for STALE_MS it says since when, whatever the connection says:
 * a frozen daemon keeps its connections. A stream that the server closed is opened again.
 */
import type { ApiEvent, EventType, Figures } from '../../proxy/api/contract.ts';
import { Histories, isInTrouble, leaksOf, LOGGED } from './history.ts';
import { clock, count, element, part, showLines } from './parts.ts';
import { GroupPart } from './view.ts';

const STALE_MS = 2000;
const DRAW_MS = 200;
const REOPEN_MS = 2000;
/** Samples come in packets: drawn a packet behind, the line is whole up to its end. */
const BEHIND_MS = 300;
const LOG_MAX = 100;
const WINDOWS_MS = [1000, 5000, 20_000, 60_000];

const BAD: ReadonlySet<EventType> = new Set<EventType>(['overflow', 'port-lost', 'hold-lost', 'leak-blocked', 'refused', 'isolated', 'peer-lost']);

const histories = new Histories();
const view = new GroupPart();
const log = part('log', HTMLOListElement);
const nav = part('groups', HTMLElement);
let figures: Figures | undefined;
let chosen = decodeURIComponent(location.hash.slice(1));
let windowMs = 1000;
let heardAtMs = performance.now();
let heardOnce = false;

/** The daemon's clock now, as far as the last message tells. */
const nowMs = (): number => (figures?.atMs ?? 0) + Math.min(performance.now() - heardAtMs, STALE_MS);

function hearFigures(message: MessageEvent<string>): void {
  figures = JSON.parse(message.data) as Figures;
  heardAtMs = performance.now();
  heardOnce = true;
  histories.take(figures);
}

function hearEvent(message: MessageEvent<string>): void {
  const event = JSON.parse(message.data) as ApiEvent;
  histories.hear(event);
  if (LOGGED[event.type]) logEvent(event);
}

/** An overflow is told many times a second: what differs in `frames` alone is one line, so that it drives nothing else out. */
let newest: { readonly key: string; readonly line: HTMLLIElement; frames: number; times: number } | undefined;

function logEvent({ type, atMs, group, frames, ...others }: ApiEvent): void {
  const key = JSON.stringify([type, group, others]);
  const again = frames !== undefined && newest?.key === key ? newest : undefined;
  const [sum, times] = [(frames ?? 0) + (again?.frames ?? 0), (again?.times ?? 0) + 1];
  const rest = { ...others, ...(frames === undefined ? {} : { frames: count(sum) }), ...(times > 1 ? { times: count(times) } : {}) };
  const line = element('li', '', BAD.has(type) ? 'bad' : '');
  const details = Object.entries(rest).map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(', ') : String(value)}`);
  const text = element('span');
  text.append(element('b', type), ` ${[group, ...details].filter((one) => one !== undefined).join(' · ')}`);
  line.append(element('time', clock(atMs)), text);
  if (again === undefined) log.prepend(line);
  else again.line.replaceWith(line);
  newest = { key, line, frames: sum, times };
  while (log.childElementCount > LOG_MAX) log.lastElementChild?.remove();
}

function follow(path: string, names: readonly string[], hear: (message: MessageEvent<string>) => void): void {
  const source = new EventSource(path);
  for (const name of names) source.addEventListener(name, hear);
  source.addEventListener('error', () => {
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    setTimeout(() => follow(path, names, hear), REOPEN_MS);
  });
}

function showGroups(now: Figures): void {
  const wanted = now.groups.map(({ group }) => group);
  if (!wanted.includes(chosen)) chosen = wanted.toSorted((a, b) => rank(now, a) - rank(now, b))[0] ?? chosen;
  if ([...nav.children].map((button) => button.getAttribute('data-group')).join(' ') !== wanted.join(' ')) {
    nav.replaceChildren(...wanted.map((group) => {
      const button = element('button');
      button.dataset['group'] = group;
      button.append(element('i', '', 'dot'), group);
      button.addEventListener('click', () => choose(group));
      return button;
    }));
  }
  for (const button of nav.children) {
    const group = button.getAttribute('data-group') ?? '';
    button.setAttribute('aria-pressed', String(group === chosen));
    const level = levelOf(now, group);
    if (button.firstElementChild !== null) button.firstElementChild.className = `dot ${level}`;
  }
}

type Level = 'bad' | 'warn' | 'good' | '';
const LEVELS: readonly Level[] = ['bad', 'warn', 'good', ''];

function levelOf(now: Figures, group: string): Level {
  const history = histories.of(group);
  return isInTrouble(now, group) ? 'bad' : (history.alarms(nowMs())[0]?.level ?? (history.figures?.phase === 'protected' ? 'good' : ''));
}
/** Which group is shown where none was asked for: one in trouble first, one that is idle last. */
const rank = (now: Figures, group: string): number => LEVELS.indexOf(levelOf(now, group));

function choose(group: string): void {
  chosen = group;
  history.replaceState(null, '', `#${encodeURIComponent(group)}`);
  draw();
}

function showHealth(now: Figures): void {
  part('host', HTMLSpanElement).textContent = `${now.host} · ${now.version}`;
  const ready = part('ready', HTMLSpanElement);
  const leaks = leaksOf(now);
  ready.textContent = leaks > 0 ? `${leaks} leaks stopped` : now.ready ? 'ready' : 'not ready';
  ready.className = `pill ${leaks === 0 && now.ready ? 'good' : 'bad'}`;
  showLines(part('missing', HTMLUListElement), now.missing, 'banner bad');
  showPeers(now);
}

/** Where groups may span hosts: who is heard, and whether this host is cut off. */
function showPeers({ across }: Figures): void {
  const pill = part('peers', HTMLSpanElement);
  pill.hidden = across === undefined;
  if (across === undefined) return;
  const { ledger, peers, isolation } = across;
  const silent = peers.filter(({ phase }) => phase === 'late' || phase === 'lost').map(({ host, phase }) => `${host} ${phase}`);
  const isCut = isolation?.phase === 'isolated';
  pill.textContent = isCut ? 'isolated' : !ledger.ok ? 'no ledger' : silent.length > 0 ? silent.join(', ') : `${peers.length} other host${peers.length === 1 ? '' : 's'}`;
  pill.className = `pill ${isCut || !ledger.ok || peers.some(({ phase }) => phase === 'lost') ? 'bad' : silent.length > 0 ? 'warn' : 'good'}`;
}

function showLink(): void {
  const silentMs = performance.now() - heardAtMs;
  const isStale = silentMs > STALE_MS;
  const link = part('link', HTMLSpanElement);
  link.textContent = isStale ? 'no data' : heardOnce ? 'live' : 'connecting';
  link.className = `pill ${isStale ? 'bad' : heardOnce ? 'good' : 'warn'}`;
  const stale = part('stale', HTMLParagraphElement);
  stale.hidden = !isStale;
  stale.textContent = isStale ? `no data since ${clock(Date.now() - silentMs)}: the daemon is stopped, frozen or out of reach; what is shown is old` : '';
  document.body.classList.toggle('stale', isStale);
}

function showWindows(): void {
  const windows = part('windows', HTMLDivElement);
  windows.replaceChildren(...WINDOWS_MS.map((ms) => {
    const button = element('button', `${ms / 1000} s`);
    button.setAttribute('aria-pressed', String(ms === windowMs));
    button.addEventListener('click', () => {
      windowMs = ms;
      showWindows();
      draw();
    });
    return button;
  }));
}

function draw(): void {
  showLink();
  if (figures === undefined || document.hidden) return;
  showHealth(figures);
  showGroups(figures);
  const isEmpty = figures.groups.length === 0;
  part('empty', HTMLParagraphElement).hidden = !isEmpty;
  part('view', HTMLDivElement).hidden = isEmpty;
  if (!isEmpty) view.show(figures, histories.of(chosen), nowMs(), BEHIND_MS, windowMs);
}

showWindows();
follow('../v1/figures/live', ['figures'], hearFigures);
follow('../v1/events', Object.keys(LOGGED), hearEvent);
setInterval(draw, DRAW_MS);
window.addEventListener('hashchange', () => choose(decodeURIComponent(location.hash.slice(1))));
