/** The table of measurements, in the report's order. */
import type { Scenario } from './scenario.ts';
import { external } from './scenarios/external.ts';
import { guestPeers } from './scenarios/guest-peers.ts';
import { intra } from './scenarios/intra.ts';
import { kernelPeers } from './scenarios/kernel-peers.ts';

export const TABLE: readonly Scenario[] = [...intra, ...external, ...kernelPeers, ...guestPeers];
