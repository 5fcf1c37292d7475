/**
 * Who takes over for whom, in the two ways there are:
 *
 *   in a life       every unit has a RAM worker and mostly a ready standby: nothing is copied
 *   at a start      an engine that finds its group dead has only the store: each guest's other side
 *                   is started and filled from it
 *
 * Until its first own checkpoint the new generation stands on the old one's: the store's intent says so.
 */
import type { GroupView } from '../../../proxy/api/contract.ts';
import type { GuestSpec, SideIndex } from './guest.ts';
import { memberAt, otherSide } from './guest.ts';
import { kill } from './machine.ts';
import { GuestRam } from './ram.ts';
import { launchStandby } from './standby.ts';
import type { Manifest, MemberSource, Store } from './store.ts';
import type { Heir, Sources } from './takeover.ts';
import type { Unit } from './unit.ts';

/** The checkpoint that a group at `generation` may go on from. Throws a clear error when there is none. */
export function mustCheckpoint(store: Store, generation: number): Manifest {
  const { newest } = store;
  if (newest === undefined) throw new Error(`group ${store.group} died before its first checkpoint: there is nothing to go on from`);
  if (store.isNewestOf(generation)) return newest;
  throw new Error(`group ${store.group} is at generation ${generation}, the newest checkpoint in ${store.directory} is of generation ${newest.generation}: it is not this execution's`);
}

/** Its standby is at that checkpoint and waits: nothing has to be filled. */
export const isHot = ({ standby, settled }: Unit, newest: Manifest): boolean => standby?.ready === true && settled?.sequence === newest.sequence;

export function heirOf(unit: Unit, newest: Manifest, sources: Sources): Heir {
  const { spec, standby, settled } = unit;
  return {
    spec,
    to: otherSide(unit.side),
    state: settled?.sequence === newest.sequence ? settled.state : undefined,
    machine: async () => {
      if (standby !== undefined && isHot(unit, newest)) return { machine: standby.machine, cold: false };
      await unit.ram.ask({ do: 'dropStandby' });
      const machine = standby?.machine.qmp.isOpen === true ? standby.machine : await launchStandby(unit.waiting);
      await fill(unit.ram, unit.waiting.ram, sources().get(unit.name));
      return { machine, cold: true };
    },
  };
}

/** A guest of which nothing is left but the store. Its sides are ended first: one may hang half alive. */
export function heirFromStore(spec: GuestSpec, view: GroupView, sources: Sources): Heir {
  const to = otherSide(sideIn(spec, view));
  for (const side of spec.sides) kill(side);
  return {
    spec, to, state: undefined,
    machine: async () => {
      const machine = await launchStandby(spec.sides[to]);
      const ram = new GuestRam(spec.name, { ram: spec.sides[to].ram, ramBytes: spec.ramBytes });
      try {
        await fill(ram, spec.sides[to].ram, sources().get(spec.name));
      } finally {
        await ram.close();
      }
      return { machine, cold: true };
    },
  };
}

/** What tells where Sluice has the members. */
export interface PlacesView {
  readonly phase: GroupView['phase'];
  readonly spec: Pick<GroupView['spec'], 'members'>;
}

/** Where Sluice knows the guest to be. */
export function sideIn(spec: GuestSpec, view: PlacesView): SideIndex {
  const member = view.spec.members.find(({ name }) => name === spec.name);
  const ports = member?.nics?.map(({ port }) => port) ?? [member?.port];
  const side = ([0, 1] as const).find((index) => (memberAt(spec, index).nics ?? []).every(({ port }, i) => port === ports[i]));
  if (side === undefined) throw new Error(`member ${spec.name} is at ${ports.join(', ')}: that is neither of its sides in the guests' file`);
  return side;
}

async function fill(ram: GuestRam, path: string, source: MemberSource | undefined): Promise<void> {
  if (source === undefined) throw new Error('a member that the checkpoint does not have');
  await ram.ask({ do: 'restore', ram: path, base: source.base, parts: source.parts });
}
