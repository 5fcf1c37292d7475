/**
 * The live figures: what a dashboard, `sluice top` and other watchers read a few times a second.
 *
 *     GET /v1/figures        one picture of now
 *     GET /v1/figures/live   the same as server-sent events, each with the samples since the last
 *
 * Totals count since the group was protected, or since the daemon's start if that is later.
 */
import { Type } from '../doors/typebox.ts';
import { GroupName, GroupView } from './contract-schema.ts';

const Count = Type.Integer({ minimum: 0 });
const Total = Type.Number({ minimum: 0 });

/** `counts` has one more than `bounds`: what is above the last bound. */
const Spread = Type.Object({ boundsMs: Type.Array(Type.Number()), counts: Type.Array(Total), sumMs: Total });

const GroupFigures = Type.Object({
  ...GroupView.properties,
  hold: Type.Object({
    bytesMax: Count,
    highWater: Type.Number(),
    occupancy: Type.Number({ minimum: 0, description: 'share of the tightest bound in use' }),
    arrivedFrames: Total,
    arrivedBytes: Total,
    releasedFrames: Total,
    releasedBytes: Total,
    earlyFrames: Total,
    lateRecorded: Total,
    redelivered: Total,
  }),
  holdTime: Type.Object(Spread.properties, { description: 'hold time of released frames' }),
  toWire: Type.Object(Spread.properties, { description: 'from the release command to the first frame handed to the kernel' }),
  samples: Type.Object(
    { atMs: Type.Array(Type.Number()), heldBytes: Type.Array(Total) },
    { description: 'held bytes, sampled every few milliseconds since the last message; empty in a single picture' },
  ),
});

/** Frames that the guards stopped, over all ports. leakBlocked and releaseRefused stay 0. */
const Guards = Type.Object({ leakBlocked: Total, releaseRefused: Total, unvetted: Total, confined: Total });

const Across = Type.Object(
  {
    ledger: Type.Object({ ok: Type.Boolean(), ackTransactions: Total, acks: Total, failures: Total, storeBytes: Type.Optional(Total) }),
    peers: Type.Array(Type.Object({
      host: Type.String(),
      phase: Type.Enum(['there', 'late', 'lost', 'unknown'], { description: 'lost: its lease has run out; unknown: this host hears not even itself' }),
      silentMs: Type.Optional(Total),
    })),
    isolation: Type.Optional(Type.Object({
      phase: Type.Enum(['unknown', 'reachable', 'suspect', 'isolated']),
      forMs: Total,
      policy: Type.Enum(['hold', 'close']),
      addresses: Type.Array(Type.Object({ address: Type.String(), answeredMsAgo: Type.Optional(Total) })),
      closedPorts: Type.Array(Type.String(), { description: 'members\' ports that are down because this host is isolated' }),
    })),
  },
  { description: 'of a daemon with a ledger: the other hosts, and whether this one is cut off' },
);

export const Figures = Type.Object(
  {
    atMs: Type.Number({ description: 'wall clock, milliseconds since 1970' }),
    host: Type.String(),
    version: Type.String(),
    ready: Type.Boolean(),
    missing: Type.Array(Type.String()),
    guards: Guards,
    across: Type.Optional(Across),
    groups: Type.Array(GroupFigures),
  },
  { description: 'everything that a watcher shows' },
);
export const FiguresQuery = Type.Object({ group: Type.Optional(GroupName) }, { additionalProperties: false, description: '?group=' });

export type Figures = Type.Static<typeof Figures>;
export type GroupFigures = Type.Static<typeof GroupFigures>;
