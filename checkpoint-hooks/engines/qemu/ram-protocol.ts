import type { PartPath } from './part.ts';

/** What the main thread asks of a guest's RAM worker, and what it answers. One answer a request. */
export interface RamWorkerData {
  readonly ram: string;
  readonly ramBytes: number;
}

export type RamRequest =
  | { readonly do: 'seed'; readonly base: string }
  | { readonly do: 'adopt'; readonly base: string; readonly parts: readonly PartPath[] }
  | { readonly do: 'capture' }
  | { readonly do: 'write'; readonly part: PartPath; readonly state: Uint8Array }
  | { readonly do: 'settle' }
  | { readonly do: 'bringStandby'; readonly ram: string }
  | { readonly do: 'dropStandby' }
  | { readonly do: 'turnLive'; readonly ram: string }
  | { readonly do: 'restore'; readonly ram: string; readonly base: string; readonly parts: readonly PartPath[] }
  | { readonly do: 'close' };

export interface RamDone {
  /** Pages captured, or bytes written or moved: what the request counts. */
  readonly count: number;
  readonly tookMs: number;
}
export interface RamAsked {
  readonly id: number;
  readonly request: RamRequest;
}
export type RamAnswer = { readonly id: number; readonly done: RamDone } | { readonly id: number; readonly failed: string; readonly isDamage: boolean };
