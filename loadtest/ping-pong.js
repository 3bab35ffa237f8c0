// Pairs of accounts pay each other, in both directions at once (PAIRS, default 8).

import exec from 'k6/execution';
import { handleSummary, optionsFor, signEveryoneIn, transfer, users } from './lib.js';

const PAIRS = Math.min(Number(__ENV.PAIRS || 8), Math.floor(users.length / 2));

export const options = optionsFor(1);
export { handleSummary };

export function setup() {
    return signEveryoneIn();
}

export default function (sessions) {
    const turn = exec.scenario.iterationInTest;
    const first = 2 * (Math.floor(turn / 2) % PAIRS);
    const sender = first + (turn % 2);
    const receiver = first + 1 - (turn % 2);
    transfer(sessions[sender], users[sender].accounts[0], users[receiver].accounts[0], '1.00');
}
