/** When to look again: not before something wakes the loop. */
export const NEVER = Number.POSITIVE_INFINITY;
