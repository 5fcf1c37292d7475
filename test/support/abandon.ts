/** A test run that is told to end takes its open beds down. */
import { abandonOnSignal } from '../../bench/bed/abandon.ts';

abandonOnSignal();
