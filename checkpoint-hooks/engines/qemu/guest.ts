/**
 * What the QEMU engine is told of a group's guests: a file, by itself or written by who made the
 * guests. A guest has two sides, each a QEMU process of its own; one runs, the other waits for it
 * to die. After a takeover they change roles, so neither is "the" primary.
 *
 *     group: web
 *     guests:
 *       - name: front                      # the member's name
 *         ramBytes: 75497472
 *         nics: [ { mac: "02:…:01", addresses: ["10.0.0.1", "fd00::1"] } ]      # addresses (optional): announced after a takeover
 *         sides:
 *           - { argv: [qemu-system-x86_64, …], qmp: /run/a0.qmp, pidFile: /run/a0.pid, ram: /dev/shm/a0, ports: [tap0] }
 *           - { argv: [qemu-system-x86_64, …], qmp: /run/a1.qmp, pidFile: /run/a1.pid, ram: /dev/shm/a1, ports: [tap1] }
 *
 * `argv` starts that side running; the engine adds `-incoming defer` for a standby. Both are the
 * same machine but for the paths and the tap, have `ram` as shared file memory backend (share=on),
 * a QMP server at `qmp`, and write their process number to `pidFile`.
 *
 * `ports` are the sides' taps, one for each of `nics` in order. QEMU makes a tap that is missing and
 * attaches it to nothing: who wrote the file made the taps, and put them into the bridge.
 */
import { Type } from '../../../proxy/doors/typebox.ts';
import { MemberName, GroupName, checker, problemText } from '../../../proxy/api/contract.ts';
import type { MemberFile } from '../../../proxy/api/contract.ts';

/** Memory is compared in blocks of this size first. */
export const RAM_GRAIN_BYTES = 65_536;
const strict = { additionalProperties: false } as const;
const Path = Type.String({ pattern: '^/', description: 'an absolute path' });
const Side = Type.Object(
  {
    argv: Type.Array(Type.String(), { minItems: 1, description: 'the command line, a list beginning with the program' }),
    qmp: Path,
    pidFile: Path,
    ram: Path,
    ports: Type.Array(Type.String(), { minItems: 1, description: 'a tap for each nic' }),
  },
  { ...strict, description: '{ argv, qmp, pidFile, ram, ports }' },
);
const Nic = Type.Object(
  {
    mac: Type.String(),
    vlan: Type.Optional(Type.Integer({ minimum: 1, maximum: 4094 })),
    addresses: Type.Optional(Type.Array(Type.String(), { maxItems: 16, description: 'up to 16 IPv4 and IPv6 addresses, which Sluice announces after a takeover' })),
  },
  { ...strict, description: '{ mac, vlan?, addresses? }' },
);
const Guest = Type.Object(
  {
    name: MemberName,
    ramBytes: Type.Integer({ minimum: 1 << 20, description: 'bytes of guest memory, a multiple of 65536' }),
    nics: Type.Array(Nic, { minItems: 1, description: 'a list of nics' }),
    sides: Type.Tuple([Side, Side], { description: 'two sides' }),
  },
  { ...strict, description: '{ name, ramBytes, nics, sides }' },
);
export const GuestGroup = Type.Object(
  { group: GroupName, guests: Type.Array(Guest, { minItems: 1, maxItems: 64, description: 'a list of guests' }) },
  { ...strict, description: 'a file of guests' },
);

export type GuestSide = Type.Static<typeof Side>;
export type GuestNic = Type.Static<typeof Nic>;
export type GuestSpec = Type.Static<typeof Guest>;
export type GuestGroup = Type.Static<typeof GuestGroup>;
/** Which of a guest's two sides. */
export type SideIndex = 0 | 1;
export const otherSide = (side: SideIndex): SideIndex => (side === 0 ? 1 : 0);

const check = checker(GuestGroup);

/** A checked description, or an error that says what is wrong with it. */
export function mustGuests(value: unknown): GuestGroup {
  const parsed = check(value);
  if (!parsed.ok) throw new Error(problemText(parsed.problem));
  const names = parsed.value.guests.map(({ name }) => name);
  if (new Set(names).size < names.length) throw new Error('two guests have one name: rename one');
  for (const { name, ramBytes, nics, sides } of parsed.value.guests) {
    if (ramBytes % RAM_GRAIN_BYTES !== 0) throw new Error(`guest ${name}: ramBytes ${ramBytes} is not a multiple of ${RAM_GRAIN_BYTES}`);
    if (sides.some(({ ports }) => ports.length !== nics.length)) throw new Error(`guest ${name}: each side needs one port for each of its ${nics.length} nics`);
  }
  return parsed.value;
}

/** The member a guest is to Sluice while that side runs. */
export function memberAt(guest: GuestSpec, side: SideIndex): MemberFile {
  const { ports } = guest.sides[side];
  const nics = guest.nics.map(({ mac, vlan, addresses }, i) =>
    ({ port: ports[i] ?? '', mac, ...(vlan === undefined ? {} : { vlan }), ...(addresses === undefined ? {} : { addresses }) }));
  return { name: guest.name, nics };
}
