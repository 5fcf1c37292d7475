/**
 * Hosts of which the ledger alone is there: no daemon, no members, no frames. They ack what they are told.
 *
 *   node played-child.js <endpoint of etcd> <host> …        one ledger a host, the daemon's own
 *
 *   known          ─► how many protected groups all of them know
 *   <group> <epoch>   ack this epoch, all of them; nobody answers
 */
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { epoch } from '../../proxy/core/types.ts';
import type { Head } from '../../proxy/core/types.ts';
import { EtcdLedger } from '../../proxy/edge/etcd-ledger.ts';

/** The daemon's default (ledger.prefix). */
const PREFIX = '/sluice/';

class PlayedHost {
  readonly #ledger: EtcdLedger;
  readonly #heads = new Map<string, Head>();

  constructor(self: string, endpoint: string) {
    this.#ledger = new EtcdLedger({ self, owner: `played ${self}`, prefix: PREFIX, endpoints: [endpoint], tls: undefined });
    this.#ledger.onView((group, { head }) => {
      if (head?.phase === 'protected') this.#heads.set(group, head);
      else this.#heads.delete(group);
    });
  }
  start(): Promise<void> {
    return this.#ledger.start();
  }
  get known(): number {
    return this.#heads.size;
  }
  /** Of a group it does not know: nothing, as a host that has not heard of it. */
  ack(group: string, acked: number): void {
    const head = this.#heads.get(group);
    if (head !== undefined) this.#ledger.publish(group, { generation: head.generation, life: head.life, epoch: epoch(acked) });
  }
}

async function play([endpoint = '', ...names]: readonly string[]): Promise<void> {
  const hosts = names.map((name) => new PlayedHost(name, endpoint));
  for (const host of hosts) await host.start();
  for await (const line of createInterface({ input: process.stdin })) {
    const [group = '', acked = ''] = line.split(' ');
    if (group === 'known') console.log(String(Math.min(...hosts.map(({ known }) => known))));
    else for (const host of hosts) host.ack(group, Number(acked));
  }
  process.exit(); // whoever played them is gone, and so are they
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await play(process.argv.slice(2));
