/**
 * The API's contract, and all that a client needs of it: the shapes (schemas and their types), the
 * codes, and the parsing of a group file. Clients import this file and nothing else of the daemon.
 */
export * from './contract-schema.ts';
export * from './contract-figures.ts';
export { checker, problemText } from './contract-explain.ts';
export type { Parsed, Problem } from './contract-explain.ts';
export { groupFileOf, parseGroup, parseMember, parseSize } from './contract-parse.ts';
