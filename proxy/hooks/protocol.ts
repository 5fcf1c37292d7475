/**
 * What daemon and hooks child say to each other: JSON, one value a line. Settings go by the child's
 * standard input, not by its arguments or environment, because the secret is in them.
 */
export interface HookSettings {
  readonly host: string;
  /** Program that gets each event on its standard input. */
  readonly command: string | undefined;
  readonly urls: readonly string[];
  /** Signs what is posted; undefined = unsigned. */
  readonly secret: string | undefined;
  /** PEM of the CA of https addresses; undefined = the well-known ones. */
  readonly ca: string | undefined;
  /** Of one run of the command, and of one try of a post. */
  readonly timeoutMs: number;
}
export type ToHooks = { readonly set: HookSettings } | { readonly id: string; readonly type: string; readonly text: string };

/** `dropped`: there was no room to wait. `target`: command, webhook-1 … (an address may hold a secret). */
export type HookOutcome = 'done' | 'failed' | 'dropped';
export interface HookReport {
  readonly target: string;
  readonly outcome: HookOutcome;
  readonly why?: string;
}

export const lineOf = (value: ToHooks | HookReport): string => `${JSON.stringify(value)}\n`;

/** A line longer than this is no line of ours. */
const LINE_BYTES_MAX = 1 << 20;

/** Text in pieces -> values, a line each. Throws where it is not our protocol: the other side is faulty. */
export class Lines {
  #rest = '';

  take(piece: string): unknown[] {
    const lines = (this.#rest + piece).split('\n');
    this.#rest = lines.pop() ?? '';
    if (this.#rest.length > LINE_BYTES_MAX) throw new Error(`a line of more than ${LINE_BYTES_MAX} bytes`);
    return lines.map((line): unknown => JSON.parse(line));
  }
}
