/**
 * The arrays beside the kernel's hashes: what the programs look up for nearly every frame, without hashing.
 *
 *   hash ports    ifindex ─► nic      ─┬─ near[ifindex]  { nic, bridge }     below the array's end
 *   hash devices  ifindex ─► bridge   ─┘                                     above it the hashes are asked
 *   hash wires    VLAN id ─► group    ─── vlans[id]        group + 1
 *
 * The hashes say what is to be; they are walked, and they survive an older version's daemon, which knows no
 * arrays. A program sees the array's cell: it is written after the hash where a row comes and before it where
 * one goes, so a process that dies between the two leaves what there was before, and whoever reads the
 * hash next (a new process, every look at what is attached) makes both equal by `mirror`.
 */
const CELL_WORDS = 2;
const PLACE: Readonly<Record<string, { readonly array: 'near' | 'vlans'; readonly at: number; readonly add: number }>> = {
  ports: { array: 'near', at: 0, add: 0 },
  devices: { array: 'near', at: 1, add: 0 },
  wires: { array: 'vlans', at: 0, add: 1 },
};

export interface Row {
  readonly key: number;
  readonly value: number;
}

export class Near {
  readonly #cells: Readonly<Record<'near' | 'vlans', Uint32Array>>;

  /** The memory of the two maps, eight bytes a cell. */
  constructor(near: ArrayBuffer, vlans: ArrayBuffer) {
    this.#cells = { near: new Uint32Array(near), vlans: new Uint32Array(vlans) };
  }

  /** Those whose rows have cells. */
  static readonly tables: readonly string[] = Object.keys(PLACE);

  /** The row is in the hash. A table without cells, and a key above the array's end: nothing. */
  put(table: string, { key, value }: Row): void {
    const place = PLACE[table];
    if (place !== undefined) this.#store(place, key, value + place.add);
  }
  /** The row is in the hash still. */
  remove(table: string, key: number): void {
    const place = PLACE[table];
    if (place !== undefined) this.#store(place, key, 0);
  }
  /** Makes the cells what the hash says; only what differs is written, for programs may be reading. */
  mirror(table: string, rows: readonly Row[]): void {
    const place = PLACE[table];
    if (place === undefined) return;
    const cells = this.#cells[place.array];
    const wanted = new Map(rows.map(({ key, value }) => [key, value + place.add]));
    // Tens of thousands of cells, nearly all of them empty, at every look: nothing but reading is done for those.
    for (let index = this.#index(place, 0), key = 0; index < cells.length; index += CELL_WORDS, key++) {
      if (cells[index] !== 0 && !wanted.has(key)) this.#store(place, key, 0);
    }
    for (const [key, value] of wanted) if (cells[this.#index(place, key)] !== value) this.#store(place, key, value);
  }

  #index({ at }: (typeof PLACE)[string], key: number): number {
    return key * CELL_WORDS + at;
  }
  #store(place: (typeof PLACE)[string], key: number, value: number): void {
    const index = this.#index(place, key);
    // After all that was stored before it: nics and groups that the row leads to.
    if (index < this.#cells[place.array].length) Atomics.store(this.#cells[place.array], index, value);
  }
}
