/** The part of the untyped npm package `raw-socket` that the echo probe uses. */
declare module 'raw-socket' {
  interface Socket {
    send(
      buffer: Buffer,
      offset: number,
      length: number,
      address: string,
      done: (error: Error | null, bytes: number) => void,
    ): Socket;
    on(event: 'message', listener: (buffer: Buffer, source: string) => void): Socket;
    on(event: 'error', listener: (error: Error) => void): Socket;
    on(event: 'close', listener: () => void): Socket;
    close(): Socket;
  }
  const raw: {
    createSocket(options: { protocol: number }): Socket;
    createChecksum(buffer: Buffer): number;
    writeChecksum(buffer: Buffer, offset: number, checksum: number): Buffer;
    readonly Protocol: { readonly ICMP: number };
  };
  export default raw;
}
