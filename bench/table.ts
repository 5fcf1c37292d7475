/** The table of measurements, in the report's order. */
import type { Scenario } from './scenario.ts';
import { calls } from './scenarios/calls.ts';
import { external } from './scenarios/external.ts';
import { growth } from './scenarios/growth.ts';
import { guestPeers } from './scenarios/guest-peers.ts';
import { headline } from './scenarios/headline.ts';
import { hosts } from './scenarios/hosts.ts';
import { intra } from './scenarios/intra.ts';
import { kernelPeers } from './scenarios/kernel-peers.ts';
import { besides } from './scenarios/beside.ts';

export const TABLE: readonly Scenario[] = [...headline, ...intra, ...besides, ...external, ...calls, ...growth, ...hosts, ...kernelPeers, ...guestPeers];
