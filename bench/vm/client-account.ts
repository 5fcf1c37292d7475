/** What the counting client says: its lines' types, shared by the process and by who started it. */

export interface ClientReport {
  readonly kind: 'report';
  readonly atMs: number;
  readonly answers: number;
  readonly last: number;
  readonly wrong: number;
}

export interface WrongAnswer {
  readonly atMs: number;
  readonly id: number;
  readonly number: number;
  readonly due: number;
}

export interface ClientAccount {
  readonly kind: 'account';
  readonly answers: number;
  readonly first: number | undefined;
  readonly last: number | undefined;
  readonly wrong: readonly WrongAnswer[];
  /** When each answer came, and how long it had been asked for. */
  readonly answersAtMs: readonly number[];
  readonly latenciesMs: readonly number[];
  /** What ended the connection; absent where the end was asked for. */
  readonly broken?: string;
}
