/** Small pieces of the page. Everything is text: names come from users, so nothing is ever markup. */

export function part<E extends HTMLElement>(id: string, kind: new () => E): E {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} "${id}"`);
  return found;
}

export function element<K extends keyof HTMLElementTagNameMap>(name: K, text = '', className = ''): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.textContent = text;
  if (className !== '') made.className = className;
  return made;
}

export interface Cell {
  readonly text: string;
  readonly level?: string;
}
export interface Column {
  readonly name: string;
  readonly isNumber?: boolean;
  /** Words at the right edge, which may wrap. */
  readonly isState?: boolean;
}

export function showTable(into: HTMLElement, columns: readonly Column[], rows: readonly (readonly Cell[])[]): void {
  const table = element('table');
  const head = table.createTHead().insertRow();
  const kind = ({ isNumber, isState }: Column): string => (isNumber === true ? 'num' : isState === true ? 'state' : '');
  for (const column of columns) head.append(element('th', column.name, kind(column)));
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    columns.forEach((column, i) => line.append(element('td', row[i]?.text, [kind(column), row[i]?.level ?? ''].join(' ').trim())));
  }
  into.replaceChildren(table);
}

export interface Tile {
  readonly id: string;
  readonly value: string;
  readonly label: string;
  readonly level?: string;
}

export function showTiles(into: HTMLElement, tiles: readonly Tile[]): void {
  into.replaceChildren(...tiles.map(({ id, value, label, level }) => {
    const tile = element('div', '', `tile ${level ?? ''}`.trim());
    tile.dataset['tile'] = id;
    tile.append(element('b', value), element('span', label));
    return tile;
  }));
}

/** Lines, or nothing at all. */
export function showLines(into: HTMLElement, lines: readonly string[], className: string): void {
  into.hidden = lines.length === 0;
  into.className = className;
  into.replaceChildren(...lines.map((line) => element('li', line)));
}

export const css = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const count = (value: number): string => Math.round(value).toLocaleString('en');
export const clock = (atMs: number): string => new Date(atMs).toLocaleTimeString('en-GB');
