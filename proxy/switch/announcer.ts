/**
 * Tells the network where a group lives now, over the portable plane: what edge/announcer.ts sends
 * on a bridge is said by the switch, out of every port but the nic's own.
 */
import { rarpFrame } from '../edge/announcer.ts';
import type { GroupSpec } from '../core/types.ts';
import type { Announcer, GroupId, NicPlace } from '../ports.ts';
import type { ChildLink } from './child-link.ts';

export class SwitchAnnouncer implements Announcer {
  readonly #child: Pick<ChildLink, 'say'>;

  constructor(child: Pick<ChildLink, 'say'>) {
    this.#child = child;
  }

  announce(_id: GroupId, spec: GroupSpec, nics: readonly NicPlace[]): Promise<void> {
    for (const { port, mac, vlan } of spec.members.flatMap((member) => member.nics)) {
      const except = nics.find((place) => place.port === port)?.ifindex ?? 0;
      this.#child.say({ op: 'announce', except, frame: rarpFrame(mac, vlan) });
    }
    return Promise.resolve();
  }
}
