/**
 * The kernel's counters of one group as the hold loop reads them (D5, D8), and the two that it
 * alone writes. They lie in maps shared with the kernel programs; only low words are compared, so
 * a difference is right as long as fewer than 2^31 frames are on their way.
 *
 *   in == out + gone      nothing of the nic's queue is left: not here, not before, not after us
 *
 * Out is read before in, as the kernel does: the other way round a frame could hide another.
 */
export interface GroupCells {
  /** Held frames the kernel sent to the ring, by colour modulo 64 (int32 circle). */
  heldIn(residue: number): number;
  /** in - out - gone of the nic's held frames; of the early frames for it. */
  heldMissing(nic: number): number;
  earlyMissing(nic: number): number;
  /** Changes whenever any of the nic's counters does. */
  trace(nic: number): number;
  addGone(nic: number, held: number, early: number): void;
  /** The group's nics, at most `nics.length`; returns how many. */
  nics(nics: Int32Array): number;
}

/** Layout of the maps: a mirror of the kernel's ABI header, proved equal by a unit test. */
export const GROUP_LAYOUT = { size: 576, firstNic: 12, heldIn: 64 } as const;
export const NIC_LAYOUT = { size: 80, member: 12, group: 8, next: 16, heldIn: 32, heldOut: 40, earlyIn: 48, earlyOut: 56, heldGone: 64, earlyGone: 72 } as const;

export class KernelCells implements GroupCells {
  readonly #id: number;
  readonly #group: Int32Array;
  readonly #nics: Int32Array;
  readonly #gone: BigUint64Array;

  constructor(id: number, groups: ArrayBuffer, nics: ArrayBuffer) {
    this.#id = id;
    this.#group = new Int32Array(groups, id * GROUP_LAYOUT.size, GROUP_LAYOUT.size >> 2);
    this.#nics = new Int32Array(nics);
    this.#gone = new BigUint64Array(nics);
  }

  heldIn(residue: number): number {
    return this.#group[(GROUP_LAYOUT.heldIn >> 2) + 2 * residue]!;
  }

  #cell(nic: number, offset: number): number {
    return this.#nics[(nic * NIC_LAYOUT.size + offset) >> 2]!;
  }

  heldMissing(nic: number): number {
    const left = this.#cell(nic, NIC_LAYOUT.heldOut) + this.#cell(nic, NIC_LAYOUT.heldGone);
    return (this.#cell(nic, NIC_LAYOUT.heldIn) - left) | 0;
  }

  earlyMissing(nic: number): number {
    const left = this.#cell(nic, NIC_LAYOUT.earlyOut) + this.#cell(nic, NIC_LAYOUT.earlyGone);
    return (this.#cell(nic, NIC_LAYOUT.earlyIn) - left) | 0;
  }

  trace(nic: number): number {
    const held = Math.imul(this.#cell(nic, NIC_LAYOUT.heldIn), 31) + this.#cell(nic, NIC_LAYOUT.heldOut);
    const early = Math.imul(this.#cell(nic, NIC_LAYOUT.earlyIn), 31) + this.#cell(nic, NIC_LAYOUT.earlyOut);
    return (Math.imul(held | 0, 961) + early) | 0;
  }

  addGone(nic: number, held: number, early: number): void {
    const word = (nic * NIC_LAYOUT.size) >> 3;
    const heldGone = word + (NIC_LAYOUT.heldGone >> 3);
    const earlyGone = word + (NIC_LAYOUT.earlyGone >> 3);
    if (held !== 0) this.#gone[heldGone] = this.#gone[heldGone]! + BigInt(held);
    if (early !== 0) this.#gone[earlyGone] = this.#gone[earlyGone]! + BigInt(early);
  }

  nics(nics: Int32Array): number {
    let count = 0;
    let nic = this.#group[GROUP_LAYOUT.firstNic >> 2]!;
    while (nic !== 0 && count < nics.length && this.#cell(nic, NIC_LAYOUT.group) === this.#id) {
      nics[count++] = nic;
      nic = this.#cell(nic, NIC_LAYOUT.next);
    }
    return count;
  }
}
