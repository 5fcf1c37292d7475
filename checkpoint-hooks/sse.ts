/**
 * Server-sent events (WHATWG HTML, 9.2.6): text in, messages out, across any cut of the stream.
 *
 *   chunk ─► push() ─► lines ─► fields of the message being built ─► empty line: yielded
 *
 * Bound: a message of more than MESSAGE_CHARS_MAX characters throws; the stream is then not one of
 * ours. Comments (heartbeats) and unknown fields are skipped. It keeps no connection: reconnecting
 * with the last id is the client's.
 */
const MESSAGE_CHARS_MAX = 1 << 20;

export interface SseMessage {
  readonly id: string | undefined;
  readonly event: string;
  readonly data: string;
}

export class SseParser {
  private rest = '';
  private data: string[] = [];
  private event = '';
  private id: string | undefined;
  private chars = 0;

  *push(chunk: string): Generator<SseMessage> {
    this.rest += chunk;
    if (this.rest.length + this.chars > MESSAGE_CHARS_MAX) throw new RangeError('server-sent event of more than 1 MiB');
    let from = 0;
    for (;;) {
      const end = this.rest.indexOf('\n', from);
      if (end < 0) break;
      const line = this.rest.slice(from, this.rest[end - 1] === '\r' && end > from ? end - 1 : end);
      from = end + 1;
      const message = this.line(line);
      if (message !== undefined) yield message;
    }
    this.rest = this.rest.slice(from);
  }

  private line(line: string): SseMessage | undefined {
    if (line === '') return this.maybeMessage();
    this.chars += line.length;
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') this.data.push(value);
    else if (field === 'event') this.event = value;
    else if (field === 'id') this.id = value;
    return undefined;
  }

  /** The message built so far; none if it has no data (a comment alone, a bare id). */
  private maybeMessage(): SseMessage | undefined {
    const data = this.data.join('\n');
    const event = this.event === '' ? 'message' : this.event;
    const had = this.data.length > 0;
    this.data = [];
    this.event = '';
    this.chars = 0;
    return had ? { id: this.id, event, data } : undefined;
  }
}
