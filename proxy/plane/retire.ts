/**
 * How long the blocks of a packet ring wait.
 *
 * Every ring has a timer of the kernel's of its own, and an expiry costs what an interrupt costs (8 us
 * on a virtual machine), traffic or not; and all of its memory is the kernel's from the start. So a
 * host's first groups have rings, whose blocks wait the longer, the more were open before (D32), and
 * all further ones share one (D102). Who wants more rings than that has them, none of which waits
 * longer than the kernel's own default of 8 ms.
 */
const RETIRE = [{ rings: 2, ms: 1 }, { rings: 4, ms: 2 }, { rings: 8, ms: 4 }] as const;
const RETIRE_MS_MAX = 8;
export const retireMsOf = (ringsOpen: number): number => RETIRE.find(({ rings }) => ringsOpen < rings)?.ms ?? RETIRE_MS_MAX;
