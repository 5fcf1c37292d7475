/**
 * Tells the network where a group lives now, over the portable plane: what edge/announcer.ts sends
 * on a bridge is said by the switch, out of every port but the group's own.
 */
import { announcementsOf } from '../edge/announcer.ts';
import { Rounds } from '../edge/rounds.ts';
import type { GroupSpec } from '../core/types.ts';
import type { Announcer, GroupId, NicPlace } from '../ports.ts';
import type { ChildLink } from './child-link.ts';

export class SwitchAnnouncer implements Announcer {
  readonly #child: Pick<ChildLink, 'say'>;
  readonly #rounds = new Rounds();

  constructor(child: Pick<ChildLink, 'say'>) {
    this.#child = child;
  }

  announce(id: GroupId, spec: GroupSpec, nics: readonly NicPlace[], isStill: () => boolean): Promise<void> {
    const all = announcementsOf(spec);
    this.#rounds.begin(id, isStill, () => all.map(({ port, frame }) => () => {
      const except = nics.find((place) => place.port === port)?.ifindex ?? 0;
      this.#child.say({ op: 'announce', except, frame });
    }));
    return Promise.resolve();
  }

  close(): void {
    this.#rounds.close();
  }
}
