/** What the engine says of itself while it runs, in order: a line each under --json. */
import type { Phase } from './checkpoint.ts';

export type EngineEvent =
  /** A step of the checkpoint under way. */
  | { readonly event: 'phase'; readonly phase: Phase; readonly number: number }
  | {
      readonly event: 'checkpoint';
      readonly epoch: number;
      readonly generation: number;
      /** First guest asked to stop until the last one runs again. */
      readonly stopMs: number;
      /** The slowest guest's, of the stop. */
      readonly saveMs: number;
      readonly compareMs: number;
      readonly cutMs: number;
      /** From running again to durable. */
      readonly shipMs: number;
      readonly members: Readonly<Record<string, { readonly pages: number; readonly bytes: number }>>;
    }
  /** Not made, or not made durable, for a reason that passes. */
  | { readonly event: 'skipped'; readonly why: string }
  | { readonly event: 'committed'; readonly epoch: number }
  /** How a member's base came to be: `full` = copied while it ran, `kept` = the store had one. */
  | { readonly event: 'based'; readonly member: string; readonly how: 'full' | 'kept'; readonly movedBytes: number; readonly tookMs: number }
  /** The store's image of a member is damaged: it is copied anew. */
  | { readonly event: 'base-lost'; readonly member: string; readonly why: string }
  | { readonly event: 'protected'; readonly generation: number }
  | { readonly event: 'standby'; readonly member: string; readonly movedBytes: number; readonly tookMs: number }
  | { readonly event: 'standby-failed'; readonly member: string; readonly why: string }
  /** Something that is to help does not, and why; the group is as safe as before. */
  | { readonly event: 'without'; readonly what: 'inbound' | 'priority'; readonly why: string }
  | { readonly event: 'dead'; readonly member: string; readonly why: string }
  | {
      readonly event: 'takeover';
      readonly generation: number;
      readonly epoch: number;
      /** Since the death was seen. */
      readonly fencedMs: number;
      readonly restoredMs: number;
      readonly runningMs: number;
      /** Frames from outside that came since the checkpoint, given to the new sides. */
      readonly replayed: number;
      /** Members whose RAM had to be written because no ready standby was there. */
      readonly cold: readonly string[];
    };

export type Tell = (event: EngineEvent) => void;
