/**
 * Every shape that crosses the API, both ways, and the one table of error codes.
 *
 * Schemas are strict: a field that is not named here is refused. A schema's `description` is also
 * what an error message shows as "expected", so it is written for the person who got it wrong.
 * Codes are a contract: never renamed, never given a second meaning.
 */
import { Type } from '../doors/typebox.ts';
import { NUMBER_MAX } from '../core/types.ts';

const strict = { additionalProperties: false } as const;

/** Refusal codes and the HTTP status each is sent with. */
export const ERROR_STATUS = {
  bad_request: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  no_such_group: 404,
  no_such_member: 404,
  epoch_out_of_order: 409,
  not_acked: 409,
  fenced: 409,
  not_protected: 409,
  already_protected: 409,
  member_held: 409,
  port_claimed: 409,
  isolated: 409,
  too_large: 413,
  unsupported_media_type: 415,
  too_many_epochs: 429,
  too_many_clients: 429,
  busy: 429,
  rate_limited: 429,
  internal: 500,
  journal_failed: 503,
  plane_down: 503,
  ledger_down: 503,
  stopping: 503,
} as const;
export type ErrorCode = keyof typeof ERROR_STATUS;
const ERROR_CODES = Object.keys(ERROR_STATUS).filter((code): code is ErrorCode => code in ERROR_STATUS);

/** Bounds of a group file; the kernel's tables (abi.h) are sized for them. */
export const LIMITS = {
  membersMax: 256,
  nicsMax: 256,
  addressesMax: 16,
  hostsMax: 64,
  holdBytesMin: 1024 * 1024,
  holdBytesMax: 4 * 1024 * 1024 * 1024,
  holdBytesDefault: 64 * 1024 * 1024,
  highWaterDefault: 0.75,
  /** In one request: two for each group that a daemon may have. */
  commandsMax: 512,
} as const;

export const GroupName = Type.String({
  pattern: '^[a-z0-9-]{1,32}$',
  description: 'a group name: 1 to 32 of the characters a-z, 0-9 and "-"',
});
export const MemberName = Type.String({
  pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$',
  description: 'a member name: 1 to 63 letters, digits, ".", "_" or "-", beginning with a letter or digit',
});
const PortName = Type.String({
  pattern: '^(?!\\.{1,2}$)[^\\s/:\\u0000-\\u001f\\u007f-\\u009f]{1,15}$',
  description: 'the name of a bridge port (the VM\'s tap): 1 to 15 characters, no "/", ":", space or control character',
});
const Mac = Type.String({
  pattern: '^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$',
  description: 'a MAC address in quotes, as "02:00:00:00:00:01"',
});
const Vlan = Type.Integer({ minimum: 1, maximum: 4094, description: 'a VLAN number, 1 to 4094; leave it out for untagged' });
export const Generation = Type.Integer({
  minimum: 1,
  maximum: NUMBER_MAX,
  description: 'a generation: a whole number from 1',
});
export const Epoch = Type.Integer({
  minimum: 0,
  maximum: NUMBER_MAX,
  description: 'an epoch: a whole number from 0',
});
const HeldFate = Type.Enum(['release', 'discard'], {
  description: '"release" or "discard": what becomes of the held frames',
});
const Size = Type.Union([Type.Integer({ minimum: 0 }), Type.String({ pattern: '^[0-9]+(\\.[0-9]+)? ?(KiB|MiB|GiB|B)?$' })], {
  description: 'a size, as 64MiB or a number of bytes (1MiB to 4GiB)',
});
const Addresses = Type.Array(Type.String(), {
  maxItems: LIMITS.addressesMax,
  description: 'a list of up to 16 IPv4 and IPv6 addresses of the NIC, as ["10.0.0.1", "2001:db8::1"]; they are announced after a takeover',
});
const HostName = Type.String({
  pattern: '^[A-Za-z0-9._-]{1,64}$',
  description: 'the name of a host, as its sluiced has it: 1 to 64 letters, digits, ".", "_" or "-"',
});
const Vni = Type.Integer({ minimum: 1, maximum: 0xff_ffff, description: 'a VXLAN network number (VNI), 1 to 16777215, of this group alone' });
const Hosts = Type.Record(HostName, Type.String({ description: 'an IPv4 address, as "192.0.2.1"' }), {
  ...strict,
  maxProperties: LIMITS.hostsMax,
  description: 'a map of up to 64 hosts to their IPv4 addresses on the routed network, as { h1: "192.0.2.1", h2: "198.51.100.1" }',
});
const Count = Type.Integer({ minimum: 0 });

const Nic = Type.Object(
  { port: PortName, mac: Mac, vlan: Type.Optional(Vlan), addresses: Type.Optional(Addresses) },
  { ...strict, description: 'a NIC: { port, mac }, where it is tagged vlan, and the addresses to announce' },
);
const memberFields = {
  port: Type.Optional(PortName),
  mac: Type.Optional(Mac),
  vlan: Type.Optional(Vlan),
  nics: Type.Optional(Type.Array(Nic, { minItems: 1, maxItems: LIMITS.nicsMax, description: 'a list of NICs, each { port, mac, vlan? }' })),
  host: Type.Optional(HostName),
  addresses: Type.Optional(Addresses),
};
const memberHint = 'a member: { name, host?, port, mac, vlan?, addresses? } or, with several NICs, { name, host?, nics: [ { port, mac, vlan?, addresses? } ] }';
export const MemberFile = Type.Object({ name: MemberName, ...memberFields }, { ...strict, description: memberHint });
/** Body of PUT …/members/{m}: the name may be left out, and must be the path's when given. */
export const MemberBody = Type.Object({ name: Type.Optional(MemberName), ...memberFields }, { ...strict, description: memberHint });

const groupFields = {
  commit: Type.Optional(Type.Enum(['explicit', 'acks'], { description: '"explicit" (the engine commits) or "acks" (every member\'s ack commits)' })),
  members: Type.Array(MemberFile, { minItems: 1, maxItems: LIMITS.membersMax, description: 'a list of 1 to 256 members' }),
  hold: Type.Optional(
    Type.Object(
      {
        bytes: Type.Optional(Size),
        highWater: Type.Optional(Type.Number({ minimum: 0.05, maximum: 1, description: 'a share of hold.bytes, 0.05 to 1' })),
      },
      { ...strict, description: '{ bytes, highWater }' },
    ),
  ),
  foreignSource: Type.Optional(Type.Enum(['hold', 'drop'], { description: '"hold" or "drop": frames with a source MAC that is not the member\'s' })),
  intraPath: Type.Optional(Type.Enum(['redirect', 'bridge'], { description: '"redirect" or "bridge": the way of frames between members' })),
  wire: Type.Optional(
    Type.Object(
      { vlan: Type.Optional(Vlan), vxlan: Type.Optional(Vni), hosts: Type.Optional(Hosts) },
      { ...strict, description: '{ vlan }: the outer VLAN number of frames between hosts; or, over a routed network, { vxlan, hosts }: the VNI and each host\'s IPv4 address' },
    ),
  ),
};
const groupHint = 'a group file: { group, commit, members, hold?, foreignSource?, intraPath?, wire? }';
export const GroupFile = Type.Object({ group: GroupName, ...groupFields }, { ...strict, description: groupHint });
/** Body of PUT /v1/groups/{g}: the same, with the name optional. */
export const GroupBody = Type.Object({ group: Type.Optional(GroupName), ...groupFields }, { ...strict, description: groupHint });

export const ProtectBody = Type.Object({ generation: Type.Optional(Generation) }, { ...strict, description: '{ generation? }' });
export const CutBody = Type.Object(
  { generation: Generation, epoch: Epoch, member: Type.Optional(MemberName) },
  { ...strict, description: '{ generation, epoch, member? }' },
);
export const AckBody = Type.Object(
  {
    generation: Generation,
    epoch: Epoch,
    members: Type.Optional(Type.Array(MemberName, { minItems: 1, maxItems: LIMITS.membersMax, description: 'a list of member names; leave it out for all' })),
  },
  { ...strict, description: '{ generation, epoch, members? }' },
);
export const EpochBody = Type.Object({ generation: Generation, epoch: Epoch }, { ...strict, description: '{ generation, epoch }' });
/** `members`: where each of them is from now on; the same members with the same addresses, at other ports. */
export const TakeoverBody = Type.Object(
  {
    generation: Generation,
    epoch: Epoch,
    members: Type.Optional(Type.Array(MemberFile, { minItems: 1, maxItems: LIMITS.membersMax, description: 'the group\'s members at their new ports; leave it out when they stay' })),
  },
  { ...strict, description: '{ generation, epoch, members? }' },
);
export const UnprotectBody = Type.Object({ generation: Generation, held: HeldFate }, { ...strict, description: '{ generation, held: "release" or "discard" }' });

/** Commands of every epoch: what an engine says again and again, of one group or of many at once. */
export const EPOCH_COMMANDS = ['cut', 'ack', 'commit'] as const;
const EpochCommand = Type.Object(
  {
    group: GroupName,
    command: Type.Enum([...EPOCH_COMMANDS], { description: '"cut", "ack" or "commit"' }),
    generation: Generation,
    epoch: Epoch,
    member: CutBody.properties.member,
    members: AckBody.properties.members,
  },
  { ...strict, description: 'a command: { group, command, generation, epoch, member? (of a cut), members? (of an ack) }' },
);
/** Body of POST /v1/commands. */
export const CommandsBody = Type.Object(
  { commands: Type.Array(EpochCommand, { minItems: 1, maxItems: LIMITS.commandsMax, description: 'a list of 1 to 512 commands' }) },
  { ...strict, description: '{ commands: [ { group, command, generation, epoch, member?, members? } ] }' },
);

export const CommitQuery = Type.Object(
  {
    wait: Type.Optional(Type.Enum(['released'], { description: '"released": answer when the last frame of the epoch was handed to the kernel' })),
    timeoutMs: Type.Optional(Type.Integer({ minimum: 1, maximum: 600_000, description: 'how long to wait, 1 to 600000 ms; 10000 when left out' })),
  },
  { ...strict, description: '?wait=released&timeoutMs=' },
);
export const LeaveQuery = Type.Object({ held: Type.Optional(HeldFate) }, { ...strict, description: '?held=' });
export const EventsQuery = Type.Object({ group: Type.Optional(GroupName) }, { ...strict, description: '?group=' });
export const DumpQuery = Type.Object(
  { bytesMax: Type.Optional(Type.Integer({ minimum: 1, maximum: LIMITS.holdBytesMax, description: 'most bytes of frames to copy, 1 to 4294967296' })) },
  { ...strict, description: '?bytesMax=' },
);
export const NoQuery = Type.Object({}, { ...strict, description: 'no parameters' });
export const GroupParams = Type.Object({ group: GroupName });
export const MemberParams = Type.Object({ group: GroupName, member: MemberName });

const HeldNow = Type.Object({ frames: Count, bytes: Count, oldestMs: Type.Number({ minimum: 0 }) });
const Dropped = Type.Object({ overflow: Count, discarded: Count, refused: Count });
const stateFields = {
  group: GroupName,
  generation: Type.Integer({ minimum: 0, description: '0 = never protected' }),
  phase: Type.Enum(['idle', 'protected', 'draining', 'fenced']),
  open: Epoch,
  sealed: Epoch,
  acked: Epoch,
  committed: Epoch,
  released: Epoch,
  held: HeldNow,
  dropped: Dropped,
};
/** What every command answers. ignored: an exact repeat; nothing changed. */
export const CommandReply = Type.Object({ ...stateFields, outcome: Type.Enum(['accepted', 'ignored']) });
const MemberView = Type.Object({ name: MemberName, open: Epoch, sealed: Epoch, acked: Epoch, ready: Type.Boolean() });
/** GET /v1/groups/{g}: the state, each member's own epochs, and the group file it was made from. */
const HostView = Type.Object({
  host: HostName,
  acked: Epoch,
  behind: Type.Integer({ minimum: 0, description: 'epochs that somebody has acked and this host has not' }),
  late: Type.Boolean({ description: 'the others wait for it: nobody has acked less, somebody more' }),
  alive: Type.Boolean({ description: 'its lease in the ledger lives' }),
});
const HostViews = Type.Array(HostView, { description: 'of a protected group across hosts: how far each is, as this daemon last heard from the ledger' });
export const GroupView = Type.Object({ ...stateFields, members: Type.Array(MemberView), hosts: Type.Optional(HostViews), spec: GroupFile });
export const GroupList = Type.Array(GroupView);
export const HeldView = Type.Object({
  group: GroupName,
  generation: Type.Integer({ minimum: 0 }),
  frames: Count,
  bytes: Count,
  epochs: Type.Array(Type.Object({ epoch: Epoch, frames: Count, bytes: Count, oldestMs: Type.Number({ minimum: 0 }) })),
});
export const Refusal = Type.Object(
  {
    code: Type.Enum(ERROR_CODES),
    message: Type.String(),
    group: Type.Optional(Type.String()),
    generation: Type.Optional(Type.Integer({ minimum: 0 })),
    open: Type.Optional(Epoch),
  },
  { description: 'why nothing was done' },
);
/** To each of several commands, in their order, what it would have been answered alone. */
export const CommandsReply = Type.Object({
  answers: Type.Array(Type.Union([CommandReply, Refusal], { description: 'the group\'s state, or, where there is a `code`, why nothing was done' })),
});
export const Health = Type.Object({ live: Type.Boolean() });
export const Readiness = Type.Object({ ready: Type.Boolean(), missing: Type.Array(Type.String()) });

export const EVENT_TYPES = [
  'protected', 'unprotected', 'cut', 'acked', 'committed', 'released', 'discarded', 'rolled-back', 'taken-over', 'fenced', 'joined', 'left',
  'output-pending', 'high-water', 'overflow', 'port-lost', 'port-back', 'hold-lost', 'hold-back', 'leak-blocked', 'unvetted', 'refused', 'gap',
  'isolated', 'rejoined', 'peer-late', 'peer-lost', 'peer-back',
] as const;
export type EventType = (typeof EVENT_TYPES)[number];
/** `data` of a server-sent event. `gap`: events were missed; read the groups' state again. */
export const ApiEvent = Type.Object({
  type: Type.Enum([...EVENT_TYPES]),
  atMs: Type.Number({ description: 'wall clock, milliseconds since 1970' }),
  group: Type.Optional(Type.String()),
  generation: Type.Optional(Type.Integer({ minimum: 0 })),
  epoch: Type.Optional(Epoch),
  member: Type.Optional(Type.String()),
  members: Type.Optional(Type.Array(Type.String())),
  held: Type.Optional(HeldFate),
  port: Type.Optional(Type.String()),
  host: Type.Optional(Type.String({ description: 'of a peer\'s: another host of the ledger' })),
  frames: Type.Optional(Count),
  heldBytes: Type.Optional(Count),
  occupancy: Type.Optional(Type.Number()),
});

export type GroupFile = Type.Static<typeof GroupFile>;
export type GroupBody = Type.Static<typeof GroupBody>;
export type MemberFile = Type.Static<typeof MemberFile>;
export type MemberBody = Type.Static<typeof MemberBody>;
export type ProtectBody = Type.Static<typeof ProtectBody>;
export type CutBody = Type.Static<typeof CutBody>;
export type AckBody = Type.Static<typeof AckBody>;
export type EpochBody = Type.Static<typeof EpochBody>;
export type TakeoverBody = Type.Static<typeof TakeoverBody>;
export type UnprotectBody = Type.Static<typeof UnprotectBody>;
export type EpochCommand = Type.Static<typeof EpochCommand>;
export type CommandsBody = Type.Static<typeof CommandsBody>;
export type CommandsReply = Type.Static<typeof CommandsReply>;
export type CommitQuery = Type.Static<typeof CommitQuery>;
export type LeaveQuery = Type.Static<typeof LeaveQuery>;
export type CommandReply = Type.Static<typeof CommandReply>;
export type GroupView = Type.Static<typeof GroupView>;
export type HeldView = Type.Static<typeof HeldView>;
export type Refusal = Type.Static<typeof Refusal>;
export type Health = Type.Static<typeof Health>;
export type Readiness = Type.Static<typeof Readiness>;
export type ApiEvent = Type.Static<typeof ApiEvent>;
