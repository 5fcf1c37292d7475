/** What a kind of frame is made from, and what it makes. */
import type { Part, Seeded } from './bytes.ts';

export interface CorpusPlace {
  /** The sending member's own MAC, six bytes. */
  readonly source: Uint8Array;
  /** The outsider's. */
  readonly outsider: Uint8Array;
  /** Largest payload of an Ethernet frame on the wire. */
  readonly mtu: number;
}

export interface CorpusFrame {
  readonly kind: string;
  /** Unique in the corpus. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Collects frames under the kind being written. */
export interface Writer {
  readonly place: CorpusPlace;
  readonly random: Seeded;
  add(kind: string, bytes: Uint8Array): void;
}

export const BROADCAST: Part = 'ffffffffffff';
