/**
 * When announcements are said: at once and twice again, a bounded number a moment.
 *
 *     begin ─► round 1 ── 200 ms ──► round 2 ── 1 s ──► round 3 ─► over
 *                 └► waiting ─► BURST at once, BURST more every BURST_EVERY_MS, all groups together
 *
 * A group's later `begin` takes the place of its earlier one, and what is no longer true (`isStill`)
 * is not said again. What fails later than the first burst is let be: the next round is its repeat.
 *
 * Bound: a round of a group is only asked for when its last one has been said, so at most one of
 * each group waits.
 */
const AGAIN_AFTER_MS = [200, 1000] as const;
const BURST = 64;
const BURST_EVERY_MS = 10;

/** Sends one frame. */
type Say = () => void;

interface Course {
  readonly isStill: () => boolean;
  /** The frames of a round, by what is where now. */
  readonly round: () => Say[];
  left: Say[];
  rounds: number;
  timer: NodeJS.Timeout | undefined;
}

export class Rounds {
  readonly #courses = new Map<number, Course>();
  #ticking: NodeJS.Timeout | undefined;

  /** Says the first of it; throws when that fails. */
  begin(id: number, isStill: () => boolean, round: () => Say[]): void {
    this.#end(id);
    const course: Course = { isStill, round, left: round(), rounds: 1, timer: undefined };
    this.#courses.set(id, course);
    if (this.#ticking === undefined) this.#burst();
  }

  close(): void {
    for (const id of [...this.#courses.keys()]) this.#end(id);
    clearTimeout(this.#ticking);
    this.#ticking = undefined;
  }

  #end(id: number): void {
    clearTimeout(this.#courses.get(id)?.timer);
    this.#courses.delete(id);
  }

  /** In the order in which groups came. */
  #burst(): void {
    let most = BURST;
    try {
      for (const [id, course] of this.#courses) {
        const some = course.left.splice(0, most);
        most -= some.length;
        for (const say of some) say();
        if (course.left.length === 0 && course.timer === undefined) this.#later(id, course);
      }
    } finally {
      if (most < BURST) this.#ticking = setTimeout(() => this.#tick(), BURST_EVERY_MS).unref();
    }
  }

  #tick(): void {
    this.#ticking = undefined;
    for (const [id, { isStill }] of this.#courses) if (!isStill()) this.#end(id);
    this.#quietly(() => this.#burst());
  }

  #later(id: number, course: Course): void {
    const afterMs = AGAIN_AFTER_MS[course.rounds - 1];
    if (afterMs === undefined) return this.#end(id);
    course.timer = setTimeout(() => this.#again(id, course), afterMs).unref();
  }

  #again(id: number, course: Course): void {
    course.timer = undefined;
    course.rounds += 1;
    if (!course.isStill()) return this.#end(id);
    this.#quietly(() => (course.left = course.round()));
    if (this.#ticking === undefined) this.#quietly(() => this.#burst());
  }

  #quietly(work: () => void): void {
    try {
      work();
    } catch {
      // The next round says it again; the guests' own frames do as well.
    }
  }
}
