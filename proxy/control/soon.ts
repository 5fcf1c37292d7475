/**
 * What is there already, or will be: most of what a group does ends in the turn in which it began, and
 * a promise for each step of it is what an engine of many groups would pay most for. A promise is the
 * language's own: what else can be waited for would be taken for the value.
 */
export type Soon<T> = T | Promise<T>;

/** `next` of it: at once where it is there. */
export const after = <T, R>(value: Soon<T>, next: (value: T) => Soon<R>): Soon<R> => (value instanceof Promise ? value.then(next) : next(value));
