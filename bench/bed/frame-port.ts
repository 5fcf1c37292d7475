/**
 * One end of a wire: puts bytes on it, hands over what comes out. Two kinds stand behind it: a tap
 * (as a VM's NIC: what is written enters the bridge port) and a packet socket on a veth's end.
 */
export interface FramePort {
  /** The device's name and the namespace it is in, for messages. */
  readonly name: string;
  /** Puts a whole Ethernet frame on the wire. False where the kernel had no room: it is lost. */
  send(frame: Uint8Array): boolean;
  /**
   * Takes what has arrived, at most `framesMax`, oldest first. `frame` is valid during the call
   * only. Returns the number of frames taken.
   */
  drain(take: (frame: Uint8Array, atUs: number) => void, framesMax?: number): number;
  /** Frames the kernel dropped because nobody took them in time. An oracle must see 0. */
  missed(): number;
  close(): void;
}
