/**
 * What the gate tells its listeners: each change once. A port lost or back, a port under another
 * name, trouble that nobody waits for.
 */
import type { GateEvent } from './kernel.ts';
import type { Failure } from './perform.ts';
import type { Want } from './plan.ts';

export interface Owner {
  readonly id: number;
  readonly member: string;
  readonly port: string;
}

export class Reports {
  readonly #listeners: ((event: GateEvent) => void)[] = [];
  readonly #renamed = new Map<number, string>();
  #lost = new Set<number>();
  #troubled = '';

  onEvent(listener: (event: GateEvent) => void): void {
    this.#listeners.push(listener);
  }
  emit(event: GateEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
  /** The same trouble is said once; none ends it. */
  trouble(failures: readonly Failure[]): void {
    const message = [...new Set(failures.map(({ error }) => messageOf(error)))].join('; ');
    if (message !== '' && message !== this.#troubled) this.emit({ kind: 'trouble', message });
    this.#troubled = message;
  }
  ports({ missing, placed }: Want, ownerOf: (nic: number) => Owner | undefined): void {
    const now = new Set(missing.map(({ nic }) => nic));
    const emit = (kind: 'port-lost' | 'port-back', nic: number): void => {
      const owner = ownerOf(nic);
      if (owner !== undefined) this.emit({ kind, ...owner });
    };
    for (const nic of now) if (!this.#lost.has(nic)) emit('port-lost', nic);
    for (const { nic } of placed) if (this.#lost.has(nic)) emit('port-back', nic);
    this.#lost = now;
    for (const { nic, port, device } of [...placed, ...missing]) this.#name(nic, port, device);
  }
  forget(nic: number): void {
    this.#lost.delete(nic);
    this.#renamed.delete(nic);
  }

  /** A renamed port stays its member's: it is the device that was protected. */
  #name(nic: number, port: string, device: string): void {
    if (device === '' || device === port) {
      this.#renamed.delete(nic);
    } else if (this.#renamed.get(nic) !== device) {
      this.#renamed.set(nic, device);
      this.emit({ kind: 'trouble', message: `port ${port} is called ${device} now; it stays protected as ${port}: give it its name back` });
    }
  }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
